//! Hugging Face directories as GGUF: names, order of q and k, metadata, vocabularies; and that each single defect is an error that names it.

use gguf_format::{GgmlType, Gguf, Metadata};
use quant_runtime::Checkpoint;
use quant_runtime::convert::{ModelSource, Place, RowOrder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

/// The files of a directory with one small layer; tests change a part.
struct Files {
    config: Value,
    tensors: Vec<(String, Vec<usize>)>,
    json: Vec<(&'static str, Value)>,
    bytes: Vec<(&'static str, Vec<u8>)>,
}

const VOCAB: usize = 8;

impl Files {
    fn new(model_type: &str) -> Self {
        let config = json!({
            "architectures": ["X"], "model_type": model_type, "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "vocab_size": VOCAB, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "hidden_act": "silu", "tie_word_embeddings": false,
        });
        let layer = |name: &str| format!("model.layers.0.{name}.weight");
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![VOCAB, 16]),
            ("lm_head.weight".to_owned(), vec![VOCAB, 16]),
            ("model.norm.weight".to_owned(), vec![16]),
            (layer("input_layernorm"), vec![16]),
            (layer("post_attention_layernorm"), vec![16]),
            (layer("self_attn.q_proj"), vec![16, 16]),
            (layer("self_attn.k_proj"), vec![8, 16]),
            (layer("self_attn.v_proj"), vec![8, 16]),
            (layer("self_attn.o_proj"), vec![16, 16]),
            (layer("mlp.gate_proj"), vec![32, 16]),
            (layer("mlp.up_proj"), vec![32, 16]),
            (layer("mlp.down_proj"), vec![16, 32]),
        ];
        if model_type == "qwen3" {
            tensors.push((layer("self_attn.q_norm"), vec![4]));
            tensors.push((layer("self_attn.k_norm"), vec![4]));
        }
        Self { config, tensors, json: vec![("tokenizer.json", byte_level())], bytes: Vec::new() }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn json(mut self, name: &'static str, value: Value) -> Self {
        self.json.retain(|(n, _)| *n != name);
        self.json.push((name, value));
        self
    }

    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, shape) in &self.tensors {
            let from = data.len();
            // Each value is its own index, exact in F32.
            let count: usize = shape.iter().product();
            data.extend((0..count).flat_map(|i| (i as f32).to_le_bytes()));
            header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [from, data.len()]}));
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data.as_slice()].concat();
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        for (name, value) in &self.json {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        for (name, bytes) in &self.bytes {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn source(&self) -> Result<ModelSource, quant_runtime::Error> {
        let dir = self.write();
        ModelSource::open(&Checkpoint::open(dir.path())?)
    }
}

/// A byte-level tokenizer (GPT-2's pre-tokenizer) with six tokens, one of them special, one not.
fn byte_level() -> Value {
    json!({
        "added_tokens": [
            {"id": 4, "content": "<s>", "special": true}, {"id": 5, "content": "say\u{2581}so", "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u{120}": 3}, "merges": ["a b"]},
    })
}

/// A tokenizer.json as transformers makes it from a SentencePiece model.
fn sentencepiece_json() -> Value {
    json!({
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "pair": []},
        "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "aba": 3, "ab": 4, "a": 5, "b": 6},
            "merges": ["a b", ["ab", "a"], "a ba"]},
    })
}

fn texts(metadata: &Metadata, key: &str) -> Vec<String> {
    let array = metadata.get_array(key).unwrap().unwrap();
    array.strs().unwrap().map(|s| String::from_utf8(s.to_vec()).unwrap()).collect()
}

fn ints(metadata: &Metadata, key: &str) -> Vec<i64> {
    metadata.get_array(key).unwrap().unwrap().ints().unwrap().collect()
}

#[test]
fn pocket_is_as_a_reference_file_has_it() {
    let source = ModelSource::open(&Checkpoint::open(pocket()).unwrap()).unwrap();
    let m = &source.metadata;
    assert_eq!(m.need_str("general.architecture").unwrap(), "llama");
    assert_eq!(m.need_str("general.name").unwrap(), "pocket-6m");
    assert_eq!(m.need_str("general.size_label").unwrap(), "5.8M");
    assert_eq!(source.tensors.len(), 57);
    assert_eq!(source.prevailing_type(), Some(GgmlType::BF16));
    assert!(source.tensors.iter().all(|t| (t.ty == GgmlType::F32) == (t.shape.len() == 1)));

    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/llama_cpp/pocket-6m.Q8_0.gguf");
    if !reference.exists() {
        println!("skipped: the reference file is not beside the workspace");
        return;
    }
    let reference = Gguf::open(reference).unwrap();
    for (key, value) in reference.metadata().iter() {
        if !["general.quantization_version", "general.file_type"].contains(&key) {
            assert_eq!(m.get(key), Some(value), "{key}");
        }
    }
    let ours: Vec<_> = source.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    let theirs: Vec<_> = reference.tensors().iter().map(|t| (t.name(), t.shape())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn q_and_k_are_permuted_for_llama_only() {
    for (model_type, architecture, permuted) in
        [("llama", "llama", true), ("mistral", "llama", true), ("qwen2", "qwen2", false), ("qwen3", "qwen3", false)]
    {
        let mut files = Files::new(model_type);
        files.tensors.push(("model.layers.0.self_attn.q_proj.bias".into(), vec![16]));
        files.tensors.push(("model.layers.0.self_attn.v_proj.bias".into(), vec![8]));
        let source = files.source().unwrap();
        assert_eq!(source.metadata.need_str("general.architecture").unwrap(), architecture, "{model_type}");
        let tensor = |name: &str| source.tensors.iter().find(|t| t.name == name).unwrap();
        let order = if permuted { RowOrder::Halves { head_dim: 4 } } else { RowOrder::AsStored };
        for name in ["blk.0.attn_q.weight", "blk.0.attn_k.weight"] {
            assert_eq!(tensor(name).order, order, "{model_type} {name}");
        }
        assert_eq!(tensor("blk.0.attn_v.weight").order, RowOrder::AsStored);
        let bias = tensor("blk.0.attn_q.bias");
        match (&bias.place, permuted) {
            // reshape(4 heads, 2, 2).swapaxes(1, 2)
            (Place::Memory(bytes), true) => {
                let values: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                assert_eq!(values[..8], [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
            }
            (Place::File { .. }, false) => {}
            other => panic!("{model_type}: {other:?}"),
        }
        assert_eq!(bias.ty, GgmlType::F32);
    }
}

#[test]
fn a_tied_head_is_left_out() {
    let source = Files::new("qwen2").with("tie_word_embeddings", json!(true)).source().unwrap();
    assert!(source.tensors.iter().all(|t| t.name != "output.weight"));
    assert!(Files::new("qwen2").source().unwrap().tensors.iter().any(|t| t.name == "output.weight"));
}

#[test]
fn llama3_scaling_is_a_tensor_of_divisors() {
    let mut files = Files::new("llama");
    files.config = files.config.clone();
    let rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let wide = [("head_dim", json!(128)), ("rope_scaling", rope), ("rope_theta", json!(500_000.0))];
    let mut files = wide.into_iter().fold(files, |f, (k, v)| f.with(k, v));
    for (name, shape) in &mut files.tensors {
        match name.rsplit('.').nth(1) {
            Some("q_proj") => shape[0] = 512,
            Some("k_proj" | "v_proj") => shape[0] = 256,
            Some("o_proj") => shape[1] = 512,
            _ => {}
        }
    }
    let source = files.source().unwrap();
    let tensor = source.tensors.iter().find(|t| t.name == "rope_freqs.weight").unwrap();
    let Place::Memory(bytes) = &tensor.place else { panic!("in memory") };
    let values: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!((values.len(), tensor.shape.as_slice()), (64, [64].as_slice()));
    // Llama 3.1 8B, computed with numpy in float32 as llama.cpp's conversion/llama.py does in torch.
    let expected = [1.0, 1.207_483_9, 1.553_414_6, 2.026_313, 2.694_53, 3.684_253_2, 5.257_327, 8.0].map(|v: f32| v);
    for (ours, theirs) in values[28..36].iter().zip(expected) {
        assert!((ours / theirs - 1.0).abs() < 1e-6, "{ours} {theirs}");
    }
    assert!(values[..28].iter().all(|&v| v == 1.0) && values[36..].iter().all(|&v| v == 8.0));
    assert!(source.metadata.get("llama.rope.scaling.type").is_none());
}

#[test]
fn linear_and_yarn_scaling_are_keys() {
    let linear = json!({"type": "linear", "factor": 4.0});
    let m = Files::new("llama").with("rope_scaling", linear).source().unwrap().metadata;
    assert_eq!(m.need_str("llama.rope.scaling.type").unwrap(), "linear");
    assert_eq!(m.need_f32("llama.rope.scaling.factor").unwrap(), 4.0);

    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let m = Files::new("qwen2").with("rope_scaling", yarn).source().unwrap().metadata;
    assert_eq!(m.need_str("qwen2.rope.scaling.type").unwrap(), "yarn");
    assert_eq!(m.need_u64("qwen2.rope.scaling.original_context_length").unwrap(), 64);
}

#[test]
fn byte_level_vocabulary() {
    let config =
        json!({"bos_token": {"content": "<s>"}, "eos_token": "ab", "add_bos_token": true, "chat_template": "x"});
    let m = Files::new("llama").json("tokenizer_config.json", config).source().unwrap().metadata;
    assert_eq!(
        (m.need_str("tokenizer.ggml.model").unwrap(), m.need_str("tokenizer.ggml.pre").unwrap()),
        ("gpt2", "gpt-2")
    );
    let expected = ["a", "b", "ab", "\u{120}", "<s>", "say so", "[PAD6]", "[PAD7]"];
    assert_eq!(texts(&m, "tokenizer.ggml.tokens"), expected);
    assert_eq!(ints(&m, "tokenizer.ggml.token_type"), [1, 1, 1, 1, 3, 4, 5, 5]);
    assert_eq!(texts(&m, "tokenizer.ggml.merges"), ["a b"]);
    assert_eq!(m.need_u64("tokenizer.ggml.bos_token_id").unwrap(), 4);
    assert_eq!(m.need_u64("tokenizer.ggml.eos_token_id").unwrap(), 2);
    assert_eq!(m.get_bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(m.need_str("tokenizer.chat_template").unwrap(), "x");
    // Nothing says so: no BOS, and it is written, since llama.cpp would add one for some names.
    let m = Files::new("llama").source().unwrap().metadata;
    assert_eq!(m.get_bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
}

#[test]
fn end_tokens() {
    // A list: the first is the end, and a further one that no reader knows by its text ends a turn.
    let m = Files::new("llama").with("eos_token_id", json!([2, 4, 5])).source().unwrap().metadata;
    assert_eq!(m.need_u64("tokenizer.ggml.eos_token_id").unwrap(), 2);
    assert_eq!(m.need_u64("tokenizer.ggml.eot_token_id").unwrap(), 4);
    let e = Files::new("llama").with("eos_token_id", json!(8)).source().unwrap_err().to_string();
    assert!(e.contains("`eos_token_id`") && e.contains("below 8"), "{e}");
}

#[test]
fn sentencepiece_from_tokenizer_json() {
    let m = Files::new("mistral").json("tokenizer.json", sentencepiece_json()).source().unwrap().metadata;
    assert_eq!(m.need_str("tokenizer.ggml.model").unwrap(), "llama");
    assert_eq!(texts(&m, "tokenizer.ggml.tokens"), ["<unk>", "<s>", "<0x0A>", "aba", "ab", "a", "b", "[PAD7]"]);
    assert_eq!(ints(&m, "tokenizer.ggml.token_type"), [2, 3, 6, 1, 1, 1, 1, 5]);
    let scores: Vec<f32> = m.get_array("tokenizer.ggml.scores").unwrap().unwrap().floats().unwrap().collect();
    // `ab` is merged before `aba`; letters come last.
    assert_eq!(scores[2..7], [0.0, -1.0, 0.0, -2.0, -2.0]);
    assert_eq!(m.get_bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert!(m.get("tokenizer.ggml.add_space_prefix").is_none());
}

#[test]
fn sentencepiece_from_tokenizer_model() {
    // `<unk>` unknown, `a` -1.5, a byte; BPE; no dummy prefix. Bytes of a protocol buffer.
    let model = b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02\x0a\x08\x0a\x01a\x15\0\0\xc0\xbf\
        \x0a\x0f\x0a\x06<0x0A>\x15\0\0\0\0\x18\x06\x12\x02\x18\x02\x1a\x02\x18\0";
    let mut files = Files::new("llama");
    files.json.clear();
    files.bytes.push(("tokenizer.model", model.to_vec()));
    let m = files.source().unwrap().metadata;
    assert_eq!(texts(&m, "tokenizer.ggml.tokens")[..4], ["<unk>", "a", "<0x0A>", "[PAD3]"]);
    assert_eq!(ints(&m, "tokenizer.ggml.token_type")[..4], [2, 1, 6, 5]);
    assert_eq!(m.get_bool("tokenizer.ggml.add_space_prefix").unwrap(), Some(false));
    files.bytes[0].1.truncate(20);
    assert!(files.source().unwrap_err().to_string().contains("tokenizer.model"));
}

#[test]
fn each_defect_is_named() {
    type Change = fn(&mut Files);
    let cases: &[(&str, Change, &str)] = &[
        (
            "missing tensor",
            |f| f.tensors.retain(|(n, _)| !n.contains("o_proj")),
            "model.layers.0.self_attn.o_proj.weight",
        ),
        ("wrong shape", |f| f.tensors[5].1 = vec![8, 16], "[8, 16]"),
        ("foreign tensor", |f| f.tensors.push(("model.layers.0.mlp.experts.0.w1.weight".into(), vec![1])), "no place"),
        (
            "layer too many",
            |f| f.tensors.push(("model.layers.1.mlp.up_proj.weight".into(), vec![32, 16])),
            "no such tensor",
        ),
        (
            "q norm of another family",
            |f| f.tensors.push(("model.layers.0.self_attn.q_norm.weight".into(), vec![7])),
            "[7]",
        ),
        ("no tokenizer", |f| f.json.clear(), "tokenizer.json or tokenizer.model"),
        ("unknown pre-tokenizer", |f| f.json[0].1["pre_tokenizer"] = json!({"type": "Whitespace"}), "Whitespace"),
        ("unknown normalizer", |f| f.json[0].1["normalizer"] = json!({"type": "Lowercase"}), "Lowercase"),
        ("unigram", |f| f.json[0].1["model"]["type"] = json!("Unigram"), "Unigram"),
        ("id beyond the embedding", |f| f.json[0].1["model"]["vocab"]["z"] = json!(8), "id 8"),
        ("merges of three", |f| f.json[0].1["model"]["merges"] = json!([["a", "b", "c"]]), "`model.merges`"),
        ("added token without id", |f| f.json[0].1["added_tokens"] = json!([{"content": "x"}]), "`added_tokens`"),
    ];
    for (what, change, expected) in cases {
        let mut files = Files::new("llama");
        change(&mut files);
        let e = files.source().map(|_| ()).unwrap_err().to_string();
        assert!(e.contains(expected) && !e.contains('\n'), "{what}: {e}");
    }
}
