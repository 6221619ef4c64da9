//! What the keys of a layer have in common before the rotary embedding: the centre of a quantized cache.

use super::{ActivationObserver, LinearSite, LogitRows, Model};
use crate::Result;
use candle_core::{Device, Tensor};
use kv_cache_quant::{PairLayout, RopeSpec};

/// Tokens that the means are taken over.
const TOKENS: usize = 96;
/// First tokens left out: models put keys of their own there.
const SKIPPED: usize = 4;

impl Model {
    /// Means of each layer's keys before the rotary embedding, `[kv_heads, head_dim]`, over a short run of tokens from all of the vocabulary, zero
    /// where they are not worth centring. Measured once.
    ///
    /// The run knows nothing of the text to come, and need not: a mean is what biases and norms make of any text, and whatever it is, attention stays
    /// exact, for the cache gives back what it takes away.
    pub(super) fn key_means(&self) -> Result<&[Vec<f32>]> {
        if let Some(means) = self.key_means.get() {
            return Ok(means);
        }
        let (vocab, n) = (self.config.vocab_size, TOKENS.min(self.config.max_context));
        // Steps of the golden section reach every part of the vocabulary.
        let tokens: Vec<u32> = (0..n).map(|i| ((i as f64 * 0.618_033_988_75).fract() * vocab as f64) as u32).collect();
        let sums = vec![vec![(0.0, 0.0); self.config.kv_dim()]; self.layers.len()];
        let mut means = Means { model: self, sums, count: 1.0 };
        self.forward_observed(&tokens, &mut self.new_cache(), LogitRows::None, &mut means)?;
        let rope = self.rope.spec(self.config.rope.layout);
        let mean_of_layer = |sums: &Vec<(f64, f64)>| {
            let head = |sums: &[(f64, f64)]| worthwhile(sums, means.count, &rope);
            sums.chunks_exact(self.config.head_dim).flat_map(head).collect()
        };
        let means = means.sums.iter().map(mean_of_layer).collect();
        Ok(self.key_means.get_or_init(|| means))
    }

    /// Queries, keys and values of a layer before the rotary embedding, a row a token, from its normed input; heads are not normed yet.
    pub(super) fn qkv_rows(&self, l: usize, x: &Tensor) -> Result<Vec<f32>> {
        let Some(layer) = self.layers.get(l) else { return Ok(Vec::new()) };
        let qkv = layer.qkv.forward(&self.backend, x)?.to_device(&Device::Cpu)?;
        Ok(qkv.flatten_all()?.to_vec1()?)
    }
}

/// Pairs whose means together are at most this share of a head's variance are not centred: that much more error than with all of them, and each
/// pair costs time. A mean over [`TOKENS`] has a hundredth of the variance by chance.
const NEGLIGIBLE: f64 = 0.03;

/// A head's mean, from sums of its channels and of their squares, without the smallest of those channel pairs that the rotary embedding turns.
fn worthwhile(sums: &[(f64, f64)], count: f64, rope: &RopeSpec) -> Vec<f32> {
    let mut mean: Vec<f32> = sums.iter().map(|(sum, _)| (sum / count) as f32).collect();
    let variance: f64 = sums.iter().map(|(sum, squares)| squares / count - (sum / count).powi(2)).sum();
    let n = rope.frequencies.len();
    let channels = |pair: usize| match rope.layout {
        PairLayout::Halves => (pair, pair + n),
        PairLayout::Adjacent => (2 * pair, 2 * pair + 1),
    };
    let power = |pair: usize| {
        let (a, b) = channels(pair);
        f64::from(mean[a]).powi(2) + f64::from(mean[b]).powi(2)
    };
    let mut pairs: Vec<(f64, usize)> = (0..n).map(|pair| (power(pair), pair)).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut left_out = 0.0;
    for (power, pair) in pairs {
        left_out += power;
        if left_out > NEGLIGIBLE * variance {
            break;
        }
        let (a, b) = channels(pair);
        (mean[a], mean[b]) = (0.0, 0.0);
    }
    mean
}

struct Means<'a> {
    model: &'a Model,
    /// Of each layer's channels, of them and of their squares.
    sums: Vec<Vec<(f64, f64)>>,
    count: f64,
}

impl ActivationObserver for Means<'_> {
    fn linear_input(&mut self, site: LinearSite, x: &Tensor) -> Result<()> {
        let LinearSite::AttentionInput(l) = site else { return Ok(()) };
        let (Some(layer), Some(sums)) = (self.model.layers.get(l), self.sums.get_mut(l)) else { return Ok(()) };
        let (q, kv) = (self.model.config.q_dim(), self.model.config.kv_dim());
        let mut qkv = self.model.qkv_rows(l, x)?;
        let mut count = 0.0;
        for row in qkv.chunks_exact_mut(q + 2 * kv).skip(SKIPPED) {
            let keys = &mut row[q..q + kv];
            if let Some(norm) = &layer.qk_norm {
                norm.k.in_place(keys)?;
            }
            for ((sum, squares), x) in sums.iter_mut().zip(keys) {
                let x = f64::from(*x);
                *sum += x;
                *squares += x * x;
            }
            count += 1.0;
        }
        self.count = f64::max(count, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_means_are_left_out() {
        // Variance 1 in each of 8 channels: 0.24 of power may go.
        let means = [3.0, 0.1, 0.2, 0.4, 0.0, 0.1, -0.2, 0.3];
        let sums: Vec<(f64, f64)> = means.iter().map(|m| (10.0 * m, 10.0 * (m * m + 1.0))).collect();
        let rope = |layout| RopeSpec::plain(8, 1e4, layout);
        let kept = |layout| worthwhile(&sums, 10.0, &rope(layout));
        // Pairs (0, 4), (1, 5), (2, 6), (3, 7): 9, 0.02, 0.08, 0.25.
        assert_eq!(kept(PairLayout::Halves), [3.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.3]);
        // Pairs (0, 1), (2, 3), (4, 5), (6, 7): 9.01, 0.2, 0.01, 0.13; the second would be too much.
        assert_eq!(kept(PairLayout::Adjacent), [3.0, 0.1, 0.2, 0.4, 0.0, 0.0, 0.0, 0.0]);
        // What is not turned stays.
        let some = worthwhile(&sums, 10.0, &RopeSpec::plain(4, 1e4, PairLayout::Halves));
        assert_eq!(some, [3.0, 0.0, 0.2, 0.0, 0.0, 0.1, -0.2, 0.3]);
    }
}
