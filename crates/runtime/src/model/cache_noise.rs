//! What a quantized cache does to attention, layer by layer, on real keys, values and queries.

use super::attention::Attention;
use super::{ActivationObserver, CacheChoice, LinearSite, LogitRows, Model};
use crate::Result;
use candle_core::Tensor;
use kv_cache_quant::{KvSpec, LayerCache};
use quant_kernels::{KvStore, attention};

/// Errors of attention over a quantized cache, of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CacheNoise {
    /// Error of the logits as a share of their variance, both without the mean of each row, which softmax does not see.
    pub logits: f64,
    /// Error of the outputs as a share of their power.
    pub output: f64,
}

/// Last tokens whose queries count.
const QUERIES: usize = 64;

impl Model {
    /// Runs `tokens` with the f32 cache, and beside it attention of the last 64 of them in each layer over a cache of `choice` that holds the same keys and
    /// values: the error that this layer's cache alone makes. Empty for f32.
    ///
    /// # Errors
    /// As [`forward`](Self::forward) and [`new_cache_of`](Self::new_cache_of).
    pub fn cache_noise(&self, choice: CacheChoice, tokens: &[u32]) -> Result<Vec<CacheNoise>> {
        let specs = self.cache_specs(choice)?;
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let mut observer = Observer { model: self, specs, noise: Vec::new() };
        self.forward_observed(tokens, &mut self.new_cache(), LogitRows::None, &mut observer)?;
        Ok(observer.noise)
    }
}

struct Observer<'a> {
    model: &'a Model,
    specs: Vec<KvSpec>,
    noise: Vec<CacheNoise>,
}

impl ActivationObserver for Observer<'_> {
    fn linear_input(&mut self, site: LinearSite, x: &Tensor) -> Result<()> {
        let LinearSite::AttentionInput(l) = site else { return Ok(()) };
        // Long sequences come in parts: the first is enough.
        let (Some(spec), true) = (self.specs.get(l), self.noise.len() == l) else { return Ok(()) };
        let config = &self.model.config;
        let (q, kv, heads) = (config.q_dim(), config.kv_dim(), config.num_heads);
        let (width, tokens) = (q + 2 * kv, x.dim(0)?);
        let mut qkv = self.model.qkv_rows(l, x)?;
        let table = self.model.rope.table(tokens);
        let qk_norm = self.model.layers.get(l).and_then(|layer| layer.qk_norm.as_ref());
        let part = Attention { config, qk_norm, table: &table, start: 0, own_kernels: true };
        part.norm_and_rotate(&mut qkv, width)?;

        let mut store = KvStore::new(config.num_kv_heads, config.head_dim);
        store.append(&qkv[q..], &qkv[q + kv..], width, tokens)?;
        let mut cache = LayerCache::new(spec.clone())?;
        cache.append(&qkv[q..], &qkv[q + kv..], width, tokens)?;
        let last = tokens.min(QUERIES);
        let queries = &qkv[(tokens - last) * width..];
        let (mut exact, mut found) = (vec![0.0; last * q], vec![0.0; last * q]);
        let options = part.options();
        attention(queries, width, last, heads, &store, options.window, options.scale, &mut exact)?;
        cache.attend(queries, width, last, heads, &options, &mut found)?;
        let error: f64 = exact.iter().zip(&found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let power: f64 = exact.iter().map(|a| f64::from(*a).powi(2)).sum();
        let logits = logit_noise(&cache, &qkv, queries, (q, kv, width))?;
        self.noise.push(CacheNoise { logits, output: error / power.max(f64::MIN_POSITIVE) });
        Ok(())
    }
}

/// As [`CacheNoise::logits`], of all queries with all keys before them.
fn logit_noise(cache: &LayerCache, qkv: &[f32], queries: &[f32], (q, kv, width): (usize, usize, usize)) -> Result<f64> {
    let (d, tokens) = (cache.spec().head_dim, cache.len());
    let mut keys = vec![0.0; tokens * kv];
    let mut values = keys.clone();
    cache.dequantize_all(&mut keys, &mut values)?;
    let (heads, kv_heads) = (q / d, kv / d);
    let last = queries.len() / width;
    let (mut noise, mut signal) = (0.0, 0.0);
    for (t, row) in queries.chunks_exact(width).enumerate() {
        let seen = tokens - last + t + 1;
        for head in 0..heads {
            let (query, kv_head) = (&row[head * d..][..d], head / (heads / kv_heads));
            let dot = |key: &[f32]| query.iter().zip(key).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let exact: Vec<f64> = (0..seen).map(|s| dot(&qkv[s * width + q + kv_head * d..][..d])).collect();
            let error: Vec<f64> = exact
                .iter()
                .enumerate()
                .map(|(s, exact)| dot(&keys[(kv_head * tokens + s) * d..][..d]) - exact)
                .collect();
            noise += variance(&error);
            signal += variance(&exact);
        }
    }
    Ok(noise / signal.max(f64::MIN_POSITIVE))
}

fn variance(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
    x.iter().map(|x| (x - mean).powi(2)).sum()
}
