//! The part of keys that is known beforehand: what is subtracted at a position, and what a query's logits get back for it.
//!
//! A mean `(a, b)` of a channel pair before the rotary embedding is at position p the vector `m (a cos - b sin, a sin + b cos)` with the angle
//! `p f`. With a query `(x, y)` that is `A cos + B sin`, `A = m (x a + y b)`, `B = m (y a - x b)`: two products per key, whatever the head's width.
//! Exact for the pairs chosen; the mean of the others stays in the keys. Counted from the middle of a block, cosines are even and sines odd, so that both
//! products serve two keys (`attend/waves.rs`).

use crate::encode::MAX_CHANNELS;
use crate::spec::{Centre, KvSpec, RopeSpec};

/// Positions between two angles that are computed from scratch; between them each comes from the one before.
const WINDOW: i64 = 64;

/// A head's centred channel pairs.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) channels: Vec<(usize, usize)>,
    /// Before the rotary embedding, times its magnitude.
    pub(crate) mean: Vec<(f32, f32)>,
    /// Radians per position.
    pub(crate) frequency: Vec<f64>,
    /// Cosines and sines of a block's length.
    pub(crate) step: (Vec<f64>, Vec<f64>),
    /// Index of the pair's cosines and sines among the tables.
    pub(crate) table: Vec<usize>,
}

/// What is subtracted from keys.
#[derive(Debug, Default)]
pub(crate) struct Centres {
    head_dim: usize,
    /// `[heads][head_dim]`, or empty: what is multiplied by the cosine, and by the sine, of a channel's angle.
    by_cos: Vec<f32>,
    by_sin: Vec<f32>,
    /// The part that does not turn, `[heads][head_dim]`, or empty.
    constant: Vec<f32>,
    /// The embedding's, if pairs are centred.
    rope: Option<RopeSpec>,
    /// Cosine and sine of each frequency.
    step: Vec<(f64, f64)>,
    /// Of each head.
    pairs: Vec<Pairs>,
    /// Cosines, then sines, of the second half of a block from its middle on: half a position, one and a half, ...
    tables: Vec<f32>,
    /// Tokens of a block.
    tokens: usize,
}

/// The angles of a position, by pair: cosines and sines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Angles {
    position: Option<i64>,
    cos: Vec<f64>,
    sin: Vec<f64>,
}

/// Cosine and sine of each channel's angle; 1 and 0 where nothing turns.
pub(crate) struct ByChannel {
    cos: [f32; MAX_CHANNELS],
    sin: [f32; MAX_CHANNELS],
}

impl ByChannel {
    pub(crate) fn new() -> Self {
        Self { cos: [1.0; MAX_CHANNELS], sin: [0.0; MAX_CHANNELS] }
    }
}

impl Centres {
    pub(crate) fn new(spec: &KvSpec) -> Self {
        let empty = Self { head_dim: spec.head_dim, tokens: spec.block, ..Self::default() };
        match (&spec.centre, &spec.rope) {
            (Centre::Constant(mean), _) => Self { constant: mean.clone(), ..empty },
            (Centre::BeforeRope { mean, pairs }, Some(rope)) => empty.before_rope(mean, *pairs, rope),
            _ => empty,
        }
        .with_channels()
    }

    fn before_rope(mut self, mean: &[f32], most: usize, rope: &RopeSpec) -> Self {
        let turned = 2 * rope.frequencies.len();
        // What the embedding does not turn is the same everywhere.
        if turned < self.head_dim {
            self.constant = mean.to_vec();
            self.constant.chunks_exact_mut(self.head_dim).for_each(|head| head[..turned].fill(0.0));
        }
        let mut index = vec![None; rope.frequencies.len()];
        let mut used = 0;
        for head in mean.chunks_exact(self.head_dim) {
            let size = |i: usize| {
                let (a, b) = rope.channels(i);
                head[a].hypot(head[b])
            };
            let mut order: Vec<usize> = (0..rope.frequencies.len()).filter(|&i| size(i) > 0.0).collect();
            order.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
            order.truncate(most);
            order.sort_unstable();
            let mut pairs = Pairs::default();
            for i in order {
                let channels = rope.channels(i);
                let scaled = |c: usize| (f64::from(head[c]) * rope.magnitude) as f32;
                let table = *index[i].get_or_insert_with(|| {
                    used += 1;
                    used - 1
                });
                if (table + 1) * self.tokens > self.tables.len() {
                    let half = 0..self.tokens / 2;
                    let angle = |t: usize| (t as f64 + 0.5) * rope.frequencies[i];
                    self.tables.extend(half.clone().map(|t| angle(t).cos() as f32));
                    self.tables.extend(half.map(|t| angle(t).sin() as f32));
                }
                pairs.channels.push(channels);
                pairs.mean.push((scaled(channels.0), scaled(channels.1)));
                pairs.frequency.push(rope.frequencies[i]);
                pairs.table.push(table);
                let (sin, cos) = (self.tokens as f64 * rope.frequencies[i]).sin_cos();
                pairs.step.0.push(cos);
                pairs.step.1.push(sin);
            }
            self.pairs.push(pairs);
        }
        if used > 0 {
            self.rope = Some(rope.clone());
            self.step = rope.frequencies.iter().map(|f| (f.cos(), f.sin())).collect();
        }
        self
    }

    /// Fills in what is multiplied by cosines and sines.
    fn with_channels(mut self) -> Self {
        self.by_cos = self.constant.clone();
        if self.rope.is_some() {
            let d = self.head_dim;
            self.by_cos.resize(self.pairs.len() * d, 0.0);
            self.by_sin.resize(self.pairs.len() * d, 0.0);
            for (head, pairs) in self.pairs.iter().enumerate() {
                for (&(i, j), &(a, b)) in pairs.channels.iter().zip(&pairs.mean) {
                    (self.by_cos[head * d + i], self.by_cos[head * d + j]) = (a, b);
                    (self.by_sin[head * d + i], self.by_sin[head * d + j]) = (-b, a);
                }
            }
        }
        self
    }

    /// Moves to a position. What is found there does not depend on where it was before.
    #[inline(always)]
    pub(crate) fn turn_to(&self, position: i64, angles: &mut Angles) {
        let Some(rope) = &self.rope else { return };
        if angles.position == Some(position) {
            return;
        }
        if angles.position.is_none_or(|p| p.checked_add(1) != Some(position)) || position.rem_euclid(WINDOW) == 0 {
            let from = position - position.rem_euclid(WINDOW);
            let (sin, cos) = rope.frequencies.iter().map(|f| (from as f64 * f).sin_cos()).unzip();
            *angles = Angles { position: Some(from), cos, sin };
        }
        let steps = position - angles.position.unwrap_or(position);
        for ((c, s), (cos, sin)) in self.step.iter().zip(angles.cos.iter_mut().zip(&mut angles.sin)) {
            for _ in 0..steps {
                (*cos, *sin) = (*cos * c - *sin * s, *sin * c + *cos * s);
            }
        }
        angles.position = Some(position);
    }

    /// The angles by channel.
    #[inline(always)]
    pub(crate) fn by_channel(&self, angles: &Angles, out: &mut ByChannel) {
        let Some(rope) = &self.rope else { return };
        for (i, (cos, sin)) in angles.cos.iter().zip(&angles.sin).enumerate() {
            let (a, b) = rope.channels(i);
            (out.cos[a], out.sin[a]) = (*cos as f32, *sin as f32);
            (out.cos[b], out.sin[b]) = (*cos as f32, *sin as f32);
        }
        let rest = 2 * rope.frequencies.len()..self.head_dim;
        out.cos[rest.clone()].fill(1.0);
        out.sin[rest].fill(0.0);
    }

    /// `x - sign * centre` at a position of these angles: 1 to subtract, -1 to add.
    #[inline(always)]
    pub(crate) fn subtract(&self, head: usize, angles: &ByChannel, sign: f32, x: &mut [f32]) {
        let range = head * self.head_dim..(head + 1) * self.head_dim;
        let Some(by_cos) = self.by_cos.get(range.clone()) else { return };
        match self.by_sin.get(range) {
            Some(by_sin) => {
                let parts = by_cos.iter().zip(by_sin).zip(angles.cos.iter().zip(&angles.sin));
                for (x, ((a, b), (cos, sin))) in x.iter_mut().zip(parts) {
                    *x -= sign * (a * cos + b * sin);
                }
            }
            None => x.iter_mut().zip(by_cos).for_each(|(x, c)| *x -= sign * c),
        }
    }

    /// What a query gets back wherever the key is.
    pub(crate) fn constant_logit(&self, head: usize, q: &[f32]) -> f32 {
        let constant = self.constant.get(head * self.head_dim..(head + 1) * self.head_dim);
        constant.map_or(0.0, |constant| q.iter().zip(constant).map(|(q, c)| q * c).sum())
    }

    /// A head's pairs.
    pub(crate) fn pairs(&self, head: usize) -> Option<&Pairs> {
        self.pairs.get(head).filter(|pairs| !pairs.mean.is_empty())
    }

    /// Cosines and sines of a table.
    #[inline(always)]
    pub(crate) fn table(&self, table: usize) -> (&[f32], &[f32]) {
        self.tables[table * self.tokens..][..self.tokens].split_at(self.tokens / 2)
    }

    /// Tokens of a block.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Pairs {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.mean.len()
    }

    /// A query's `A` of each pair, then its `B`s.
    pub(crate) fn waves(&self, q: &[f32], out: &mut Vec<f32>) {
        let parts = || self.channels.iter().zip(&self.mean);
        out.extend(parts().map(|(&(i, j), &(a, b))| q[i] * a + q[j] * b));
        out.extend(parts().map(|(&(i, j), &(a, b))| q[j] * a - q[i] * b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PairLayout;

    #[test]
    fn angles_do_not_depend_on_the_way() {
        let key = "int8".parse().unwrap();
        let spec = KvSpec::new(1, 16, key, key).with_rope(RopeSpec::plain(16, 1e4, PairLayout::Halves));
        let centres = Centres::new(&spec.with_centre(Centre::BeforeRope { mean: vec![1.0; 16], pairs: 8 }));
        let mut angles = Angles::default();
        for position in (0..200).chain([150, 151, 64, 63, 1 << 40, -5, -4]) {
            centres.turn_to(position, &mut angles);
            let mut direct = Angles::default();
            centres.turn_to(position, &mut direct);
            assert_eq!((&angles.cos, &angles.sin), (&direct.cos, &direct.sin), "position {position}");
            let exact = (position as f64 * 1e4f64.powf(-0.25)).sin_cos();
            assert!((angles.sin[2] - exact.0).abs() < 1e-12 && (angles.cos[2] - exact.1).abs() < 1e-12);
        }
    }
}
