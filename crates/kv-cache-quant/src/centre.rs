//! The part of keys that is known beforehand: what is subtracted at a position, and what a query's logits get back for it.
//!
//! A mean `(a, b)` of a channel pair before the rotary embedding is at position p the vector `m (a cos - b sin, a sin + b cos)` with the angle
//! `p f`. With a query `(x, y)` that is `A cos + B sin`, `A = m (x a + y b)`, `B = m (y a - x b)`: two products per key, whatever the head's width.
//! Exact for the pairs chosen; the mean of the others stays in the keys.

use crate::spec::{Centre, KvSpec, RopeSpec};

/// A channel pair that is centred.
#[derive(Clone, Copy, Debug)]
struct Pair {
    channels: (usize, usize),
    mean: (f32, f32),
    /// Index among the frequencies in use.
    frequency: usize,
}

/// What is subtracted from keys.
#[derive(Debug, Default)]
pub(crate) struct Centres {
    /// `[heads][head_dim]`, or empty.
    constant: Vec<f32>,
    head_dim: usize,
    /// Of each head.
    pairs: Vec<Vec<Pair>>,
    /// In use.
    frequencies: Vec<f64>,
    /// Cosines and sines of 64 positions, `[frequency][64]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Cosine and sine of a block's length, by frequency.
    block: Vec<(f64, f64)>,
    /// Tokens of a block.
    tokens: usize,
}

/// Positions in the tables.
const TABLE: usize = 64;

impl Centres {
    pub(crate) fn new(spec: &KvSpec) -> Self {
        let empty = Self { head_dim: spec.head_dim, tokens: spec.block, ..Self::default() };
        match (&spec.centre, &spec.rope) {
            (Centre::Constant(mean), _) => Self { constant: mean.clone(), ..empty },
            (Centre::BeforeRope { mean, pairs }, Some(rope)) => empty.before_rope(mean, *pairs, rope),
            _ => empty,
        }
    }

    fn before_rope(mut self, mean: &[f32], most: usize, rope: &RopeSpec) -> Self {
        let turned = 2 * rope.frequencies.len();
        // What the embedding does not turn is the same everywhere.
        if turned < self.head_dim {
            self.constant = mean.to_vec();
            self.constant.chunks_exact_mut(self.head_dim).for_each(|head| head[..turned].fill(0.0));
        }
        let mut index = vec![None; rope.frequencies.len()];
        for head in mean.chunks_exact(self.head_dim) {
            let size = |i: usize| {
                let (a, b) = rope.channels(i);
                head[a].hypot(head[b])
            };
            let mut order: Vec<usize> = (0..rope.frequencies.len()).filter(|&i| size(i) > 0.0).collect();
            order.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
            order.truncate(most);
            order.sort_unstable();
            let pair = |i: usize| {
                let channels = rope.channels(i);
                let scaled = |c: usize| (f64::from(head[c]) * rope.magnitude) as f32;
                let frequency = *index[i].get_or_insert_with(|| {
                    self.frequencies.push(rope.frequencies[i]);
                    self.frequencies.len() - 1
                });
                Pair { channels, mean: (scaled(channels.0), scaled(channels.1)), frequency }
            };
            self.pairs.push(order.into_iter().map(pair).collect());
        }
        for &f in &self.frequencies {
            for t in 0..TABLE {
                let (sin, cos) = (t as f64 * f).sin_cos();
                self.cos.push(cos as f32);
                self.sin.push(sin as f32);
            }
        }
        let turn = |f: &f64| {
            let (sin, cos) = (self.tokens as f64 * f).sin_cos();
            (cos, sin)
        };
        self.block = self.frequencies.iter().map(turn).collect();
        self
    }

    /// Cosine and sine at a position of each frequency in use.
    pub(crate) fn angles(&self, position: i64, out: &mut Vec<(f64, f64)>) {
        out.clear();
        out.extend(self.frequencies.iter().map(|f| {
            let (sin, cos) = (position as f64 * f).sin_cos();
            (cos, sin)
        }));
    }

    /// The same a block further.
    #[inline(always)]
    pub(crate) fn next_block(&self, angles: &mut [(f64, f64)]) {
        for ((cos, sin), (c, s)) in angles.iter_mut().zip(&self.block) {
            (*cos, *sin) = (*cos * c - *sin * s, *sin * c + *cos * s);
        }
    }

    /// `x - sign * centre` at a position of these angles: 1 to subtract, -1 to add.
    #[inline(always)]
    pub(crate) fn subtract(&self, head: usize, angles: &[(f64, f64)], sign: f32, x: &mut [f32]) {
        if let Some(constant) = self.constant.get(head * self.head_dim..(head + 1) * self.head_dim) {
            x.iter_mut().zip(constant).for_each(|(x, c)| *x -= sign * c);
        }
        for pair in self.pairs.get(head).map_or(&[][..], |p| p) {
            let (cos, sin) = angles[pair.frequency];
            let (cos, sin) = (cos as f32, sin as f32);
            let ((i, j), (a, b)) = (pair.channels, pair.mean);
            x[i] -= sign * (a * cos - b * sin);
            x[j] -= sign * (a * sin + b * cos);
        }
    }

    /// What a query gets back wherever the key is.
    pub(crate) fn constant_logit(&self, head: usize, q: &[f32]) -> f32 {
        let constant = self.constant.get(head * self.head_dim..(head + 1) * self.head_dim);
        constant.map_or(0.0, |constant| q.iter().zip(constant).map(|(q, c)| q * c).sum())
    }

    /// Pairs of a head.
    pub(crate) fn pairs(&self, head: usize) -> usize {
        self.pairs.get(head).map_or(0, Vec::len)
    }

    /// A query's `A` and `B` of each pair.
    pub(crate) fn waves(&self, head: usize, q: &[f32], out: &mut Vec<(f32, f32)>) {
        out.extend(self.pairs.get(head).map_or(&[][..], |p| p).iter().map(|pair| {
            let ((i, j), (a, b)) = (pair.channels, pair.mean);
            (q[i] * a + q[j] * b, q[j] * a - q[i] * b)
        }));
    }

    /// Cosine and sine of a head's pair at the positions of these angles.
    #[inline(always)]
    pub(crate) fn angle(&self, head: usize, pair: usize, angles: &[(f64, f64)]) -> (f32, f32) {
        let (cos, sin) = angles[self.pairs[head][pair].frequency];
        (cos as f32, sin as f32)
    }

    /// Cosines and sines of a head's pair at positions 0 to 63.
    #[inline(always)]
    pub(crate) fn tables(&self, head: usize, pair: usize) -> (&[f32; TABLE], &[f32; TABLE]) {
        let at = self.pairs[head][pair].frequency;
        (&self.cos.as_chunks().0[at], &self.sin.as_chunks().0[at])
    }
}
