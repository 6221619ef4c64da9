//! Token ids of GGUF vocabularies, against llama.cpp's. `data/llama_cpp_tokens.json` says how they were made.

mod common;

use common::{sha256, shared};
use gguf_format::{Gguf, Metadata};
use quant_runtime::Tokenizer;
use quant_runtime::tokenizer::known_pre_tokenizers;
use serde_json::Value;
use std::collections::HashSet;

fn golden() -> Value {
    serde_json::from_str(include_str!("data/llama_cpp_tokens.json")).expect("golden file")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect()
}

fn vocabulary(name: &str) -> Option<Metadata> {
    let path = shared(&format!("data/gguf/ggml-vocab-{name}.gguf"))?;
    Some(Gguf::open(path).expect("vocabulary").metadata().clone())
}

/// All texts whose ids differ, with both.
fn compare(tokenizer: &Tokenizer, texts: &[Value], what: &str, expected: impl Fn(usize) -> Option<(Vec<u32>, bool)>) {
    let mut wrong = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let Some((expected, special)) = expected(i) else { continue };
        let text = text.as_str().expect("text");
        let found = tokenizer.encode(text, special, special).expect("encodes");
        if found != expected {
            let at = found.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
            let near = |ids: &[u32]| -> Vec<String> {
                ids.iter().skip(at).take(6).map(|&id| tokenizer.token_text(id).unwrap_or_default()).collect()
            };
            wrong.push(format!("{text:?} from id {at}: {:?}, llama.cpp {:?}", near(&found), near(&expected)));
        }
    }
    assert!(wrong.is_empty(), "{what}: {} texts differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn vocabularies() {
    let golden = golden();
    let texts = golden["texts"].as_array().expect("texts");
    for (name, facts) in golden["vocabularies"].as_object().expect("vocabularies") {
        let Some(metadata) = vocabulary(name) else { return };
        let tokenizer = Tokenizer::from_gguf_metadata(&metadata, name).expect("loads");
        assert_eq!(tokenizer.vocab_size() as u64, facts["n_tokens"], "{name}");
        assert_eq!(u64::from(tokenizer.bos().expect("bos")), facts["bos"], "{name}");
        assert_eq!(u64::from(tokenizer.eos().expect("eos")), facts["eos"], "{name}");
        assert_eq!(tokenizer.adds_bos(), facts["add_bos"], "{name}");
        assert_eq!(tokenizer.adds_eos(), facts["add_eos"], "{name}");
        assert_eq!(tokenizer.end_of_generation(), ids(&facts["eog"]), "{name}");
        compare(&tokenizer, texts, name, |i| Some((ids(&facts["ids"][i]), false)));
        // Where the file lists nothing, text stands for no special token: BOS and the same ids.
        compare(&tokenizer, texts, &format!("{name}, special tokens parsed"), |i| {
            let expected = match &facts["parse_special"][i.to_string()] {
                Value::Null => {
                    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
                    bos.into_iter().chain(ids(&facts["ids"][i])).collect()
                }
                listed => ids(listed),
            };
            Some((expected, true))
        });
        let mut bytes = Vec::new();
        for id in 0..tokenizer.vocab_size() as u32 {
            let piece = tokenizer.piece(id).expect("piece");
            bytes.extend_from_slice(&(piece.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(sha256(&bytes), facts["pieces_sha256"].as_str().expect("hash"), "{name}: pieces");
    }
}

/// Every pre-tokenizer on the vocabulary of GPT-2.
#[test]
fn pre_tokenizers() {
    let golden = golden();
    let texts = golden["texts"].as_array().expect("texts");
    let base = &golden["vocabularies"]["gpt-2"]["ids"];
    let Some(mut metadata) = vocabulary("gpt-2") else { return };
    let mut seen = HashSet::new();
    for group in golden["pre_on_gpt2_vocabulary"].as_array().expect("groups") {
        for name in group["names"].as_array().expect("names") {
            let name = name.as_str().expect("name");
            seen.insert(name.to_owned());
            metadata.set("tokenizer.ggml.pre", name);
            let tokenizer = Tokenizer::from_gguf_metadata(&metadata, name).expect("loads");
            assert_eq!(tokenizer.adds_bos(), group["add_bos"], "{name}");
            compare(&tokenizer, texts, name, |i| {
                let listed = &group["ids_where_not_those_of_gpt-2"][i.to_string()];
                Some((ids(if listed.is_null() { &base[i] } else { listed }), false))
            });
        }
    }
    for name in known_pre_tokenizers() {
        assert!(seen.contains(name), "{name} was not compared");
    }
}
