//! Tests that cross crates, and what they share.

use candle_core::Device;
use quant_runtime::{Checkpoint, LogitRows, Model};
use std::path::{Path, PathBuf};

/// The workspace root.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file or folder of the bundled model.
pub fn bundled(name: &str) -> PathBuf {
    workspace().join("models/pocket-6m").join(name)
}

/// A file of the shared test data that lies beside the workspace; says so where it is missing, for the test to pass as skipped.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = workspace().join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: shared/{name} is not beside the workspace");
    None
}

/// How one row of logits differs from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowDivergence {
    /// Kullback-Leibler divergence of `softmax(logits)` from `softmax(base)`, nats.
    pub kl: f64,
    /// The largest logit is that of the same token.
    pub same_top1: bool,
}

/// Compares each row of `logits` with that of `base`.
///
/// # Panics
/// If the lengths do not fit.
pub fn divergences(base: &[f32], logits: &[f32], vocab: usize) -> Vec<RowDivergence> {
    assert_eq!(base.len(), logits.len());
    let rows = base.chunks_exact(vocab).zip(logits.chunks_exact(vocab));
    rows.map(|(base, logits)| {
        let (p, q) = (log_softmax(base), log_softmax(logits));
        let kl = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
        RowDivergence { kl, same_top1: top1(base) == top1(logits) }
    })
    .collect()
}

/// Mean divergence and the share of rows with the same first token.
pub fn mean(divergences: &[RowDivergence]) -> (f64, f64) {
    let n = divergences.len() as f64;
    let same = divergences.iter().filter(|d| d.same_top1).count() as f64;
    (divergences.iter().map(|d| d.kl).sum::<f64>() / n, same / n)
}

/// Logarithms of the softmax, in f64.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&v| (f64::from(v) - f64::from(max)).exp()).sum();
    logits.iter().map(|&v| f64::from(v) - f64::from(max) - sum.ln()).collect()
}

fn top1(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// The model of a file or directory.
pub fn load(path: &Path) -> Model {
    Model::load(&Checkpoint::open(path).unwrap(), &Device::Cpu).unwrap()
}

/// All logits of a sequence, at once.
pub fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let all = model.forward(tokens, &mut model.new_cache(), LogitRows::All).unwrap();
    all.flatten_all().unwrap().to_vec1().unwrap()
}

/// The same, token by token: by the kernels for few tokens.
pub fn logits_one_by_one(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut cache = model.new_cache();
    let row = |token: &u32| {
        let row = model.forward(&[*token], &mut cache, LogitRows::Last).unwrap();
        row.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    tokens.iter().flat_map(row).collect()
}
