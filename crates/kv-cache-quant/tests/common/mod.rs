//! Values that are the same in every run, and attention in f64 as the oracle.
#![allow(dead_code, unreachable_pub)]

use kv_cache_quant::{Attend, LayerCache};

/// Standard normal numbers by a fixed generator.
pub struct Normal(u64);

impl Normal {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn uniform(&mut self) -> f64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn next(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }

    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// Attention over what the cache stands for, in f64: `[tokens, heads, d]`.
pub fn naive(cache: &LayerCache, q: &[f32], tokens: usize, heads: usize, options: &Attend<'_>) -> Vec<f64> {
    let (d, kv_heads) = (cache.spec().head_dim, cache.spec().kv_heads);
    let n = cache.len();
    let mut keys = vec![0.0; n * kv_heads * d];
    let mut values = keys.clone();
    for t in 0..n {
        for h in 0..kv_heads {
            let range = (t * kv_heads + h) * d..(t * kv_heads + h + 1) * d;
            cache.dequantize(t, h, &mut keys[range.clone()], &mut values[range]).unwrap();
        }
    }
    let mut out = vec![0.0; tokens * heads * d];
    for t in 0..tokens {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            let q = &q[(t * heads + h) * d..][..d];
            let end = n - tokens + t + 1;
            let start = options.window.map_or(0, |w| end.saturating_sub(w));
            let mut logits: Vec<(usize, f64)> = (0..end)
                .filter(|&s| s >= start || s < options.always)
                .map(|s| {
                    let k = &keys[(s * kv_heads + kv) * d..][..d];
                    let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let l = dot * f64::from(options.scale);
                    (s, options.softcap.map_or(l, |cap| f64::from(cap) * (l / f64::from(cap)).tanh()))
                })
                .collect();
            let sink = options.sink_logits.map(|s| f64::from(s[h]));
            let most = logits.iter().map(|&(_, l)| l).chain(sink).fold(f64::NEG_INFINITY, f64::max);
            logits.iter_mut().for_each(|(_, l)| *l = (*l - most).exp());
            let sum: f64 = logits.iter().map(|&(_, p)| p).sum::<f64>() + sink.map_or(0.0, |s| (s - most).exp());
            for (s, p) in logits {
                let v = &values[(s * kv_heads + kv) * d..][..d];
                for c in 0..d {
                    out[(t * heads + h) * d + c] += p / sum * f64::from(v[c]);
                }
            }
        }
    }
    out
}

/// `sqrt(sum (a - b)^2 / sum b^2)`.
pub fn relative(a: &[f32], b: &[f64]) -> f64 {
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum();
    (error / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}
