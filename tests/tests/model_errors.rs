//! Models that do not load, and calls of `forward` that cannot be: each says what is wrong, and leaves the cache as it was.

use candle_core::Device;
use gguf_format::mix::{FileType, MixOptions};
use gguf_format::{Gguf, GgufWriter, Metadata, Mmap, TensorSpec};
use quant_runtime::convert::ModelSource;
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use quant_runtime::{Checkpoint, Error, LogitRows, Model};
use quant_tests::bundled;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// The bundled model with `change` made to its configuration and tensors.
fn changed(change: impl Fn(&mut Value, &mut Tensors)) -> tempfile::TempDir {
    let mut config: Value = serde_json::from_slice(&std::fs::read(bundled("config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(bundled("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors =
        file.iter().map(|(n, t)| (n.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect();
    change(&mut config, &mut tensors);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let views =
        tensors.iter().map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

/// What is wrong with the result of a case: a model must load and run exactly if no words are wanted, and an error must be one line with all of them.
fn complaint(name: &str, result: quant_runtime::Result<Model>, wanted: &[&str]) -> Option<String> {
    match result {
        Ok(model) => {
            model.forward(&[1, 2], &mut model.new_cache(), LogitRows::All).unwrap();
            (!wanted.is_empty()).then(|| format!("{name}: loaded"))
        }
        Err(e) => {
            let text = e.to_string();
            let wrong = wanted.is_empty() || text.contains('\n') || wanted.iter().any(|w| !text.contains(w));
            wrong.then(|| format!("{name}: {text}"))
        }
    }
}

#[test]
fn each_defect_is_named() {
    const NORM: &str = "model.layers.3.input_layernorm.weight";
    type Change = fn(&mut Value, &mut Tensors);
    let cases: &[(&str, Change, &[&str])] = &[
        ("nothing", |_, _| (), &[]),
        ("tied, with a head that is not used", |c, _| c["tie_word_embeddings"] = json!(true), &[]),
        (
            "inverse frequencies of old files",
            |_, t| {
                t.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), (Dtype::F32, vec![1], vec![0; 4]));
            },
            &[],
        ),
        ("no norm", |_, t| drop(t.remove(NORM)), &[NORM, "nothing"]),
        ("no head", |_, t| drop(t.remove("lm_head.weight")), &["lm_head.weight", "nothing"]),
        ("one layer more", |c, _| c["num_hidden_layers"] = json!(7), &["model.layers.6.", "nothing"]),
        ("one layer less", |c, _| c["num_hidden_layers"] = json!(5), &["not supported", "model.layers.5."]),
        ("other heads", |c, _| c["num_key_value_heads"] = json!(4), &["k_proj.weight", "[256, 256]", "[128, 256]"]),
        ("other vocabulary", |c, _| c["vocab_size"] = json!(2049), &["embed_tokens", "[2049, 256]", "[2048, 256]"]),
        ("norm of two dimensions", |_, t| t.get_mut(NORM).unwrap().1 = vec![1, 256], &[NORM, "[256]", "[1, 256]"]),
        (
            "norm not finite",
            |_, t| {
                t.get_mut(NORM).unwrap().2[6..8].copy_from_slice(&0x7fc0u16.to_le_bytes());
            },
            &[NORM, "NaN at index 3"],
        ),
        (
            "a part of another architecture",
            |_, t| {
                t.insert("model.layers.0.self_attn.q_norm.weight".into(), (Dtype::BF16, vec![64], vec![0; 128]));
            },
            &["not supported", "q_norm.weight", "Llama"],
        ),
        (
            "weights of bytes",
            |_, t| {
                let w = t.get_mut("lm_head.weight").unwrap();
                *w = (Dtype::U8, w.1.clone(), w.2[..w.2.len() / 2].to_vec());
            },
            &["not supported", "lm_head.weight", "U8"],
        ),
        ("q/k norms missing", |c, _| c["model_type"] = json!("qwen3"), &["q_norm.weight", "nothing"]),
    ];
    let mut failed = Vec::new();
    for (name, change, wanted) in cases {
        let dir = changed(change);
        let result = Checkpoint::open(dir.path()).and_then(|c| Model::load(&c, &Device::Cpu));
        failed.extend(complaint(name, result, wanted));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn calls_that_cannot_be() {
    let load = || Model::load(&Checkpoint::open(bundled("")).unwrap(), &Device::Cpu).unwrap();
    let model = load();
    let mut cache = model.new_cache_with_limit(10).unwrap();
    model.forward(&[1, 2, 3], &mut cache, LogitRows::None).unwrap();
    let mut check = |tokens: &[u32], rows: LogitRows, wanted: &str| {
        let e = model.forward(tokens, &mut cache, rows).unwrap_err();
        assert!(matches!(e, Error::Usage(_)) && e.to_string().contains(wanted), "{e}");
        assert_eq!(cache.len(), 3);
    };
    check(&[], LogitRows::Last, "no tokens");
    check(&[5, 2048], LogitRows::Last, "token id 2048");
    check(&[1; 8], LogitRows::None, "8 tokens after 3 do not fit in a context of 10");
    check(&[1, 2], LogitRows::From(3), "logits from token 3 of 2");
    model.forward(&[1; 7], &mut cache, LogitRows::None).unwrap();
    assert_eq!(cache.len(), 10);

    for limit in [0, 1025] {
        assert!(model.new_cache_with_limit(limit).unwrap_err().to_string().contains("1 to 1024"));
    }
    let smaller = changed(|c, t| {
        c["num_hidden_layers"] = json!(5);
        t.retain(|name, _| !name.starts_with("model.layers.5."));
    });
    let smaller = Model::load(&Checkpoint::open(smaller.path()).unwrap(), &Device::Cpu).unwrap();
    let e = smaller.forward(&[1], &mut model.new_cache(), LogitRows::Last).unwrap_err();
    assert!(e.to_string().contains("another model"), "{e}");
}

/// An observer that fails in the middle leaves the cache as it was, and the next call works.
#[test]
fn an_observer_that_fails() {
    use quant_runtime::model::{ActivationObserver, LinearSite};
    struct FailsAt(LinearSite);
    impl ActivationObserver for FailsAt {
        fn linear_input(&mut self, site: LinearSite, _: &candle_core::Tensor) -> quant_runtime::Result<()> {
            if site == self.0 { Err(Error::Usage("enough".into())) } else { Ok(()) }
        }
    }
    let model = Model::load(&Checkpoint::open(bundled("")).unwrap(), &Device::Cpu).unwrap();
    let mut cache = model.new_cache();
    model.forward(&[1, 2, 3], &mut cache, LogitRows::None).unwrap();
    let mut observer = FailsAt(LinearSite::FfnDown(2));
    assert!(model.forward_observed(&[4, 5], &mut cache, LogitRows::All, &mut observer).is_err());
    assert_eq!(cache.len(), 3);
    let after = model.forward(&[4, 5], &mut cache, LogitRows::Last).unwrap();
    let whole = model.forward(&[1, 2, 3, 4, 5], &mut model.new_cache(), LogitRows::Last).unwrap();
    let difference =
        (after - whole).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(difference < 1e-4, "{difference}");
}

/// Two threads, two caches, one model.
#[test]
fn two_threads() {
    let model = Model::load(&Checkpoint::open(bundled("")).unwrap(), &Device::Cpu).unwrap();
    let run = |seed: u32| {
        let mut cache = model.new_cache();
        let tokens: Vec<u32> = (0..150).map(|i| (i * seed + 3) % 2048).collect();
        let prompt = model.forward(&tokens, &mut cache, LogitRows::Last).unwrap();
        let next = model.forward(&[seed], &mut cache, LogitRows::Last).unwrap();
        [prompt, next].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let alone = [run(7), run(11)];
    let together = std::thread::scope(|s| [s.spawn(|| run(7)), s.spawn(|| run(11))].map(|t| t.join().unwrap()));
    assert!(alone == together);
}

/// The bundled model as a GGUF file, its metadata changed, written with the alignment that they ask for.
fn changed_gguf(original: &Gguf<Mmap>, dir: &Path, change: impl Fn(&mut Metadata, &mut Vec<Vec<u8>>)) -> PathBuf {
    let mut metadata = original.metadata().clone();
    let mut data: Vec<Vec<u8>> = original.tensors().iter().map(|t| original.data(t).to_vec()).collect();
    change(&mut metadata, &mut data);
    let specs: Vec<TensorSpec> = original.tensors().iter().map(Into::into).collect();
    let path = dir.join("changed.gguf");
    let mut writer = GgufWriter::create(&path, &metadata, &specs).unwrap();
    data.iter().for_each(|d| writer.write(d).unwrap());
    writer.finish().unwrap();
    path
}

/// Metadata that are well formed and make no model. llama.cpp (0c1e57098) ends the process on the first six with an assertion, loads the
/// file with the BOS out of range and that with the NaN, and loads alignment 64, but does not write it.
#[test]
fn each_defect_of_gguf_metadata_is_named() {
    type Change = fn(&mut Metadata, &mut Vec<Vec<u8>>);
    let cases: &[(&str, Change, &[&str])] = &[
        ("nothing", |_, _| (), &[]),
        ("block_count 0", |m, _| m.set("llama.block_count", 0u32), &["number of layers", "found 0"]),
        ("block_count 600", |m, _| m.set("llama.block_count", 600u32), &["blk.6."]),
        (
            "duplicate token",
            |m, _| {
                let mut tokens: Vec<Vec<u8>> =
                    m.need_array("tokenizer.ggml.tokens").unwrap().strs().unwrap().map(<[u8]>::to_vec).collect();
                tokens[301] = tokens[300].clone();
                m.set("tokenizer.ggml.tokens", gguf_format::Value::strings(tokens));
            },
            &["tokenizer.ggml.tokens", "300", "301"],
        ),
        ("rope.scaling.type bogus", |m, _| m.set("llama.rope.scaling.type", "bogus"), &["rope scaling", "bogus"]),
        (
            "expert_used above expert_count",
            |m, _| {
                m.set("llama.expert_count", 4u32);
                m.set("llama.expert_used_count", 8u32);
            },
            &["llama.expert_count"],
        ),
        ("expert_count 2000", |m, _| m.set("llama.expert_count", 2000u32), &["2000 experts"]),
        (
            "head_count_kv for another number of layers",
            |m, _| m.set("llama.attention.head_count_kv", [2u32; 3]),
            &["llama.attention.head_count_kv", "3"],
        ),
        ("head_count_kv 0", |m, _| m.set("llama.attention.head_count_kv", 0u32), &["key/value heads", "found 0"]),
        ("head_count_kv negative", |m, _| m.set("llama.attention.head_count_kv", -1i32), &["head_count_kv", "-1"]),
        ("rope.dimension_count 7", |m, _| m.set("llama.rope.dimension_count", 7u32), &["rotation of 7 of 64 channels"]),
        ("bos out of range", |m, _| m.set("tokenizer.ggml.bos_token_id", 999_999u32), &["bos_token_id", "999999"]),
        ("split.no of another type", |m, _| m.set("split.no", 3u32), &["split.no"]),
        ("split.count of another type", |m, _| m.set("split.count", "3"), &["split.count"]),
        ("architecture a number", |m, _| m.set("general.architecture", 7u32), &["general.architecture", "u32 7"]),
        ("alignment 64", |m, _| m.set("general.alignment", 64u32), &[]),
        ("general.name a number", |m, _| m.set("general.name", 7u32), &["general.name", "u32 7"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("original.gguf");
    let source = ModelSource::open(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(FileType::Q8_0))).unwrap();
    plan.run(&original, &|_| ControlFlow::Continue(())).unwrap();
    let gguf = Gguf::open(&original).unwrap();
    let mut failed = Vec::new();
    for (name, change, wanted) in cases {
        let path = changed_gguf(&gguf, dir.path(), change);
        let result = Checkpoint::open(&path).and_then(|c| {
            quant_runtime::Tokenizer::from_checkpoint(&c)?;
            Model::load(&c, &Device::Cpu)
        });
        failed.extend(complaint(name, result, wanted));
    }
    assert!(failed.is_empty(), "{failed:#?}");

    // Cut short: the file says which tensor.
    let bytes = std::fs::read(&original).unwrap();
    let cut = dir.path().join("cut.gguf");
    std::fs::write(&cut, &bytes[..bytes.len() - 1000]).unwrap();
    let e = Checkpoint::open(&cut).map(drop).unwrap_err().to_string();
    assert!(e.contains("cut.gguf") && e.contains("tensor `blk.5.") && e.contains("inside the file"), "{e}");
}

/// A NaN in the scale of a block: refused when the model is quantized anew, by the name of the tensor.
#[test]
fn a_nan_in_a_weight_is_named_when_it_is_quantized() {
    let dir = tempfile::tempdir().unwrap();
    let source = ModelSource::open(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    let original = dir.path().join("original.gguf");
    let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(FileType::F16))).unwrap();
    plan.run(&original, &|_| ControlFlow::Continue(())).unwrap();
    let gguf = Gguf::open(&original).unwrap();
    let at = gguf.tensors().iter().position(|t| t.name() == "blk.2.ffn_up.weight").unwrap();
    let path = changed_gguf(&gguf, dir.path(), |_, data| data[at][2..4].copy_from_slice(&0x7e00u16.to_le_bytes()));
    let source = ModelSource::open(&Checkpoint::open(&path).unwrap()).unwrap();
    let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(FileType::Q4_0))).unwrap();
    let out = dir.path().join("out.gguf");
    let e = plan.run(&out, &|_| ControlFlow::Continue(())).map(drop).unwrap_err().to_string();
    assert!(e.contains("blk.2.ffn_up.weight") && e.contains("NaN"), "{e}");
    assert!(!out.exists());
}
