//! Perplexity and divergence of files that llama.cpp wrote, against llama.cpp's own figures for them.
//!
//! Golden: `shared/golden/llama_cpp/results.json` (llama-cpp-python 0.3.36; wikitext-2 test, 48 chunks of 256, positions 128..=254 scored).

use quant_runtime::eval::{EvalPlan, LogitsFile, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::safetensors_io::{Dtype, SafetensorsReader, SafetensorsWriter, TensorSpec};
use quant_runtime::{Checkpoint, Model, Tokenizer};
use quant_tests::{bundled, shared};
use std::path::Path;

fn load(path: &Path) -> Model {
    Model::load(&Checkpoint::open(path).unwrap(), &candle_core::Device::Cpu).unwrap()
}

#[test]
fn levels_cost_what_llama_cpp_says() {
    let (Some(text), Some(golden)) = (shared("data/wikitext2-test.txt"), shared("golden/llama_cpp/results.json"))
    else {
        return;
    };
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    // The file has CRLF line ends; the golden figures come from Python, which reads them as LF.
    let text = std::fs::read_to_string(text).unwrap().replace("\r\n", "\n");
    let plan = EvalPlan::from_text(&tokenizer, &text, 256, Some(48)).unwrap();
    let original = load(&bundled(""));
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&original)).unwrap();
    let mut failures = Vec::new();
    for level in ["Q8_0", "Q5_0", "Q4_K_M", "Q2_K"] {
        let Some(path) = shared(&format!("golden/llama_cpp/pocket-6m.{level}.gguf")) else { continue };
        let model = load(&path);
        let ours = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
        let divergence = ours.base.unwrap();
        let theirs = &golden["results"][level];
        let figure = |key: &str| theirs[key].as_f64().unwrap();
        let base_ppl = golden["results"]["F32"]["ppl_ctx256_chunks48"].as_f64().unwrap();
        let ppl = ours.ppl / figure("ppl_ctx256_chunks48") - 1.0;
        let kl = divergence.kl.mean / figure("kl_mean");
        println!(
            "{level}: ppl {:.4} ({:+.3} %), kl {:.6} ({kl:.3} of theirs)",
            ours.ppl,
            100.0 * ppl,
            divergence.kl.mean
        );
        assert_eq!(ours.tokens_scored, 48 * 127);
        let base_off = (divergence.base_ppl / base_ppl - 1.0).abs();
        if ppl.abs() > 0.003 || kl > 1.05 || base_off > 1e-4 || divergence.same_top1 < figure("same_top1") - 0.005 {
            failures.push(format!("{level}: {ours:?}, theirs {theirs}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn logits_of_llama_cpp_can_be_the_base() {
    let Some(path) = shared("golden/llama_cpp/logits.safetensors") else { return };
    let mut golden = SafetensorsReader::open(path).unwrap();
    let shape = golden.need("logits.F32", Dtype::F32).unwrap().shape.clone();
    let dir = tempfile::tempdir().unwrap();
    for level in ["F32", "Q8_0", "Q4_K_M", "Q2_K"] {
        let ours = match level {
            "F32" => bundled(""),
            level => match shared(&format!("golden/llama_cpp/pocket-6m.{level}.gguf")) {
                Some(path) => path,
                None => continue,
            },
        };
        let base = dir.path().join("base.safetensors");
        let specs =
            [TensorSpec::new("tokens", Dtype::I32, [shape[0]]), TensorSpec::new("logits", Dtype::F32, shape.clone())];
        let mut writer = SafetensorsWriter::create(&base, &specs, &[]).unwrap();
        writer.write_i32(&golden.read_i32("tokens", 0, shape[0]).unwrap()).unwrap();
        writer.write_f32(&golden.read_f32(&format!("logits.{level}"), 0, shape[0] * shape[1]).unwrap()).unwrap();
        writer.finish().unwrap();

        let mut base = LogitsFile::open(&base).unwrap();
        let plan = EvalPlan::from_logits(&mut base, None, None).unwrap();
        let model = load(&ours);
        let report = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
        let divergence = report.base.unwrap();
        println!("{level}: kl {:.3e}, same top {:.4}", divergence.kl.mean, divergence.same_top1);
        let bound = if level == "F32" { 1e-5 } else { 1e-3 };
        // llama.cpp rounds activations to int8, we do not: where two tokens are nearly as likely the first may change. Over 4096 positions that
        // is 0.7 % to 2.1 % (docs/fidelity.md); of these 96, two.
        let changed = ((1.0 - divergence.same_top1) * 96.0).round();
        assert!(divergence.kl.mean < bound && changed <= 2.0, "{level}: {divergence:?}");
        // 95 positions; the bound of 0.3 % is for the 6096 positions of the test above.
        assert!((report.ppl / divergence.base_ppl - 1.0).abs() < 0.01, "{level}: {report:?}");
        assert_eq!((divergence.positions, report.tokens_scored), (shape[0], shape[0] - 1));
    }
}
