//! Models with a quantized cache, against llama.cpp's own figures for its cache types, and what the presets promise.
//!
//! Golden: `shared/golden/llama_cpp/results.json` (llama-cpp-python 0.3.36; wikitext-2 test, 48 chunks of 256, positions 128..=254 scored; the cache of the
//! F32 model quantized from the first token).

use quant_runtime::eval::{EvalPlan, EvalReport, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::generate::{GenerateOptions, Generator, SamplingOptions};
use quant_runtime::{CacheChoice, Checkpoint, KvCache, LogitRows, Model, Tokenizer};
use quant_tests::{bundled, shared};
use std::ops::ControlFlow;

fn model() -> (Model, Tokenizer) {
    let checkpoint = Checkpoint::open(bundled("")).unwrap();
    (Model::load(&checkpoint, &candle_core::Device::Cpu).unwrap(), Tokenizer::from_checkpoint(&checkpoint).unwrap())
}

fn types(key: &str, value: &str) -> CacheChoice {
    CacheChoice::parse(None, Some(key), Some(value)).unwrap()
}

fn preset(name: &str) -> CacheChoice {
    CacheChoice::parse(Some(name), None, None).unwrap()
}

#[test]
fn types_cost_what_llama_cpp_says_and_presets_less() {
    let (Some(text), Some(golden)) = (shared("data/wikitext2-test.txt"), shared("golden/llama_cpp/results.json"))
    else {
        return;
    };
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let (model, tokenizer) = model();
    // As the golden figures were made.
    let text = std::fs::read_to_string(text).unwrap().replace("\r\n", "\n");
    let plan = EvalPlan::from_text(&tokenizer, &text, 256, Some(48)).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&model)).unwrap();
    let mut measure = |choice| -> EvalReport {
        let mut source = ModelLogits::with_cache(&model, choice).unwrap();
        evaluate(&plan, &mut source, Some(&mut base), None, &mut |_| {}).unwrap()
    };
    // llama.cpp rotates heads of 64; it also rounds its queries, which shows where the cache is exact.
    for (name, below, above) in [("q8_0", 0.6, 1.1), ("q5_1", 0.9, 1.1), ("q4_0", 0.95, 1.05)] {
        let theirs = &golden["results"][format!("F32 cache {name}")];
        let rotated = format!("{name}+rot");
        let ours = measure(types(&rotated, &rotated));
        let kl = ours.base.as_ref().unwrap().kl.mean / theirs["kl_mean"].as_f64().unwrap();
        let ppl = ours.ppl / theirs["ppl_ctx256_chunks48"].as_f64().unwrap() - 1.0;
        println!("{rotated}: kl {kl:.3} of llama.cpp's, ppl {:+.4} %", 100.0 * ppl);
        assert!((below..above).contains(&kl), "{rotated}: divergence is {kl} of llama.cpp's");
        assert!(ppl.abs() < 5e-3, "{rotated}: perplexity is off by {ppl}");
    }
    for (name, most) in [("int8", 3e-5), ("fp8", 4e-4), ("k8v4", 1e-3), ("r4", 1.5e-3), ("r3", 1e-3), ("r2", 3e-3)] {
        let ours = measure(preset(name));
        let base = ours.base.as_ref().unwrap();
        println!(
            "{name}: kl {:.3e}, same top {:.4}, {:?} bytes",
            base.kl.mean, base.same_top1, ours.cache_bytes_per_token
        );
        assert!(base.kl.mean <= most, "{name}: divergence {}", base.kl.mean);
    }
}

#[test]
fn parts_and_cuts_do_not_change_what_follows() {
    let (model, tokenizer) = model();
    let tokens = tokenizer
        .encode("A cache that is cut and filled again holds what it held before, whatever came between.", true, false)
        .unwrap();
    for choice in [preset("int8"), preset("r4"), preset("k8v4"), types("q8_0", "q4_0+rot")] {
        let logits = |cache: &mut KvCache, tokens: &[u32]| -> Vec<f32> {
            model.forward(tokens, cache, LogitRows::Last).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let mut straight = model.new_cache_of(choice).unwrap();
        let expected = logits(&mut straight, &tokens);
        let mut cut = model.new_cache_of(choice).unwrap();
        logits(&mut cut, &tokens[..7]);
        logits(&mut cut, &tokens[3..9]);
        cut.truncate(7);
        for &t in &tokens[7..tokens.len() - 1] {
            logits(&mut cut, &[t]);
        }
        let found = logits(&mut cut, &tokens[tokens.len() - 1..]);
        assert_eq!(cut.len(), tokens.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Products of one token round otherwise than those of many, and a value on a border may get the next code.
        assert!(worst < 0.3, "{choice:?}: {worst}");
    }
}

#[test]
fn generation_with_a_quantized_cache() {
    let (model, tokenizer) = model();
    let prompt = tokenizer.encode("The history of", true, false).unwrap();
    let text = |cache| {
        let sampling = SamplingOptions::greedy();
        let options = GenerateOptions { max_tokens: 24, sampling, cache, ..GenerateOptions::default() };
        let mut generator = Generator::new(&model, &tokenizer, options).unwrap();
        generator.generate(&prompt, |_| ControlFlow::Continue(())).unwrap().text
    };
    assert_eq!(text(preset("int8")), text(CacheChoice::F32));
    assert!(!text(preset("r4")).is_empty());
}

#[test]
fn the_cache_counts_its_bytes() {
    let (model, _) = model();
    let bytes = |choice| model.new_cache_of(choice).unwrap().bytes_per_token();
    // 6 layers of 2 heads of 64.
    let values = 6 * 2 * 2 * 64;
    assert_eq!(bytes(CacheChoice::F32), 4 * values);
    for (choice, bits) in [(preset("int8"), 8.25), (preset("r4"), 4.25), (types("q4_0", "q8_0"), 6.5)] {
        let ratio = bytes(choice) as f64 / (values as f64 * bits / 8.0);
        assert!((1.0..1.06).contains(&ratio), "{choice:?}: {ratio}");
    }
}

/// The bundled model as one whose layers see the last `window` tokens only.
fn windowed(window: usize) -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(bundled("")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = dir.path().join("config.json");
    let mut fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    fields["model_type"] = "mistral".into();
    fields["architectures"] = serde_json::json!(["MistralForCausalLM"]);
    fields["sliding_window"] = window.into();
    std::fs::write(&config, fields.to_string()).unwrap();
    let model = Model::load(&Checkpoint::open(dir.path()).unwrap(), &candle_core::Device::Cpu).unwrap();
    (dir, model)
}

#[test]
fn a_sliding_window_bounds_the_memory_of_a_quantized_cache() {
    let window = 40;
    let (_dir, model) = windowed(window);
    assert_eq!(model.config().sliding_window, Some(window));
    let tokens: Vec<u32> = (0..460).map(|i| i * 37 % 500).collect();
    let logits = |cache: &mut KvCache, tokens: &[u32]| -> Vec<f32> {
        model.forward(tokens, cache, LogitRows::Last).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| {
        let most = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        a.iter().zip(b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / most
    };
    // The 4 first tokens of `r4` have a block of 64 in half precision.
    for (choice, error, extra) in [(preset("int8"), 0.02, 0), (preset("r4"), 0.2, 256)] {
        let mut exact = model.new_cache();
        let mut cache = model.new_cache_of(choice).unwrap();
        let mut straight = model.new_cache_of(choice).unwrap();
        let mut most = 0;
        for (i, part) in tokens.chunks(20).enumerate() {
            let (found, expected) = (logits(&mut cache, part), logits(&mut exact, part));
            assert!(distance(&found, &expected) < error, "{choice:?}, part {i}: {}", distance(&found, &expected));
            most = most.max(cache.bytes_held());
        }
        assert_eq!(cache.len(), tokens.len());
        // Window, slack, a part, and blocks of 64 of which parts are needed.
        let tokens_held = most / cache.bytes_per_token();
        assert!(tokens_held <= window + 64 + 2 * 64 + extra, "{choice:?}: {tokens_held} tokens held");

        // A short cut leaves what is needed; what follows is what a cache without it gives. A long one empties the cache.
        assert_eq!(cache.truncate(450), 450);
        logits(&mut straight, &tokens[..450]);
        let (found, expected) = (logits(&mut cache, &tokens[450..]), logits(&mut straight, &tokens[450..]));
        assert!(distance(&found, &expected) < error, "{choice:?}: {}", distance(&found, &expected));
        assert_eq!(cache.truncate(300), 0);
        assert_eq!((cache.len(), cache.bytes_held()), (0, 0));
        let (found, expected) = (logits(&mut cache, &tokens[..60]), logits(&mut model.new_cache(), &tokens[..60]));
        assert!(distance(&found, &expected) < error);
    }
}

#[test]
fn other_devices_attend_to_what_the_codes_stand_for() {
    let checkpoint = Checkpoint::open(bundled("")).unwrap();
    let (own, _) = model();
    let candle = Model::load_for_candle(&checkpoint, &candle_core::Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..90).map(|i| i * 37 % 500).collect();
    for choice in [preset("int8"), preset("r4"), types("q8_0", "q5_1")] {
        let logits = |model: &Model| -> Vec<f32> {
            let mut cache = model.new_cache_of(choice).unwrap();
            model.forward(&tokens[..70], &mut cache, LogitRows::None).unwrap();
            model.forward(&tokens[70..], &mut cache, LogitRows::All).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let (a, b) = (logits(&own), logits(&candle));
        let most = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let error = a.iter().zip(&b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs()));
        // A rounding that falls the other way changes a code.
        assert!(error < 0.02 * most, "{choice:?}: {error} of {most}");
    }
}

#[test]
fn noise_of_a_cache_falls_with_its_bits() {
    let (model, tokenizer) = model();
    let text = "Keys and values of real text, and what rounding does to the logits and to the outputs of each layer.";
    let tokens = tokenizer.encode(text, true, false).unwrap();
    assert!(model.cache_noise(CacheChoice::F32, &tokens).unwrap().is_empty());
    let noise = |choice| {
        let layers = model.cache_noise(choice, &tokens).unwrap();
        assert_eq!(layers.len(), 6);
        layers.iter().map(|n| n.logits + n.output).sum::<f64>()
    };
    let [f16, int8, r4, q4] = [preset("f16"), preset("int8"), preset("r4"), types("q4_0", "q4_0")].map(noise);
    assert!(f16 < 1e-5 && f16 < int8 && int8 < 1e-3 && int8 < r4 && r4 < q4 && q4 < 1.0, "{f16} {int8} {r4} {q4}");
}
