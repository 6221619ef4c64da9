//! Greedy texts against llama.cpp's on the same files. `data/greedy.json` says how they were made.

mod common;

use common::shared;
use quant_runtime::generate::{GenerateOptions, Generator, SamplingOptions};
use quant_runtime::{Checkpoint, Device, Model, Tokenizer};
use serde_json::Value;
use std::ops::ControlFlow;

/// Where llama.cpp's two best logits are closer than this, another rounding of activations may choose the other.
const CLOSE: f64 = 0.06;

/// Texts of 40 tokens that are equal to the last; the others differ first where it is a close call.
fn equal_texts(checkpoint: &Checkpoint, texts: &Value, what: &str) -> usize {
    let tokenizer = Tokenizer::from_checkpoint(checkpoint).expect("tokenizer");
    let model = Model::load(checkpoint, &Device::Cpu).expect("model");
    let options = GenerateOptions { max_tokens: 40, sampling: SamplingOptions::greedy(), ..GenerateOptions::default() };
    let mut generator = Generator::new(&model, &tokenizer, options).expect("options");
    let mut equal = 0;
    for text in texts.as_array().expect("texts") {
        let prompt = text["prompt"].as_str().expect("prompt");
        let ids = tokenizer.encode(prompt, true, false).expect("encodes");
        let found = generator.generate(&ids, |_| ControlFlow::Continue(())).expect("generates");
        let expected: Vec<u64> = text["ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
        let same = found.ids.iter().zip(&expected).take_while(|(a, b)| u64::from(**a) == **b).count();
        if same == expected.len() && found.ids.len() == same {
            assert_eq!(found.text, text["text"].as_str().expect("text"));
            equal += 1;
            continue;
        }
        let margin = text["margins"][same].as_f64().expect("margin");
        assert!(margin < CLOSE, "{what}, {prompt:?}: token {same} differs at margin {margin}: {:?}", found.text);
        println!("{what}, {prompt:?}: equal up to token {same}, where two logits are {margin} apart");
    }
    equal
}

fn golden() -> Value {
    serde_json::from_str(include_str!("data/greedy.json")).expect("golden file")
}

fn bundled() -> Checkpoint {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m");
    Checkpoint::open(path).expect("opens")
}

/// At full precision nothing is rounded, and no call is close.
#[test]
fn greedy_texts_of_the_directory() {
    assert_eq!(equal_texts(&bundled(), &golden()["files"]["F32"], "directory"), 3);
}

#[test]
fn greedy_texts_of_quantized_files() {
    let mut equal = 0;
    for level in ["Q8_0", "Q5_0", "Q4_K_M", "Q2_K"] {
        let Some(path) = shared(&format!("golden/llama_cpp/pocket-6m.{level}.gguf")) else { return };
        let checkpoint = Checkpoint::open(path).expect("opens");
        equal += equal_texts(&checkpoint, &golden()["files"][level], level);
    }
    println!("{equal} of 12 texts are equal");
    assert!(equal >= 6, "{equal} of 12 texts are equal");
}

/// A prompt that begins like the last one gives the same text as with an empty cache.
#[test]
fn kept_tokens_change_nothing() {
    let checkpoint = bundled();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).expect("tokenizer");
    let model = Model::load(&checkpoint, &Device::Cpu).expect("model");
    let options = GenerateOptions { max_tokens: 24, sampling: SamplingOptions::greedy(), ..GenerateOptions::default() };
    let mut kept = Generator::new(&model, &tokenizer, options.clone()).expect("options");
    let mut prompt = "Once upon a time".to_owned();
    for (turn, more) in ["", " The dog said:", " In the end"].iter().enumerate() {
        prompt += more;
        let ids = tokenizer.encode(&prompt, true, false).expect("encodes");
        let found = kept.generate(&ids, |_| ControlFlow::Continue(())).expect("generates");
        let mut fresh = Generator::new(&model, &tokenizer, options.clone()).expect("options");
        let expected = fresh.generate(&ids, |_| ControlFlow::Continue(())).expect("generates");
        assert_eq!(found.ids, expected.ids, "turn {turn}");
        assert_eq!(expected.cached_tokens, 0);
        assert_eq!(found.cached_tokens > 0, turn > 0);
        prompt += &found.text;
    }
}
