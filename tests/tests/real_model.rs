//! A real model, by hand: set QUANT_REAL_MODEL to a folder with Qwen2.5-Coder-0.5B-Instruct's Q4_K_M file and, in `hf`, its Hugging Face directory.

use candle_core::{Device, Tensor};
use quant_runtime::{Checkpoint, LogitRows, Model};
use quant_tests::{log_softmax, shared};
use std::path::PathBuf;

/// Divergence over the base's 64 most probable tokens and the rest taken as one.
fn coarse_kl(base: &[f64], other: &[f64]) -> f64 {
    let rest = |p: &[f64]| (1.0 - p.iter().map(|v| v.exp()).sum::<f64>()).max(1e-12).ln();
    let kl = |p: f64, q: f64| p.exp() * (p - q);
    base.iter().zip(other).map(|(&p, &q)| kl(p, q)).sum::<f64>() + kl(rest(base), rest(other))
}

/// Mean divergence from the f32 reference and share of equal first tokens.
fn compare(reference: &[Vec<f32>], ids: &[Vec<u32>], logits: &Tensor) -> (f64, f64) {
    let (mut kl, mut same) = (0.0, 0);
    for (row, (reference, ids)) in reference.iter().zip(ids).enumerate() {
        let row: Vec<f32> = logits.get(row).unwrap().to_vec1().unwrap();
        let all = log_softmax(&row);
        let base: Vec<f64> = reference.iter().map(|&v| f64::from(v)).collect();
        let other: Vec<f64> = ids.iter().map(|&id| all[id as usize]).collect();
        kl += coarse_kl(&base, &other);
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        let wanted = (0..base.len()).max_by(|&a, &b| base[a].total_cmp(&base[b])).unwrap();
        same += usize::from(best == ids[wanted] as usize);
    }
    (kl / ids.len() as f64, same as f64 / ids.len() as f64)
}

#[test]
fn as_torch() {
    let Some(folder) = std::env::var_os("QUANT_REAL_MODEL").map(PathBuf::from) else {
        println!("skipped: QUANT_REAL_MODEL is not set");
        return;
    };
    let Some(file) = shared("golden/real_model/logits.safetensors") else { return };
    let golden = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let tokens: Vec<u32> = golden["tokens"].to_vec1::<i32>().unwrap().iter().map(|&t| t as u32).collect();
    let ids: Vec<Vec<u32>> = golden["top64_ids"]
        .to_vec2::<i32>()
        .unwrap()
        .into_iter()
        .map(|r| r.into_iter().map(|i| i as u32).collect())
        .collect();
    let torch: Vec<Vec<f32>> = golden["torch_f32.top64_log_probs"].to_vec2().unwrap();
    let llama_cpp: Vec<Vec<f32>> = golden["llama_cpp.top64_log_probs"].to_vec2().unwrap();
    let f64s = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let theirs =
        torch.iter().zip(&llama_cpp).map(|(t, l)| coarse_kl(&f64s(t), &f64s(l))).sum::<f64>() / torch.len() as f64;
    println!("llama.cpp on the GGUF: mean KL to torch {theirs:.3e}");

    for (name, most) in [("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", theirs), ("hf", 1e-5)] {
        let model = Model::load(&Checkpoint::open(folder.join(name)).unwrap(), &Device::Cpu).unwrap();
        let logits = model.forward(&tokens, &mut model.new_cache(), LogitRows::All).unwrap();
        let (kl, same) = compare(&torch, &ids, &logits);
        println!("{name}: mean KL to torch {kl:.3e}, same top 1 {:.2} %", 100.0 * same);
        assert!(kl <= most, "{name}: {kl} > {most}");
    }
}
