//! W8A8 directories: those of llm-compressor 0.14 run here, and the same model by every kernel.
//!
//! Golden: `shared/golden/compressed_tensors`: logits and divergence as transformers computes them with compressed-tensors 0.20, in f32 on a CPU.
//!
//! Weights, scales and codes are those to the bit, but sums are in another order, and here that is not forgotten: a value next to a tie takes another code,
//! and moves values of the next layers over ties. transformers differs from itself so: with eager attention or in f64 its logits are 1e-4 and 2.4e-4 (mean
//! KL) from these for int8, 2.5e-4 and 4.9e-4 for FP8, whose steps are larger. What rounding costs is the same each time.

use candle_core::Device;
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::{Activations, Checkpoint, Model, Tokenizer};
use quant_tests::{bundled, divergences, load, logits, logits_one_by_one, mean, shared};

const DIRECTORIES: [&str; 2] = ["ct_w8a8_int8", "ct_fp8_dynamic"];

#[test]
fn logits_of_transformers() {
    for name in DIRECTORIES {
        let Some(golden) = shared("golden/compressed_tensors/logits.safetensors") else { return };
        let tensors = candle_core::safetensors::load(&golden, &Device::Cpu).unwrap();
        let tokens: Vec<u32> = tensors["tokens"].to_vec1::<i32>().unwrap().iter().map(|&t| t as u32).collect();
        let theirs: Vec<f32> = tensors[&format!("logits.{name}")].flatten_all().unwrap().to_vec1().unwrap();
        let path = golden.with_file_name(name);
        let mut model = load(&path);
        let ours = logits(&model, &tokens);
        let singles = logits_one_by_one(&model, &tokens);
        model.set_activations(Activations::F32).unwrap();
        let weights_alone = logits(&model, &tokens);
        let mut candle = Model::load_for_candle(&Checkpoint::open(&path).unwrap(), &Device::Cpu).unwrap();
        let of_candle = logits(&candle, &tokens);
        let vocab = model.config().vocab_size;
        let kl = |base: &[f32], of: &[f32]| mean(&divergences(base, of, vocab)).0;
        let exact = logits(&load(&bundled("")), &tokens);
        let (cost, without) = (kl(&exact, &theirs), kl(&exact, &weights_alone));
        println!("{name}: mean KL from the original {cost:.2e}, of weights alone {without:.2e}");
        let most = if name == "ct_w8a8_int8" { 1e-4 } else { 1e-3 };
        for (way, ours, most) in
            [("at once", &ours, most), ("one by one", &singles, most), ("candle", &of_candle, 1e-3)]
        {
            let (apart, our_cost) = (kl(&theirs, ours), kl(&exact, ours));
            println!("{name} {way}: mean KL {apart:.1e}, from the original {our_cost:.2e}");
            assert!(apart < most && (our_cost / cost - 1.0).abs() < 0.25, "{name} {way}: {apart} {our_cost} {cost}");
        }
        assert!(without < 0.75 * cost, "{name}: {without} {cost}");
        candle.set_activations(Activations::F32).unwrap();
        let apart = kl(&weights_alone, &logits(&candle, &tokens));
        assert!(apart < 1e-9, "{name}: {apart}");
    }
}

#[test]
fn perplexity_and_divergence() {
    let Some(text) = shared("data/wikitext2-test.txt") else { return };
    let Some(golden) = shared("golden/compressed_tensors/results.json") else { return };
    let results: serde_json::Value = serde_json::from_slice(&std::fs::read(&golden).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    // The golden figures come from Python, which reads the file's CRLF as LF.
    let text = std::fs::read_to_string(text).unwrap().replace("\r\n", "\n");
    let plan = EvalPlan::from_text(&tokenizer, &text, 256, Some(48)).unwrap();
    let original = load(&bundled(""));
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&original)).unwrap();
    for name in DIRECTORIES {
        let model = load(&golden.with_file_name(name));
        let ours = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
        let (ppl, divergence) = (ours.ppl, ours.base.unwrap());
        let figure = |key: &str| results["results"][name][key].as_f64().unwrap();
        let (their_ppl, their_kl, their_top) = (figure("ppl"), figure("kl_mean"), figure("same_top1"));
        println!(
            "{name}: ppl {ppl:.4} ({their_ppl:.4}), kl {:.6} ({their_kl:.6}), top {:.4} ({their_top:.4})",
            divergence.kl.mean, divergence.same_top1
        );
        assert!((ppl / their_ppl - 1.0).abs() < 5e-4, "{name}: {ppl} {their_ppl}");
        assert!((divergence.kl.mean / their_kl - 1.0).abs() < 0.03, "{name}: {} {their_kl}", divergence.kl.mean);
        assert!((divergence.same_top1 - their_top).abs() < 4e-3, "{name}: {} {their_top}", divergence.same_top1);
    }
}
