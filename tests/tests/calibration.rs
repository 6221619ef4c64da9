//! Input statistics of the bundled model against those that the reference implementation of GPTQ gathered in torch.
//!
//! Golden: `shared/golden/gptq/layers.safetensors`, tensors `<layer>.gram` and `<layer>.abs_mean`: the first 32 windows of 255 tokens of
//! calibration_datav3.txt, each after BOS, f64 sums stored as f32.

use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::calibrate::{
    CalibrationOptions, CalibrationSet, Detail, Placement, calibrate_to_file, collect_stats, linear_sites, to_imatrix,
};
use quant_runtime::convert::ModelSource;
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, evaluate};
use quant_runtime::model::LinearSite;
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan};
use quant_runtime::safetensors_io::SafetensorsReader;
use quant_runtime::{Checkpoint, Model, Tokenizer};
use quant_tests::{bundled, shared, workspace};
use std::ops::ControlFlow;

#[test]
fn gram_matrices_equal_torch() {
    let (Some(text), Some(golden)) = (shared("data/calibration_datav3.txt"), shared("golden/gptq/layers.safetensors"))
    else {
        return;
    };
    let mut golden = SafetensorsReader::open(golden).unwrap();
    let checkpoint = Checkpoint::open(bundled("")).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let model = Model::load(&checkpoint, &candle_core::Device::Cpu).unwrap();
    let text = std::fs::read_to_string(text).unwrap();
    let tokens = tokenizer.encode(&text, false, false).unwrap();
    let bos = tokenizer.bos().unwrap();
    let mut set =
        CalibrationSet::from_text(&tokenizer, &text, "calibration_datav3.txt", 32, 256, Placement::Spread).unwrap();
    set.sequences = tokens.chunks_exact(255).take(32).map(|c| [&[bos], c].concat()).collect();

    let named = [
        ("model.layers.0.self_attn.q_proj", LinearSite::AttentionInput(0)),
        ("model.layers.0.mlp.down_proj", LinearSite::FfnDown(0)),
        ("model.layers.3.mlp.gate_proj", LinearSite::FfnInput(3)),
        ("model.layers.5.self_attn.o_proj", LinearSite::AttentionOutput(5)),
    ];
    let mut sites = linear_sites(model.config(), false);
    sites.retain(|s| named.iter().any(|(_, site)| *site == s.site));
    let stats = collect_stats(&model, &set, &sites, Detail::Gram, &mut |_| {}).unwrap();
    for (name, site) in named {
        let (info, ours) = sites.iter().zip(&stats).find(|(s, _)| s.site == site).unwrap();
        let n = info.columns;
        assert_eq!(ours.count(), 8192);
        let gram = golden.read_f32(&format!("{name}.gram"), 0, (n * n) as u64).unwrap();
        let abs_mean = golden.read_f32(&format!("{name}.abs_mean"), 0, n as u64).unwrap();
        let square = ours.gram().unwrap().to_square_scaled(1.0);
        let (gram, abs_mean) = (distance(&gram, &square), distance(&abs_mean, &ours.abs_mean()));
        println!("{name}: gram {gram:.2e}, abs_mean {abs_mean:.2e}");
        assert!(gram < 1e-4 && abs_mean < 1e-4, "{name}: {gram:e} {abs_mean:e}");
    }

    let imatrix = to_imatrix(sites.iter().zip(&stats), &set);
    let q = golden.read_f32("model.layers.0.self_attn.q_proj.gram", 0, 256 * 256).unwrap();
    let diagonal: Vec<f32> = (0..256).map(|i| q[i * 257]).collect();
    for weight in ["attn_q", "attn_k", "attn_v"] {
        let entry = &imatrix.entries[&format!("blk.0.{weight}.weight")];
        assert_eq!(entry.counts, [8192]);
        assert!(distance(&diagonal, &entry.in_sum2) < 1e-5);
    }
}

/// Importance gathered on our own text brings few-bit files closer to the original on another text (wikitext-2, 16 chunks of 256).
#[test]
fn importance_lowers_divergence() {
    let Some(text) = shared("data/wikitext2-test.txt") else { return };
    let checkpoint = Checkpoint::open(bundled("")).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let model = Model::load(&checkpoint, &candle_core::Device::Cpu).unwrap();
    let tokens = tokenizer.encode(&std::fs::read_to_string(text).unwrap().replace("\r\n", "\n"), true, false).unwrap();
    let plan = EvalPlan::chunks(&tokens, tokenizer.bos(), 256, Some(16)).unwrap();
    let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&model)).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let own = std::fs::read_to_string(workspace().join("models/pocket-6m-texts/evaluation.txt")).unwrap();
    let set = CalibrationSet::from_text(&tokenizer, &own, "evaluation.txt", 128, 256, Placement::Spread).unwrap();
    let stats = dir.path().join("stats.safetensors");
    calibrate_to_file(&model, &set, CalibrationOptions::default(), &stats, &mut |_| {}).unwrap();
    let source = ModelSource::open(&checkpoint).unwrap();
    for level in [FileType::Q2_K, FileType::Q3_K_M] {
        let mut kl = |importance: Option<Importance>| {
            let file = dir.path().join("x.gguf");
            let mut options = QuantizeOptions::new(MixOptions::new(level));
            options.importance = importance;
            QuantizePlan::new(&source, options).unwrap().run(&file, &|_| ControlFlow::Continue(())).unwrap();
            let model = Model::load(&Checkpoint::open(&file).unwrap(), &candle_core::Device::Cpu).unwrap();
            let report = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| {}).unwrap();
            report.base.unwrap().kl.mean
        };
        let (plain, weighted) = (kl(None), kl(Some(Importance::open(&stats).unwrap())));
        println!("{level}: {plain:.5} without, {weighted:.5} with importance");
        assert!(weighted < 0.99 * plain, "{level}: {plain} {weighted}");
    }
}

/// Norm of the difference over the norm of the first.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (difference / a.iter().map(|&a| square(f64::from(a))).sum::<f64>()).sqrt()
}
