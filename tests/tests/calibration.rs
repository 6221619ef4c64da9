//! Input statistics of the bundled model against those that the reference implementation of GPTQ gathered in torch.
//!
//! Golden: `shared/golden/gptq/layers.safetensors`, tensors `<layer>.gram` and `<layer>.abs_mean`: the first 32 windows of 255 tokens of
//! calibration_datav3.txt, each after BOS, f64 sums stored as f32.

use quant_runtime::calibrate::{CalibrationSet, Detail, collect_stats, linear_sites, to_imatrix};
use quant_runtime::model::LinearSite;
use quant_runtime::safetensors_io::SafetensorsReader;
use quant_runtime::{Checkpoint, Model, Tokenizer};
use quant_tests::{bundled, shared};

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
    let mut set = CalibrationSet::from_text(&tokenizer, &text, "calibration_datav3.txt", 32, 256).unwrap();
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

/// Norm of the difference over the norm of the first.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (difference / a.iter().map(|&a| square(f64::from(a))).sum::<f64>()).sqrt()
}
