//! Tokenizers of models: the bundled one in its two forms, and a real one: set QUANT_REAL_MODEL to a folder with
//! Qwen2.5-Coder-0.5B-Instruct's Q4_K_M file and, in `hf`, its Hugging Face directory.

mod common;

use common::{from_environment, shared};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;

fn bundled() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m")
}

/// Texts that have been trouble.
fn texts() -> Vec<String> {
    let golden: Value = serde_json::from_str(include_str!("data/llama_cpp_tokens.json")).expect("golden file");
    golden["texts"].as_array().expect("texts").iter().map(|t| t.as_str().expect("text").to_owned()).collect()
}

fn same(a: &Tokenizer, b: &Tokenizer) {
    for text in texts() {
        for (add, parse) in [(true, true), (false, false), (true, false)] {
            let ids = a.encode(&text, add, parse).expect("encodes");
            assert_eq!(ids, b.encode(&text, add, parse).expect("encodes"), "{text:?} {add} {parse}");
            assert_eq!(a.decode(&ids, false).expect("decodes"), b.decode(&ids, false).expect("decodes"), "{text:?}");
        }
    }
    assert_eq!((a.bos(), a.eos(), a.adds_bos()), (b.bos(), b.eos(), b.adds_bos()));
    for id in 0..a.vocab_size().min(b.vocab_size()) as u32 {
        assert_eq!(a.piece(id).expect("piece"), b.piece(id).expect("piece"), "{id}");
    }
}

#[test]
fn the_bundled_model_has_one_tokenizer_in_two_forms() {
    let hf = Tokenizer::from_hf_dir(bundled()).expect("loads");
    assert_eq!((hf.vocab_size(), hf.bos(), hf.eos(), hf.adds_bos()), (2048, Some(0), Some(1), true));
    assert_eq!(hf.end_of_generation(), [1]);
    assert_eq!(hf.chat_template(), None);
    for text in texts() {
        let ids = hf.encode(&text, true, false).expect("encodes");
        assert_eq!(ids[0], 0);
        assert_eq!(hf.decode(&ids, false).expect("decodes"), text);
    }
    assert_eq!(hf.encode("<|end_of_text|>", false, true).expect("encodes"), [1]);
    assert!(hf.encode("<|end_of_text|>", false, false).expect("encodes").len() > 1);
    let Some(path) = shared("golden/llama_cpp/pocket-6m.Q8_0.gguf") else { return };
    let gguf = Tokenizer::from_checkpoint(&Checkpoint::open(path).expect("opens")).expect("loads");
    same(&gguf, &hf);
}

/// Qwen2.5-Coder-0.5B-Instruct: ids that llama.cpp and `tokenizers` agree on.
fn real_model(tokenizer: &Tokenizer) {
    let Some(golden) = shared("golden/real_model/tokens.json") else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).expect("reads")).expect("JSON");
    for (name, case) in golden.as_object().expect("cases") {
        let expected: Vec<u32> =
            case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect();
        let text = case["text"].as_str().expect("text");
        assert_eq!(tokenizer.encode(text, true, true).expect("encodes"), expected, "{name}");
        assert_eq!(tokenizer.decode(&expected, true).expect("decodes"), text, "{name}");
    }
    assert_eq!(tokenizer.eos(), Some(151_645));
    assert!(!tokenizer.adds_bos());
    for end in [151_643, 151_645] {
        assert!(tokenizer.end_of_generation().contains(&end), "{end}");
    }
    assert!(tokenizer.chat_template().expect("template").contains("im_start"));
    let texts = texts();
    let started = Instant::now();
    for text in &texts {
        let ids = tokenizer.encode(text, false, false).expect("encodes");
        // Its tokenizer.json composes characters (NFC), which a GGUF file does not say.
        let plain = !text.contains(['\u{301}', '\u{308}', '\u{303}', '\u{3099}', '\u{351}']);
        let decoded = tokenizer.decode(&ids, false).expect("decodes");
        assert!(!plain || decoded == *text, "{text:?}: {decoded:?}");
    }
    println!("{} texts in {:?}", texts.len(), started.elapsed());
}

#[test]
fn real_gguf() {
    let Some(path) = from_environment("QUANT_REAL_MODEL") else { return };
    let checkpoint = Checkpoint::open(path.join("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")).expect("opens");
    let started = Instant::now();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).expect("loads");
    println!("GGUF tokenizer of {} tokens loaded in {:?}", tokenizer.vocab_size(), started.elapsed());
    real_model(&tokenizer);
}

#[test]
fn real_directory() {
    let Some(path) = from_environment("QUANT_REAL_MODEL") else { return };
    let started = Instant::now();
    let tokenizer = Tokenizer::from_hf_dir(path.join("hf")).expect("loads");
    println!("tokenizer.json of {} tokens loaded in {:?}", tokenizer.vocab_size(), started.elapsed());
    real_model(&tokenizer);
}
