//! What the keys of a layer have in common before the rotary embedding: the centre of a quantized cache.

use super::{ActivationObserver, LinearSite, LogitRows, Model};
use crate::Result;
use candle_core::{Device, Tensor};

/// Tokens that the means are taken over.
const TOKENS: usize = 96;
/// First tokens left out: models put keys of their own there.
const SKIPPED: usize = 4;

impl Model {
    /// Means of each layer's keys before the rotary embedding, `[kv_heads, head_dim]`, over a short run of tokens from all of the vocabulary. Measured once.
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
        let sums = vec![vec![0.0; self.config.kv_dim()]; self.layers.len()];
        let mut means = Means { model: self, sums, count: 1.0 };
        self.forward_observed(&tokens, &mut self.new_cache(), LogitRows::None, &mut means)?;
        let mean = |sum: &Vec<f64>| sum.iter().map(|s| (s / means.count) as f32).collect();
        let means = means.sums.iter().map(mean).collect();
        Ok(self.key_means.get_or_init(|| means))
    }

    /// Queries, keys and values of a layer before the rotary embedding, a row a token, from its normed input; heads are not normed yet.
    pub(super) fn qkv_rows(&self, l: usize, x: &Tensor) -> Result<Vec<f32>> {
        let Some(layer) = self.layers.get(l) else { return Ok(Vec::new()) };
        let qkv = layer.qkv.forward(&self.backend, x)?.to_device(&Device::Cpu)?;
        Ok(qkv.flatten_all()?.to_vec1()?)
    }
}

struct Means<'a> {
    model: &'a Model,
    sums: Vec<Vec<f64>>,
    count: f64,
}

impl ActivationObserver for Means<'_> {
    fn linear_input(&mut self, site: LinearSite, x: &Tensor) -> Result<()> {
        let LinearSite::AttentionInput(l) = site else { return Ok(()) };
        let (Some(layer), Some(sums)) = (self.model.layers.get(l), self.sums.get_mut(l)) else { return Ok(()) };
        let (q, kv) = (self.model.config.q_dim(), self.model.config.kv_dim());
        let mut qkv = self.model.qkv_rows(l, x)?;
        let mut count = 0.0;
        let mut scratch = Vec::new();
        for row in qkv.chunks_exact_mut(q + 2 * kv).skip(SKIPPED) {
            let keys = &mut row[q..q + kv];
            if let Some(norm) = &layer.qk_norm {
                norm.k.in_place(keys, &mut scratch)?;
            }
            sums.iter_mut().zip(keys).for_each(|(sum, x)| *sum += f64::from(*x));
            count += 1.0;
        }
        self.count = f64::max(count, 1.0);
        Ok(())
    }
}
