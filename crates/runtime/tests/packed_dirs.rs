//! One set of matrices in each layout: the same model to the bit, and directories with a single defect.

use awq::checkpoint::AwqConfig;
use compressed_tensors::Config;
use gptq::checkpoint::GptqConfig;
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_runtime::checkpoint::{HfDir, PackedConfig};
use quant_runtime::hf_writer::WriteOptions;
use quant_runtime::packed_dir::PackedDirWriter;
use quant_runtime::{Checkpoint, Device, LogitRows, Model};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

fn source() -> Arc<HfDir> {
    Arc::new(HfDir::open(pocket()).unwrap())
}

fn four() -> Bits {
    Bits::new(4).unwrap()
}

/// Rounded to nearest, symmetric or not, in groups of 64.
fn matrix(source: &HfDir, name: &str, symmetric: bool) -> AffineMatrix {
    let view = source.tensor(&format!("{name}.weight")).unwrap().unwrap();
    let &[out_features, in_features] = view.shape.as_slice() else { panic!("{name}") };
    let mut weights = vec![0.0f32; out_features * in_features];
    gguf_format::blocks::dequantize(view.ty, view.data, &mut weights).unwrap();
    let (mut codes, mut scales, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    for group in weights.chunks(64) {
        let (low, high) = group.iter().fold((0.0f32, 0.0f32), |(l, h), &w| (l.min(w), h.max(w)));
        let (scale, zero) = if symmetric { (high.max(-low) / 7.5, 8.0) } else { ((high - low) / 15.0, 0.0) };
        let scale = f16::from_f32(scale);
        let zero = if symmetric { zero } else { (-low / scale.to_f32()).round().clamp(0.0, 15.0) };
        codes.extend(group.iter().map(|w| (w / scale.to_f32() + zero).round().clamp(0.0, 15.0) as u8));
        (scales, zeros) =
            (scales.into_iter().chain([scale]).collect(), zeros.into_iter().chain([zero as u16]).collect());
    }
    let parts =
        AffineParts { out_features, in_features, bits: four(), group_size: 64, codes, scales, zeros, g_idx: None };
    AffineMatrix::from_parts(parts).unwrap()
}

const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The modules of the layers from `first` on; those before stay dense. A norm is replaced.
fn write(out: &Path, config: PackedConfig, symmetric: bool, first: u32) {
    let source = source();
    let mut writer = PackedDirWriter::create(source.clone(), out, config, &WriteOptions::default()).unwrap();
    for layer in first..6 {
        let mut part = writer.part(layer);
        for module in MODULES {
            let name = format!("model.layers.{layer}.{module}");
            part.module(&name, &matrix(&source, &name, symmetric), None).unwrap();
        }
        if layer == 5 {
            let half = vec![0.5; 256];
            part.replace("model.norm.weight", &half, None).unwrap();
        }
        writer.commit(part, "").unwrap();
        let name = format!("model.layers.{layer}.mlp.up_proj");
        assert_eq!(writer.matrices(layer).unwrap()[&name], matrix(&source, &name, symmetric).into());
    }
    writer.finish().unwrap();
}

fn load(path: &Path) -> quant_runtime::Result<Model> {
    Model::load(&Checkpoint::open(path)?, &Device::Cpu)
}

fn logits(path: &Path) -> Vec<f32> {
    let model = load(path).unwrap();
    let rows = model.forward(&[1, 5, 9, 200], &mut model.new_cache(), LogitRows::All).unwrap();
    rows.flatten_all().unwrap().to_vec1().unwrap()
}

fn configs(symmetric: bool) -> [(&'static str, PackedConfig); 3] {
    [
        ("gptq", GptqConfig::new(four(), Some(64), symmetric).into()),
        ("awq", AwqConfig::new(four(), Some(64), !symmetric).into()),
        ("compressed-tensors", Config::packed(four(), Some(64), symmetric).into()),
    ]
}

#[test]
fn the_same_in_each_layout() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    for symmetric in [true, false] {
        let mut all = Vec::new();
        for (method, config) in configs(symmetric) {
            let out = dir.path().join(format!("{method}-{symmetric}"));
            write(&out, config, symmetric, 1);
            all.push(logits(&out));
            let hf = HfDir::open(&out).unwrap();
            let packed = hf.packed().unwrap().unwrap();
            assert_eq!(packed.config().method(), method);
            assert_eq!(hf.config_json()["quantization_config"]["quant_method"], method);
            assert_eq!(out.join("quantize_config.json").exists(), method == "gptq");
            assert_eq!(packed.names().count(), 35);
            let facts = packed.facts().unwrap();
            assert!(
                facts.iter().all(|f| (f.bits, f.group_size, f.symmetric) == (4, Some(64), symmetric) && !f.act_order)
            );
            // The layer in full precision is named, so that others load the rest.
            let verdicts = packed.loads_in().unwrap();
            let vllm = verdicts.vllm.to_string();
            // vLLM's fast kernels differ: GPTQ's symmetric alone, AWQ's with zero points alone, compressed-tensors' both.
            assert!(vllm.starts_with("yes"), "{method}: {vllm}");
            let transformers = verdicts.transformers.to_string();
            assert_eq!(transformers.starts_with("yes"), symmetric || method != "compressed-tensors", "{transformers}");
            for module in MODULES {
                let name = format!("model.layers.0.{module}");
                assert_eq!(packed.shape(&name).unwrap(), None, "{name}");
                let name = format!("model.layers.3.{module}");
                assert_eq!(
                    packed.matrix(&name).unwrap().unwrap(),
                    matrix(&source, &name, symmetric).into(),
                    "{method} {name}"
                );
            }
            let norm = hf.entry("model.norm.weight").unwrap();
            assert_eq!(norm.dtype, source.entry("model.norm.weight").unwrap().dtype);
            let size = norm.data.len() / 256;
            let half = if size == 4 { 0.5f32.to_le_bytes().to_vec() } else { vec![0x00, 0x3f] };
            assert_eq!(norm.data, half.repeat(256));
        }
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
    }
}

#[test]
fn what_a_layout_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let source = source();
    let name = "model.layers.0.mlp.down_proj";
    let parts = || matrix(&source, name, false).into_parts();
    let ordered = AffineParts { g_idx: Some((0..768).map(|i| i % 12).collect()), ..parts() };
    let ordered = AffineMatrix::from_parts(ordered).unwrap();
    let past = AffineMatrix::from_parts(AffineParts { zeros: vec![16; 256 * 12], ..parts() }).unwrap();
    let asymmetric = AffineMatrix::from_parts(parts()).unwrap();
    for (method, config) in configs(false) {
        let writer =
            PackedDirWriter::create(source.clone(), &dir.path().join(method), config, &WriteOptions::default())
                .unwrap();
        let mut part = writer.part(0);
        let message = part.module(name, &ordered, None).unwrap_err().to_string();
        assert!(message.contains("order"), "{method}: {message}");
        let message = part.module(name, &past, None).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("zero point 16"), "{method}: {message}");
        for (tensor, values, words) in [
            ("model.norm.bias", vec![0.0; 256], "has none"),
            ("model.norm.weight", vec![0.0; 255], "255 values for shape [256]"),
            ("model.norm.weight", vec![f32::NAN; 256], "not finite"),
        ] {
            let message = part.replace(tensor, &values, None).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains(tensor), "{message}");
        }
        let message = part.replace("model.norm.weight", &[0.0; 256], Some(Dtype::I8)).unwrap_err().to_string();
        assert!(message.contains("type I8"), "{message}");
        let message = part.replace("model.norm.weight", &[1e9; 256], Some(Dtype::F16)).unwrap_err().to_string();
        assert!(message.contains("not finite"), "{message}");
        assert_eq!(part.bytes(), 0);
    }
    for (method, config) in configs(true) {
        let out = dir.path().join(format!("{method}-sym"));
        let writer = PackedDirWriter::create(source.clone(), &out, config, &WriteOptions::default()).unwrap();
        let message = writer.part(0).module(name, &asymmetric, None).unwrap_err().to_string();
        assert!(message.contains("off the middle"), "{method}: {message}");
    }
    // A dense layer whose name is part of a quantized one's: AWQ's list would leave out both.
    let mut config = AwqConfig::new(four(), Some(64), true);
    config.modules_to_not_convert.push("layers.0.mlp".into());
    let out = dir.path().join("listed");
    let writer = PackedDirWriter::create(source.clone(), &out, config, &WriteOptions::default()).unwrap();
    assert!(writer.part(0).module(name, &asymmetric, None).unwrap_err().to_string().contains("full precision"));
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Copies a directory, its config and its tensors changed.
fn changed(from: &Path, to: &Path, change: impl FnOnce(&mut Value, &mut Tensors)) {
    std::fs::create_dir(to).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors =
        file.iter().map(|(n, t)| (n.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    change(&mut config, &mut tensors);
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
    let views = tensors.iter().map(|(n, (d, s, b))| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
}

const MODULE: &str = "model.layers.5.mlp.down_proj";

fn name(suffix: &str) -> String {
    format!("{MODULE}.{suffix}")
}

type Change = Box<dyn FnOnce(&mut Value, &mut Tensors)>;

/// Each defect is named, with the file and the module or key.
fn each_is_named(good: &Path, cases: Vec<(&str, Change, &[&str])>) {
    for (case, change, words) in cases {
        let path = good.with_file_name(case);
        changed(good, &path, change);
        let message = load(&path).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{case}: {message}: {word}");
        }
    }
    let bytes = std::fs::read(good.join("model.safetensors")).unwrap();
    for cut in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        let path = good.with_file_name(format!("cut{cut}"));
        changed(good, &path, |_, _| {});
        std::fs::write(path.join("model.safetensors"), &bytes[..cut]).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("model.safetensors"));
    }
}

#[test]
fn awq_defects() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    write(&good, AwqConfig::new(four(), Some(64), true).into(), false, 5);
    let expected = logits(&good);
    fn set(key: &'static str, value: Value) -> Change {
        Box::new(move |c, _| c["quantization_config"][key] = value)
    }
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("bits", set("bits", json!(8)), &["model.safetensors", "`scales`"]),
        ("no_bits", set("bits", Value::Null), &["config.json", "`bits`"]),
        ("group", set("group_size", json!(128)), &["`scales`", "expected shape [", "found ["]),
        ("gemv", set("version", json!("gemv")), &["model.safetensors", "module `model.layers.5"]),
        ("fast", set("version", json!("gemv_fast")), &["`qweight`", "type I16", "I32"]),
        ("marlin", set("version", json!("marlin")), &["config.json", "`version` marlin"]),
        ("skipped", set("modules_to_not_convert", json!(["down_proj"])), &[MODULE, "full precision"]),
        ("method", set("quant_method", json!("aqlm")), &["config.json", "`aqlm`"]),
        ("gptq", set("quant_method", json!("gptq")), &["module `model.layers.5", "`scales`"]),
        ("no_zeros", Box::new(|_, t| drop(t.remove(&name("qzeros")))), &["down_proj.qzeros", "nothing"]),
        (
            "both",
            Box::new(|_, t| drop(t.insert(name("weight"), (Dtype::F16, vec![1], vec![0; 2])))),
            &["none beside `qweight`"],
        ),
        (
            "words",
            Box::new(|_, t| t.get_mut(&name("qweight")).unwrap().0 = Dtype::U32),
            &["down_proj.qweight", "found U32"],
        ),
        (
            "order",
            Box::new(|_, t| drop(t.insert(name("g_idx"), (Dtype::I32, vec![1], vec![0; 4])))),
            &["down_proj.g_idx", "Llama does not have"],
        ),
        (
            "scale",
            Box::new(|_, t| t.get_mut(&name("scales")).unwrap().2[1] = 0x7c),
            &[MODULE, "scale of row 0, group 0"],
        ),
    ];
    each_is_named(&good, cases);
    // The config in a file of its own, as AutoAWQ once kept it.
    let path = dir.path().join("own_file");
    changed(&good, &path, |config, _| {
        config.as_object_mut().unwrap().remove("quantization_config").unwrap();
        let own = json!({"zero_point": true, "q_group_size": 64, "w_bit": 4, "version": "GEMM"});
        std::fs::write(path.join("quant_config.json"), own.to_string()).unwrap();
    });
    assert_eq!(logits(&path), expected);
}

#[test]
fn compressed_tensors_defects() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    write(&good, Config::packed(four(), Some(64), false).into(), false, 5);
    let expected = logits(&good);
    fn set(pointer: &'static str, value: Value) -> Change {
        Box::new(move |c, _| *c["quantization_config"].pointer_mut(pointer).unwrap() = value)
    }
    let weights = |key: &str| format!("/config_groups/group_0/weights/{key}");
    let at = |key: &str| -> &'static str { Box::leak(weights(key).into_boxed_str()) };
    let cases: Vec<(&str, Change, &[&str])> = vec![
        ("bits", set(at("num_bits"), json!(8)), &["model.safetensors", "`weight_packed`"]),
        ("one_bit", set(at("num_bits"), json!(1)), &["config.json", "num_bits", "2 to 8 bits"]),
        ("group", set(at("group_size"), json!(32)), &["`weight_scale`", "expected shape"]),
        ("channel", set(at("strategy"), json!("channel")), &["`weight_scale`"]),
        ("tensor", set(at("strategy"), json!("tensor")), &["config.json", "Tensor"]),
        ("float", set(at("type"), json!("float")), &["config.json", "Float"]),
        (
            "int8",
            set("/config_groups/group_0/format", json!("int-quantized")),
            &["config.json", "num_bits` 4 is not supported: 8 is"],
        ),
        ("w4a8", set("/config_groups/group_0/input_activations", json!({"num_bits": 8})), &["`input_activations`"]),
        ("ignored", set("/ignore", json!(["re:.*down_proj"])), &[MODULE, "full precision"]),
        ("rotated", set("/transform_config", json!({"r1": {}})), &["config.json", "`transform_config`"]),
        ("no_groups", set("/config_groups", json!({})), &["full precision"]),
        (
            "no_zeros",
            Box::new(|_, t| drop(t.remove(&name("weight_zero_point")))),
            &[MODULE, "`weight_zero_point`", "nothing"],
        ),
        ("no_shape", Box::new(|_, t| drop(t.remove(&name("weight_shape")))), &["down_proj.weight_shape", "nothing"]),
        (
            "both",
            Box::new(|_, t| drop(t.insert(name("weight"), (Dtype::F16, vec![1], vec![0; 2])))),
            &["none beside `weight_packed`"],
        ),
        ("shape", Box::new(|_, t| t.get_mut(&name("weight_shape")).unwrap().2[8] = 1), &[MODULE, "`weight_packed`"]),
        ("scale", Box::new(|_, t| t.get_mut(&name("weight_scale")).unwrap().2[1] = 0x7c), &["scale of row 0, group 0"]),
        (
            "order",
            Box::new(|_, t| drop(t.insert(name("weight_g_idx"), (Dtype::I32, vec![768], vec![0x7f; 4 * 768])))),
            &["`weight_g_idx`", "groups below 12"],
        ),
    ];
    each_is_named(&good, cases);
    let cases: Vec<(&str, Change)> = vec![
        (
            "never_filled",
            Box::new(|_, t| drop(t.insert(name("weight_g_idx"), (Dtype::I32, vec![768], vec![0xff; 4 * 768])))),
        ),
        (
            "wide",
            Box::new(|_, t| {
                let scales = t.get_mut(&name("weight_scale")).unwrap();
                let wide = scales.2.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
                (scales.0, scales.2) = (Dtype::F32, wide.flat_map(f32::to_le_bytes).collect());
            }),
        ),
    ];
    for (case, change) in cases {
        let path = dir.path().join(case);
        changed(&good, &path, change);
        assert_eq!(logits(&path), expected, "{case}");
    }
}
