//! Small models of every architecture and rotation against transformers: as a Hugging Face directory, as GGUF, and on candle's kernels.
//!
//! The weights are pseudo-random, made here as `golden/architectures.py` makes them; that script also names the tools and their versions.

use candle_core::{Device, Tensor};
use gguf_format::{GgmlType, GgufWriter, Metadata, TensorSpec};
use quant_core::eight_bit::EightBitCode;
use quant_runtime::calibrate::{CalibrationSet, linear_sites};
use quant_runtime::checkpoint::gguf_name;
use quant_runtime::fold::{Folds, Rotations};
use quant_runtime::layerwise::{LayerwisePlan, Layout, Rotation, Rounding, SmoothOptions, W8A8, quantize_model};
use quant_runtime::model::LinearSite;
use quant_runtime::{Checkpoint, LogitRows, Model, ModelConfig};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;

struct Weights(Vec<(String, Vec<usize>, Vec<f32>)>);

/// 24 bits of splitmix64, seeded by FNV-1a of the name, as f32 in -1..1.
fn values(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    (1..=count as u64)
        .map(|i| {
            let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The tensors of a model by their Hugging Face names.
fn weights(config: &ModelConfig, json: &Value) -> Weights {
    let has = |key: &str| json[key].as_bool().unwrap_or(false);
    let qkv_bias = has("attention_bias") || json["model_type"] == "qwen2";
    let mut list = Vec::new();
    for (gguf, shape, optional) in config.expected_tensors() {
        let name = quant_runtime::checkpoint::hf_name(&gguf).unwrap();
        let wanted = !optional
            || (qkv_bias && ["q_proj", "k_proj", "v_proj"].iter().any(|n| name.contains(n)))
            || (has("attention_bias") && name.contains("o_proj"))
            || (has("mlp_bias") && name.contains("mlp"));
        if !wanted {
            continue;
        }
        let mut v = values(&name, shape.iter().product());
        for v in &mut v {
            *v = match name.as_str() {
                n if n.ends_with("norm.weight") => 1.0 + *v * 0.25,
                "model.embed_tokens.weight" => *v,
                _ => *v * 0.5,
            };
        }
        list.push((name, shape, v));
    }
    Weights(list)
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn write_hf(dir: &Path, json: &Value, weights: &Weights) {
    std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    let bytes: Vec<Vec<u8>> = weights.0.iter().map(|(_, _, v)| le_bytes(v)).collect();
    let views = weights.0.iter().zip(&bytes);
    let views =
        views.map(|((name, shape, _), b)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
    std::fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Rows of q and k in the order of adjacent rotation: channel i of the first half, then i of the second.
fn permuted(v: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let half = v.len() / cols / heads / 2;
    let row = |head: usize, side: usize, i: usize| &v[((head * 2 + side) * half + i) * cols..][..cols];
    let order = (0..heads).flat_map(|h| (0..half).flat_map(move |i| [(h, 0, i), (h, 1, i)]));
    order.flat_map(|(h, s, i)| row(h, s, i).to_vec()).collect()
}

/// The same model as convert_hf_to_gguf.py would write it; yarn with a factor of its own is left to the directory.
fn write_gguf(path: &Path, json: &Value, config: &ModelConfig, weights: &Weights) {
    let arch = match json["model_type"].as_str().unwrap() {
        "mistral" => "llama",
        other => other,
    };
    let mut m = Metadata::new();
    m.set("general.architecture", arch);
    let mut set = |key: &str, value: u32| m.set(&format!("{arch}.{key}"), value);
    set("context_length", config.max_context as u32);
    set("embedding_length", config.hidden_size as u32);
    set("block_count", config.num_layers as u32);
    set("feed_forward_length", config.intermediate_size as u32);
    set("attention.head_count", config.num_heads as u32);
    set("attention.head_count_kv", config.num_kv_heads as u32);
    set("attention.key_length", config.head_dim as u32);
    set("attention.value_length", config.head_dim as u32);
    set("rope.dimension_count", config.head_dim as u32);
    if let Some(window) = config.sliding_window {
        set("attention.sliding_window", window as u32);
    }
    m.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    m.set(&format!("{arch}.rope.freq_base"), config.rope.theta);
    let scaling = &json["rope_scaling"];
    let number = |key: &str| scaling[key].as_f64().unwrap();
    let mut extra = Vec::new();
    match scaling["rope_type"].as_str() {
        Some(kind @ ("linear" | "yarn")) => {
            m.set(&format!("{arch}.rope.scaling.type"), kind);
            m.set(&format!("{arch}.rope.scaling.factor"), number("factor") as f32);
            if kind == "yarn" {
                let context = number("original_max_position_embeddings") as u32;
                m.set(&format!("{arch}.rope.scaling.original_context_length"), context);
            }
            if let Some(factor) = scaling["attention_factor"].as_f64() {
                m.set(
                    &format!("{arch}.rope.scaling.attn_factor"),
                    (factor / (0.1 * number("factor").ln() + 1.0)) as f32,
                );
                m.set(&format!("{arch}.rope.scaling.yarn_beta_fast"), number("beta_fast") as f32);
                m.set(&format!("{arch}.rope.scaling.yarn_beta_slow"), number("beta_slow") as f32);
            }
        }
        Some("llama3") => {
            let (factor, context) = (number("factor"), number("original_max_position_embeddings"));
            let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
            let divisors = (0..config.head_dim / 2).map(|i| {
                let power = f64::from(config.rope.theta).powf(2.0 * i as f64 / config.head_dim as f64);
                let wavelength = 2.0 * std::f64::consts::PI * power;
                let smooth = (context / wavelength - low) / (high - low);
                let divisor = match wavelength {
                    w if w < context / high => 1.0,
                    w if w > context / low => factor,
                    _ => 1.0 / ((1.0 - smooth) / factor + smooth),
                };
                divisor as f32
            });
            extra.push(("rope_freqs.weight".to_owned(), vec![config.head_dim / 2], divisors.collect()));
        }
        _ => {}
    }
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = weights
        .0
        .iter()
        .map(|(name, shape, v)| {
            let cols = if shape.len() == 2 { shape[1] } else { 1 };
            let v = match name {
                n if arch == "llama" && n.contains("q_proj") => permuted(v, config.num_heads, cols),
                n if arch == "llama" && n.contains("k_proj") => permuted(v, config.num_kv_heads, cols),
                _ => v.clone(),
            };
            (gguf_name(name).unwrap(), shape.clone(), v)
        })
        .chain(extra)
        .collect();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, shape, _)| TensorSpec {
            name: name.clone(),
            shape: shape.iter().map(|&d| d as u64).collect(),
            ty: GgmlType::F32,
        })
        .collect();
    let mut writer = GgufWriter::create(path, &m, &specs).unwrap();
    for (_, _, v) in &tensors {
        writer.write(&le_bytes(v)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn as_transformers() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let facts: Value = serde_json::from_slice(&std::fs::read(golden.join("architectures.json")).unwrap()).unwrap();
    let logits = candle_core::safetensors::load(golden.join("architectures.safetensors"), &Device::Cpu).unwrap();
    let rows: Vec<u32> = facts["rows"].as_array().unwrap().iter().map(|r| r.as_u64().unwrap() as u32).collect();
    let rows = Tensor::new(rows, &Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..96u32).map(|i| (i * i * 7 + i * 3 + 1) % 64).collect();

    let mut failed = Vec::new();
    for (case, fact) in facts["cases"].as_object().unwrap() {
        let json = &fact["config"];
        let config = ModelConfig::from_config_json(json, Path::new(case)).unwrap();
        let weights = weights(&config, json);
        let dir = tempfile::tempdir().unwrap();
        write_hf(dir.path(), json, &weights);
        let gguf = dir.path().join("model.gguf");
        write_gguf(&gguf, json, &config, &weights);

        let hf = Checkpoint::open(dir.path()).unwrap();
        let gguf = Checkpoint::open(&gguf).unwrap();
        let models = [
            ("directory", Model::load(&hf, &Device::Cpu)),
            ("GGUF", Model::load(&gguf, &Device::Cpu)),
            ("directory, candle's kernels", Model::load_for_candle(&hf, &Device::Cpu)),
            ("GGUF, candle's kernels", Model::load_for_candle(&gguf, &Device::Cpu)),
        ];
        for (form, model) in models {
            let model = model.unwrap_or_else(|e| panic!("{case} {form}: {e}"));
            for piece in [96, 11, 1] {
                let mut cache = model.new_cache_with_limit(96).unwrap();
                let parts = tokens.chunks(piece).map(|part| model.forward(part, &mut cache, LogitRows::All).unwrap());
                let got = Tensor::cat(&parts.collect::<Vec<_>>(), 0).unwrap().index_select(&rows, 0).unwrap();
                let difference = (got - &logits[case]).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                if difference.is_nan() || difference > 1e-4 {
                    failed.push(format!("{case}, {form}, {piece} at a time: {difference}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Scales between 1/8 and 8, alike where they have to be.
fn random_folds(config: &ModelConfig) -> Folds {
    let mut folds = Folds::new();
    for site in linear_sites(config, false) {
        let exponents = values(&format!("scales of {site:?}"), site.columns);
        let mut scales: Vec<f32> = exponents.iter().map(|v| 8f32.powf(*v)).collect();
        if matches!(site.site, LinearSite::AttentionOutput(_)) {
            let (group, dim) = (config.num_heads / config.num_kv_heads, config.head_dim);
            scales = (0..site.columns).map(|c| scales[c / (group * dim) * group * dim + c % dim]).collect();
        }
        folds.insert(config, site.site, scales).unwrap();
    }
    folds
}

#[test]
fn folded_scales_and_rotations_leave_the_logits() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let facts: Value = serde_json::from_slice(&std::fs::read(golden.join("architectures.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = (0..96u32).map(|i| (i * i * 7 + i * 3 + 1) % 64).collect();
    let mut untied = 0;
    for (case, fact) in facts["cases"].as_object().unwrap() {
        let json = &fact["config"];
        let config = ModelConfig::from_config_json(json, Path::new(case)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        write_hf(dir.path(), json, &weights(&config, json));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let logits = |model: Model| {
            let mut cache = model.new_cache_with_limit(96).unwrap();
            let logits = model.forward(&tokens, &mut cache, LogitRows::All).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let plain = logits(Model::load(&checkpoint, &Device::Cpu).unwrap());
        let most = plain.iter().fold(0f32, |m, v| m.max(v.abs()));
        let (folded, all) = (Rotations::folded(&config), Rotations::with_down(&config));
        assert!(folded.unties() && all.down().is_some(), "{case}");
        untied += usize::from(config.tied);
        let cases = [
            ("scales", Rotations::none(), random_folds(&config)),
            ("rotations", folded, Folds::new()),
            ("rotations, down's too", all, Folds::new()),
            ("scales of the rotated", folded, random_folds(&config)),
        ];
        for (what, rotations, folds) in cases {
            let model = Model::load_rotated(&checkpoint, &rotations, &folds, &Device::Cpu).unwrap();
            let off = plain.iter().zip(logits(model)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off > 0.0 && off <= 1e-5 * most, "{case}, {what}: {off} of {most}");
        }
        let error = Model::load_rotated(&checkpoint, &all, &random_folds(&config), &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("FfnDown(0), which is rotated"), "{error}");
    }
    assert!(untied > 0, "no case has a tied head");
}

/// Every architecture rotated and smoothed, written with weights of 8 bits, and loaded: norms, biases, tied heads, layers left in full precision.
#[test]
fn rotated_directories_load() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let facts: Value = serde_json::from_slice(&std::fs::read(golden.join("architectures.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = (0..96u32).map(|i| (i * i * 7 + i * 3 + 1) % 64).collect();
    let set = CalibrationSet {
        sequences: vec![tokens.clone(); 4],
        seq_len: 96,
        starts_with_bos: false,
        text_name: "tokens".into(),
        text_sha256: String::new(),
        text_tokens: 96,
        wanted: 4,
    };
    for (case, fact) in facts["cases"].as_object().unwrap() {
        let json = &fact["config"];
        let config = ModelConfig::from_config_json(json, Path::new(case)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        write_hf(&source, json, &weights(&config, json));
        let logits = |path: &Path| {
            let model = Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap();
            let mut cache = model.new_cache_with_limit(96).unwrap();
            let logits = model.forward(&tokens, &mut cache, LogitRows::All).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let plain = logits(&source);
        let squares = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        let options = gptq::Options::new(gptq::Bits::new(8).unwrap(), None);
        let mut plan = LayerwisePlan::new(Rounding::Nearest(options), None);
        let w8a16 = W8A8 { activations: None, ..W8A8::dynamic(EightBitCode::Int8) };
        plan.layout = Layout::EightBit(w8a16);
        plan.rules = vec![gptq::checkpoint::DynamicRule::skip(r".*\.0\.(mlp\.down|self_attn\.v)_proj").unwrap()];
        for (index, (rotation, smooth)) in [
            (Rotation::None, None),
            (Rotation::None, Some(SmoothOptions::fixed(0.5))),
            (Rotation::Folded, Some(SmoothOptions::fixed(0.5))),
            (Rotation::WithDown, None),
            (Rotation::WithDown, Some(SmoothOptions::fixed(0.3))),
        ]
        .into_iter()
        .enumerate()
        {
            (plan.rotation, plan.smooth) = (rotation, smooth);
            let out = dir.path().join(index.to_string());
            quantize_model(&source, &out, &plan, Some(&set), &mut |_| ControlFlow::Continue(())).unwrap();
            let found = logits(&out);
            let difference: Vec<f32> = plain.iter().zip(&found).map(|(a, b)| a - b).collect();
            let off = (squares(&difference) / squares(&plain)).sqrt();
            assert!(off > 1e-5 && off < 0.05, "{case}, {rotation:?}, {:?}: {off}", plan.smooth);
        }
    }
}

#[test]
fn scales_that_cannot_be_folded_are_refused() {
    let json = serde_json::json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64, "rms_norm_eps": 1e-5, "max_position_embeddings": 64});
    let config = ModelConfig::from_config_json(&json, Path::new("x")).unwrap();
    let mut folds = Folds::new();
    let mut shared = vec![1.0; 8];
    shared[2] = 2.0;
    let cases = [
        (LinearSite::AttentionInput(0), vec![1.0; 7], "8 expected, found 7"),
        (LinearSite::FfnDown(0), vec![-1.0; 16], "-1 for channel 0"),
        (LinearSite::FfnInput(0), vec![f32::NAN; 8], "NaN for channel 0"),
        (LinearSite::FfnInput(0), vec![1e-45; 8], "for channel 0"),
        (LinearSite::AttentionOutput(0), shared, "channel 2 differs from channel 0"),
        (
            LinearSite::AttentionOutput(0),
            vec![1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 5.0],
            "channel 7 differs from channel 5",
        ),
        (LinearSite::Output, vec![1.0; 8], "the head takes none"),
    ];
    for (site, scales, expected) in cases {
        let error = folds.insert(&config, site, scales).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(folds.is_empty());
    // Heads of another key/value head have scales of their own.
    folds.insert(&config, LinearSite::AttentionOutput(0), vec![1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]).unwrap();
    assert!(!folds.is_empty());
}
