//! Hugging Face directories: what opens, and that each single defect gives an error that names it.

use quant_runtime::checkpoint::HfDir;
use quant_runtime::{Checkpoint, ModelConfig};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

/// A safetensors file: name, dtype, shape, bytes.
fn safetensors(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let from = data.len();
        data.extend_from_slice(bytes);
        header.insert((*name).into(), json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]}));
    }
    with_header(&Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn index(pairs: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<String, Value> = pairs.iter().map(|(t, f)| ((*t).into(), json!(f))).collect();
    json!({"metadata": {}, "weight_map": map}).to_string().into_bytes()
}

fn dir(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

const CONFIG: &[u8] = b"{\"model_type\": \"llama\"}";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn opens_single_and_sharded() {
    let a = safetensors(&[("a", "F32", &[1, 2], &[1; 8])]);
    let b = safetensors(&[("b", "BF16", &[3], &[2; 6]), ("c", "I64", &[], &[3; 8])]);
    let sharded = dir(&[
        ("config.json", CONFIG.to_vec()),
        ("model-00001-of-00002.safetensors", a.clone()),
        ("model-00002-of-00002.safetensors", b),
        (
            INDEX,
            index(&[
                ("c", "model-00002-of-00002.safetensors"),
                ("a", "model-00001-of-00002.safetensors"),
                ("b", "model-00002-of-00002.safetensors"),
            ]),
        ),
    ]);
    let hf = HfDir::open(sharded.path()).unwrap();
    assert_eq!(hf.tensor_names().collect::<Vec<_>>(), ["a", "b", "c"]);
    let view = hf.tensor("b").unwrap().unwrap();
    assert_eq!((view.ty, view.shape.as_slice(), view.data), (gguf_format::GgmlType::BF16, &[3][..], &[2u8; 6][..]));
    assert!(hf.tensor("d").unwrap().is_none());
    assert!(hf.tensor("c").unwrap_err().to_string().contains("`c` of type I64"));
    assert_eq!(hf.entries().map(|e| e.data.len()).collect::<Vec<_>>(), [8, 6, 8]);

    let other_name = dir(&[("config.json", CONFIG.to_vec()), ("weights.safetensors", a)]);
    assert_eq!(HfDir::open(other_name.path()).unwrap().tensor_names().count(), 1);
}

#[test]
fn each_defect_is_named() {
    let config = ("config.json", CONFIG.to_vec());
    let good = safetensors(&[("a", "F32", &[2], &[1; 8])]);
    let single = |bytes: Vec<u8>| vec![config.clone(), ("model.safetensors", bytes)];
    let header = |entry: Value, data: &[u8]| single(with_header(&json!({"a": entry}).to_string(), data));
    let cases: Vec<(&str, Vec<(&str, Vec<u8>)>, &[&str])> = vec![
        ("no config", vec![("model.safetensors", good.clone())], &["config.json"]),
        ("config is no JSON", vec![("config.json", b"{".to_vec())], &["config.json", "JSON"]),
        ("config is an array", vec![("config.json", b"[]".to_vec())], &["config.json", "object"]),
        ("no weights", vec![config.clone()], &["no .safetensors"]),
        (
            "two files, no index",
            vec![config.clone(), ("x.safetensors", good.clone()), ("y.safetensors", good.clone())],
            &["2 .safetensors files", INDEX],
        ),
        ("empty file", single(vec![]), &["model.safetensors", "8 bytes"]),
        ("header past end", single(1000u64.to_le_bytes().to_vec()), &["header length", "1000"]),
        ("huge header", single(u64::MAX.to_le_bytes().to_vec()), &["header length"]),
        ("header no JSON", single(with_header("{\"a\":", &[])), &["header at offset 0x8"]),
        ("deep header", single(with_header(&"[".repeat(100_000), &[])), &["header at offset 0x8"]),
        ("cut short", single(good[..good.len() - 1].to_vec()), &["tensor `a`", "7 bytes"]),
        ("trailing bytes", single([good.clone(), vec![0]].concat()), &["data section", "8 bytes", "9 bytes"]),
        ("shape and size", header(json!({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}), &[0; 8]), &["header"]),
        ("hole", header(json!({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}), &[0; 8]), &["tensor `a`"]),
        ("backwards", header(json!({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}), &[0; 8]), &["tensor `a`"]),
        (
            "overflow",
            header(json!({"dtype": "F32", "shape": [1u64 << 62, 1u64 << 62], "data_offsets": [0, 8]}), &[0; 8]),
            &["header", "overflow"],
        ),
        (
            "unknown dtype",
            header(json!({"dtype": "Z9", "shape": [1], "data_offsets": [0, 8]}), &[0; 8]),
            &["header", "Z9"],
        ),
        ("negative", header(json!({"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}), &[0; 8]), &["header"]),
        (
            "missing shard",
            vec![config.clone(), (INDEX, index(&[("a", "model-00001-of-00001.safetensors")]))],
            &[INDEX, "tensor `a`", "model-00001-of-00001.safetensors"],
        ),
        (
            "tensor missing in shard",
            vec![config.clone(), ("s.safetensors", good.clone()), (INDEX, index(&[("b", "s.safetensors")]))],
            &[INDEX, "tensor `b`", "s.safetensors"],
        ),
        (
            "tensor in two shards",
            vec![
                config.clone(),
                ("s.safetensors", good.clone()),
                ("t.safetensors", good.clone()),
                (INDEX, index(&[("a", "s.safetensors"), ("b", "t.safetensors")])),
            ],
            &["tensor `a`", "t.safetensors", "s.safetensors"],
        ),
        (
            "path traversal",
            vec![config.clone(), (INDEX, index(&[("a", "../x.safetensors")]))],
            &[INDEX, "../x.safetensors"],
        ),
        ("absolute path", vec![config.clone(), (INDEX, index(&[("a", "/etc/passwd")]))], &[INDEX, "/etc/passwd"]),
        ("index without map", vec![config.clone(), (INDEX, b"{}".to_vec())], &[INDEX, "weight_map"]),
        ("index of no file", vec![config.clone(), (INDEX, index(&[]))], &[INDEX, "at least one tensor"]),
        (
            "index of numbers",
            vec![config.clone(), (INDEX, b"{\"weight_map\":{\"a\":1}}".to_vec())],
            &[INDEX, "a number"],
        ),
    ];
    let mut failed = Vec::new();
    for (name, files, wanted) in cases {
        let dir = dir(&files);
        match HfDir::open(dir.path()) {
            Ok(_) => failed.push(format!("{name}: opened")),
            Err(e) => {
                let text = e.to_string();
                if text.contains('\n') || wanted.iter().any(|w| !text.contains(w)) {
                    failed.push(format!("{name}: {text}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_path_that_is_no_model() {
    let dir = dir(&[("x.safetensors", vec![0; 16]), ("y.bin", b"hello".to_vec()), ("z", vec![])]);
    let cases =
        [("x.safetensors", "name its directory"), ("y.bin", "beginning with `hell`"), ("z", "GGUF"), ("none", "none")];
    for (file, wanted) in cases {
        let text = Checkpoint::open(dir.path().join(file)).unwrap_err().to_string();
        assert!(text.contains(wanted), "{file}: {text}");
    }
}

#[test]
fn bundled_model() {
    let checkpoint = Checkpoint::open(pocket()).unwrap();
    let config = checkpoint.config().unwrap();
    assert_eq!((config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim), (6, 4, 2, 64));
    for (name, shape, optional) in config.expected_tensors() {
        match checkpoint.tensor(&name).unwrap() {
            Some(view) => assert_eq!(view.shape, shape, "{name}"),
            None => assert!(optional, "{name}"),
        }
    }
}

/// Config fields laid over the bundled model's, and what the error must hold; an empty list: it must be read.
#[test]
fn configurations() {
    let base: Value = serde_json::from_slice(&std::fs::read(pocket().join("config.json")).unwrap()).unwrap();
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (json!({"model_type": "mistral", "sliding_window": 4096}), &[]),
        (
            json!({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": false, "max_window_layers": 3}),
            &[],
        ),
        (json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": null}), &[]),
        (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), &[]),
        (json!({"rope_scaling": null}), &[]),
        (json!({"model_type": "gpt2"}), &["not supported", "gpt2"]),
        (json!({"model_type": null}), &["`model_type`", "nothing"]),
        (json!({"quantization_config": {"quant_method": "fp8"}}), &["not supported", "fp8"]),
        (json!({"hidden_act": "gelu"}), &["not supported", "gelu"]),
        (json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}), &["not supported", "dynamic"]),
        (json!({"rope_scaling": {"rope_type": "longrope"}}), &["not supported", "longrope"]),
        (json!({"rope_scaling": {"rope_type": "linear"}}), &["`rope_scaling.factor`"]),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}), &["factor"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7}}), &["not supported", "mscale"]),
        (json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}), &["not supported", "0.5"]),
        (
            json!({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": true, "max_window_layers": 3}),
            &["not supported", "3 of 6"],
        ),
        (json!({"num_hidden_layers": 1_000_000_000u64}), &["number of layers"]),
        (json!({"num_hidden_layers": -1}), &["`num_hidden_layers`", "-1"]),
        (json!({"num_hidden_layers": 1.5}), &["`num_hidden_layers`", "1.5"]),
        (json!({"num_hidden_layers": "6"}), &["`num_hidden_layers`"]),
        (json!({"vocab_size": 0}), &["vocabulary size"]),
        (json!({"vocab_size": u64::MAX}), &["vocabulary size"]),
        (json!({"head_dim": 63}), &["even"]),
        (json!({"head_dim": null, "num_attention_heads": 0}), &["num_attention_heads"]),
        (json!({"num_key_value_heads": 3}), &["divisor"]),
        (json!({"num_key_value_heads": 0}), &["key/value heads"]),
        (json!({"rms_norm_eps": -1.0}), &["epsilon"]),
        (json!({"rope_theta": 0}), &["theta"]),
        (json!({"rope_theta": 1e300}), &["`rope_theta`"]),
    ];
    let mut failed = Vec::new();
    for (change, wanted) in cases {
        let mut config = base.clone();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        match (ModelConfig::from_config_json(&config, Path::new("config.json")), wanted) {
            (Ok(_), []) => {}
            (Ok(_), _) => failed.push(format!("{change}: read")),
            (Err(e), wanted) => {
                let text = e.to_string();
                if wanted.is_empty() || !text.contains("config.json") || wanted.iter().any(|w| !text.contains(w)) {
                    failed.push(format!("{change}: {text}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
