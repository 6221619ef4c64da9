//! Rotary embedding: the angles of each position, with the long-context rules.
//!
//! RoPE: arXiv 2104.09864. YaRN: arXiv 2309.00071, in the form of transformers' `modeling_rope_utils.py` and ggml's `rope_yarn`. Llama 3.1's rule:
//! the same transformers file. All of it in f64; the cosines and sines are then rounded to f32.

use super::config::{RopeConfig, RopeScaling};
use kv_cache_quant::RopeSpec;
use std::f64::consts::PI;
use std::sync::{Arc, RwLock};

/// Cosines and sines of positions `0..len`, half a head each.
#[derive(Debug)]
pub(super) struct RopeTable {
    half: usize,
    /// `[len][half]`
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Cosines and sines of a position that the table was asked for.
    pub(super) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// The same of some positions, one after the other.
    pub(super) fn rows(&self, positions: std::ops::Range<usize>) -> (&[f32], &[f32]) {
        let range = positions.start * self.half..positions.end * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// The angles of a model; the table grows with the positions asked for.
#[derive(Debug)]
pub(super) struct Rope {
    frequencies: Vec<f64>,
    magnitude: f64,
    table: RwLock<Arc<RopeTable>>,
}

impl Rope {
    /// `divisors`: the values of `rope_freqs.weight`, by which the frequencies are divided.
    pub(super) fn new(config: &RopeConfig, divisors: Option<&[f32]>) -> Self {
        let (mut frequencies, magnitude) = frequencies(config);
        for (f, &d) in frequencies.iter_mut().zip(divisors.unwrap_or(&[])) {
            *f /= f64::from(d);
        }
        let empty = RopeTable { half: frequencies.len(), cos: Vec::new(), sin: Vec::new() };
        Self { frequencies, magnitude, table: RwLock::new(Arc::new(empty)) }
    }

    /// The same for a quantized cache.
    pub(super) fn spec(&self, layout: super::RopeLayout) -> RopeSpec {
        RopeSpec { frequencies: self.frequencies.clone(), magnitude: self.magnitude, layout: layout.into() }
    }

    /// A table that holds at least the positions below `len`.
    pub(super) fn table(&self, len: usize) -> Arc<RopeTable> {
        let half = self.frequencies.len();
        let holds = |table: &RopeTable| table.cos.len() >= len * half;
        // A poisoned lock still guards a whole table: it is only ever replaced.
        let current = self.table.read().unwrap_or_else(|e| e.into_inner()).clone();
        if holds(&current) {
            return current;
        }
        let mut slot = self.table.write().unwrap_or_else(|e| e.into_inner());
        if !holds(&slot) {
            let len = len.max(2 * slot.cos.len() / half.max(1)).next_multiple_of(256);
            let mut table = RopeTable { half, cos: slot.cos.clone(), sin: slot.sin.clone() };
            for position in slot.cos.len() / half.max(1)..len {
                for &f in &self.frequencies {
                    let (sin, cos) = (position as f64 * f).sin_cos();
                    table.cos.push((cos * self.magnitude) as f32);
                    table.sin.push((sin * self.magnitude) as f32);
                }
            }
            *slot = Arc::new(table);
        }
        slot.clone()
    }
}

/// Radians a position of each pair of channels, and the factor of cosines and sines.
fn frequencies(config: &RopeConfig) -> (Vec<f64>, f64) {
    let dim = config.dim as f64;
    let theta = f64::from(config.theta);
    let plain = (0..config.dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim));
    match config.scaling {
        RopeScaling::None => (plain.collect(), 1.0),
        RopeScaling::Linear { factor } => (plain.map(|f| f / f64::from(factor)).collect(), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let (factor, low, high) = (f64::from(factor), f64::from(low_freq_factor), f64::from(high_freq_factor));
            let scaled = plain.map(|f| {
                let turns = original_context as f64 * f / (2.0 * PI);
                if turns < low {
                    f / factor
                } else if turns > high {
                    f
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            });
            (scaled.collect(), 1.0)
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
            let factor = f64::from(factor);
            // The channel pair that makes so many turns within the original context.
            let pair =
                |turns: f32| dim * (original_context as f64 / (f64::from(turns) * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(dim - 1.0);
            let width = if high - low == 0.0 { 0.001 } else { high - low };
            let scaled = plain.enumerate().map(|(i, f)| {
                let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            });
            // Paper, equation 15 in front; no stretching (factor <= 1) needs none.
            let default = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
            (scaled.collect(), attention_factor.map_or(default, f64::from))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::RopeLayout;
    use super::*;

    fn config(theta: f32, dim: usize, scaling: RopeScaling) -> RopeConfig {
        RopeConfig { theta, dim, layout: RopeLayout::Halves, scaling }
    }

    #[test]
    fn grows_and_keeps() {
        let rope = Rope::new(&config(10_000.0, 8, RopeScaling::None), None);
        let first = rope.table(3);
        let second = rope.table(1000);
        assert_eq!(first.at(2), second.at(2));
        let (cos, sin) = second.at(999);
        for i in 0..4 {
            let angle = 999.0 * 10_000f64.powf(-(i as f64) / 4.0);
            assert_eq!((cos[i], sin[i]), (angle.cos() as f32, angle.sin() as f32));
        }
        assert_eq!(second.rows(998..1000).0.len(), 8);
    }

    /// `rope_freqs.weight`, as convert_hf_to_gguf.py writes it for Llama 3.1, says the same as the rule.
    #[test]
    fn llama3_divisors() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
        let (ruled, _) = frequencies(&config(500_000.0, 128, scaling));
        let (plain, _) = frequencies(&config(500_000.0, 128, RopeScaling::None));
        for (i, (ruled, plain)) in ruled.iter().zip(&plain).enumerate() {
            let wavelength = 2.0 * PI / plain;
            let divisor = if wavelength < 8192.0 / 4.0 {
                1.0
            } else if wavelength > 8192.0 {
                8.0
            } else {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                1.0 / ((1.0 - smooth) / 8.0 + smooth)
            };
            assert!((plain / divisor / ruled - 1.0).abs() < 1e-12, "{i}");
        }
    }
}
