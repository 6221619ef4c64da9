//! Errors of codecs on fixed data.
#![allow(dead_code, unreachable_pub)]

use kv_cache_quant::{Centre, KvSpec, LayerCache, PairLayout, RopeSpec};

#[path = "mod.rs"]
mod common;
use common::Normal;

const D: usize = 128;
const TOKENS: usize = 512;
const QUERIES: usize = 64;

/// How keys are centred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Centring {
    None,
    BlockMean,
    /// By the mean that was planted, this many pairs of it.
    Planted(usize),
}

/// A row of the table: a codec for keys and a centre.
pub struct Entry {
    pub name: &'static str,
    pub codec: &'static str,
    pub centring: Centring,
}

const fn row(name: &'static str, codec: &'static str, centring: Centring) -> Entry {
    Entry { name, codec, centring }
}

pub const ROWS: &[Entry] = &[
    row("f16", "f16", Centring::None),
    row("fp8 E4M3", "fp8", Centring::None),
    row("fp8 E4M3, centred", "fp8", Centring::Planted(64)),
    row("fp8 E5M2", "fp8-e5m2", Centring::None),
    row("ggml q8_0", "q8_0", Centring::None),
    row("ggml q8_0, rotated (llama.cpp)", "q8_0+rot", Centring::None),
    row("`int8`, not centred", "int8", Centring::None),
    row("`int8`", "int8", Centring::Planted(64)),
    row("ggml q5_1, rotated", "q5_1+rot", Centring::None),
    row("KIVI, 4 bits", "kivi4", Centring::None),
    row("ggml q4_0", "q4_0", Centring::None),
    row("ggml q4_0, rotated (llama.cpp)", "q4_0+rot", Centring::None),
    row("ggml iq4_nl, rotated", "iq4_nl+rot", Centring::None),
    row("`r4`, groups of 32", "r4g32", Centring::Planted(64)),
    row("`r4`, not centred", "r4", Centring::None),
    row("`r4`, block means", "r4", Centring::BlockMean),
    row("`r4`, 4 pairs centred", "r4", Centring::Planted(4)),
    row("`r4`, 8 pairs centred", "r4", Centring::Planted(8)),
    row("`r4`", "r4", Centring::Planted(64)),
    row("`r4`, groups of 128", "r4g128", Centring::Planted(64)),
    row("`r3`", "r3", Centring::Planted(64)),
    row("KIVI, 2 bits", "kivi2", Centring::None),
    row("`r2`, groups of 32", "r2g32", Centring::Planted(64)),
    row("`r2`", "r2", Centring::Planted(64)),
    row("`r2`, block means", "r2", Centring::BlockMean),
];

#[derive(Clone, Copy, Debug)]
pub struct Noise {
    pub bits: f64,
    /// Of normal keys, as a share of power.
    pub normal: f64,
    /// The same of values.
    #[allow(dead_code)]
    pub normal_values: f64,
    /// Of logits.
    pub mild: f64,
    pub biased: f64,
}

pub fn measure(entry: &Entry) -> Noise {
    let (normal, normal_values, bits) = normal(entry.codec);
    Noise {
        bits: if entry.centring == Centring::BlockMean { bits + 0.25 } else { bits },
        normal,
        normal_values,
        mild: logit_noise(entry, 0.30, 4, 7.0),
        biased: logit_noise(entry, 1.0, 10, 13.0),
    }
}

fn normal(codec: &str) -> (f64, f64, f64) {
    let mut cache = LayerCache::new(KvSpec::new(1, D, codec.parse().unwrap(), codec.parse().unwrap())).unwrap();
    let mut random = Normal::new(1);
    // Enough for three digits.
    let n = 16 * TOKENS;
    let (keys, values) = (random.vec(n * D), random.vec(n * D));
    cache.append(&keys, &values, D, n).unwrap();
    let (mut k, mut v) = (vec![0.0; D], vec![0.0; D]);
    let mut errors = [[0.0, 0.0]; 2];
    for t in 0..n {
        cache.dequantize(t, 0, &mut k, &mut v).unwrap();
        for ((found, given), sums) in [(&k, &keys), (&v, &values)].iter().zip(&mut errors) {
            for (a, b) in found.iter().zip(&given[t * D..]) {
                sums[0] += f64::from(a - b).powi(2);
                sums[1] += f64::from(*b).powi(2);
            }
        }
    }
    (errors[0][0] / errors[0][1], errors[1][0] / errors[1][1], cache.bits_per_value().0)
}

/// Error of logits as a share of their variance, both without the means of rows.
fn logit_noise(entry: &Entry, spread: f32, large: usize, size: f32) -> f64 {
    let rope = RopeSpec::plain(D, 1e6, PairLayout::Halves);
    let mut random = Normal::new(2);
    let mut mean: Vec<f32> = random.vec(D).iter().map(|x| x * spread).collect();
    for i in 0..large {
        // In one channel of a pair or the other, most among the slow pairs, as in trained models.
        let channel = 22 + i * 17 % 42 + D / 2 * (i % 2);
        mean[channel] = if i % 3 == 0 { -size } else { size } * (0.5 + (i % 4) as f32 / 4.0);
    }
    let mut keys = random.vec(TOKENS * D);
    for (t, key) in keys.chunks_exact_mut(D).enumerate() {
        key.iter_mut().zip(&mean).for_each(|(k, m)| *k += m);
        turn(&rope, key, t as f64);
    }
    let centre = match entry.centring {
        Centring::None => Centre::None,
        Centring::BlockMean => Centre::BlockMean,
        Centring::Planted(pairs) => Centre::BeforeRope { mean, pairs },
    };
    let spec = KvSpec::new(1, D, entry.codec.parse().unwrap(), "f16".parse().unwrap());
    let mut cache = LayerCache::new(spec.with_centre(centre).with_rope(rope.clone())).unwrap();
    cache.append(&keys, &keys, D, TOKENS).unwrap();
    let mut found = vec![0.0; TOKENS * D];
    for (t, key) in found.chunks_exact_mut(D).enumerate() {
        cache.dequantize(t, 0, key, &mut [0.0; D]).unwrap();
    }
    let (mut noise, mut signal) = (0.0, 0.0);
    for _ in 0..QUERIES {
        let mut q = random.vec(D);
        turn(&rope, &mut q, TOKENS as f64);
        let logits = |keys: &[f32]| -> Vec<f64> {
            let dot = |k: &[f32]| k.iter().zip(&q).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            keys.chunks_exact(D).map(dot).collect()
        };
        let variance = |x: &[f64]| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            x.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let (exact, found) = (logits(&keys), logits(&found));
        let error: Vec<f64> = exact.iter().zip(&found).map(|(a, b)| a - b).collect();
        noise += variance(&error);
        signal += variance(&exact);
    }
    noise / signal
}

fn turn(rope: &RopeSpec, x: &mut [f32], position: f64) {
    for (i, f) in rope.frequencies.iter().enumerate() {
        let (sin, cos) = (position * f).sin_cos();
        let (a, b) = (f64::from(x[i]), f64::from(x[i + D / 2]));
        (x[i], x[i + D / 2]) = ((a * cos - b * sin) as f32, (a * sin + b * cos) as f32);
    }
}
