//! Logits of the model against those of llama.cpp and of transformers on the same files.

use candle_core::{Device, Tensor};
use quant_runtime::{Checkpoint, LogitRows, Model};
use quant_tests::{bundled, divergences, mean, shared};
use std::collections::HashMap;
use std::path::Path;

fn load(path: impl AsRef<Path>) -> Model {
    Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap()
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let all = model.forward(tokens, &mut model.new_cache(), LogitRows::All).unwrap();
    all.flatten_all().unwrap().to_vec1().unwrap()
}

fn golden(file: &Path) -> (HashMap<String, Tensor>, Vec<u32>) {
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let tokens = tensors["tokens"].to_vec1::<i32>().unwrap().iter().map(|&t| t as u32).collect();
    (tensors, tokens)
}

/// The bundled model in llama.cpp: F32 from the directory, quantized levels from files that llama-quantize wrote.
///
/// llama.cpp rounds activations to 8 bits before products with packed weights, this runtime does not, so quantized levels differ by that: about as
/// much as llama.cpp's own Q8_0 differs from its F32 (KL 1.4e-4, 98.9 %). One of 96 positions is 1.04 %.
#[test]
fn bundled_model_as_llama_cpp() {
    let Some(file) = shared("golden/llama_cpp/logits.safetensors") else { return };
    let (tensors, tokens) = golden(&file);
    // level, file (empty: the directory), mean KL at most, same top 1 at least
    let cases = [
        ("F32", "", 1e-5, 1.0),
        ("Q8_0", "pocket-6m.Q8_0.gguf", 1e-3, 0.98),
        ("Q5_0", "pocket-6m.Q5_0.gguf", 1e-3, 0.98),
        ("Q4_K_M", "pocket-6m.Q4_K_M.gguf", 1e-3, 94.0 / 96.0),
        ("Q2_K", "pocket-6m.Q2_K.gguf", 1e-3, 94.0 / 96.0),
    ];
    let mut failed = Vec::new();
    for (level, name, most_kl, least_same) in cases {
        let model = match name {
            "" => load(bundled("")),
            name => match shared(&format!("golden/llama_cpp/{name}")) {
                Some(path) => load(path),
                None => continue,
            },
        };
        let base: Vec<f32> = tensors[&format!("logits.{level}")].flatten_all().unwrap().to_vec1().unwrap();
        let (kl, same) = mean(&divergences(&base, &logits(&model, &tokens), model.config().vocab_size));
        println!("{level}: mean KL {kl:.3e}, same top 1 {:.2} %", 100.0 * same);
        if !(kl < most_kl && same >= least_same) {
            failed.push(level);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// A GGUF of adjacent rotation and a directory of the same weights with permuted q and k.
#[test]
fn both_forms_of_a_model_agree() {
    let Some(gguf) = shared("models/stories260K.gguf") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(gguf.with_file_name("stories260K_hf.config.json"), dir.path().join("config.json")).unwrap();
    std::fs::copy(gguf.with_file_name("stories260K_hf.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let (a, b) = (load(&gguf), load(dir.path()));
    let tokens: Vec<u32> = (0..200).map(|i| (i * 37 + 1) % 512).collect();
    let (a, b) = (logits(&a, &tokens), logits(&b, &tokens));
    let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-4, "{largest}");
}

/// Token by token, in pieces, and at once: the cache holds what the whole prompt computes.
#[test]
fn pieces_give_what_the_whole_gives() {
    let model = load(bundled(""));
    let tokens: Vec<u32> = (0..600).map(|i| (i * i + 7) % 2048).collect();
    let whole = logits(&model, &tokens);
    let vocab = model.config().vocab_size;
    for piece in [1, 3, 32, 257] {
        let mut cache = model.new_cache();
        let mut rows = Vec::new();
        for part in tokens[..300].chunks(piece) {
            let all = model.forward(part, &mut cache, LogitRows::All).unwrap();
            rows.extend(all.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
        let (kl, same) = mean(&divergences(&whole[..300 * vocab], &rows, vocab));
        assert!(kl < 1e-9 && same == 1.0, "{piece}: {kl} {same}");
    }
    // Parts of the rows are rows of the whole.
    for (rows, from) in
        [(LogitRows::Last, 599), (LogitRows::From(0), 0), (LogitRows::From(511), 511), (LogitRows::From(597), 597)]
    {
        let got = model.forward(&tokens, &mut model.new_cache(), rows).unwrap();
        assert_eq!(got.dims(), [600 - from, vocab], "{rows:?}");
        let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
        let (kl, same) = mean(&divergences(&whole[from * vocab..], &got, vocab));
        assert!(kl < 1e-9 && same == 1.0, "{rows:?}: {kl} {same}");
    }
    for rows in [LogitRows::None, LogitRows::From(600)] {
        let mut cache = model.new_cache();
        assert_eq!(model.forward(&tokens, &mut cache, rows).unwrap().dims(), [0, vocab]);
        assert_eq!(cache.len(), 600);
    }
}
