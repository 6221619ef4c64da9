//! What the centre adds to the logits of a block: sums of waves over positions.
//!
//! A row has for each centred pair `A cos + B sin` of the pair's angle ([`centre`](crate::centre)). Turned to the middle of the block, a token behind it
//! gets `C + S`, the one as far before it `C - S`, with the sums C of the cosine parts and S of the sine parts.

use super::keys::STRIDE;
use super::queries::{MAX_ROWS, Queries};
use crate::centre::{Centres, Pairs};
use crate::simd::Simd;

/// Half a block, in tiles, at most.
const TILES: usize = STRIDE / 32;
/// Rows at a time, as registers allow.
const ROWS: usize = 4;

/// The waves of a head.
pub(crate) struct Waves<'a> {
    centres: &'a Centres,
    pairs: &'a Pairs,
    /// Twice the position of the middle that the angles are of.
    twice: Option<i64>,
    cos: Vec<f64>,
    sin: Vec<f64>,
    /// A row's waves, turned: parts of cosines, parts of sines, by pair.
    turned: (Vec<f32>, Vec<f32>),
}

impl<'a> Waves<'a> {
    /// `None` if nothing that turns is centred.
    pub(crate) fn new(centres: &'a Centres, head: usize) -> Option<Self> {
        let pairs = centres.pairs(head)?;
        let floats = vec![0.0; MAX_ROWS * pairs.len()];
        Some(Self { centres, pairs, twice: None, cos: Vec::new(), sin: Vec::new(), turned: (floats.clone(), floats) })
    }

    /// To the block of this first position.
    #[inline(always)]
    fn turn_to(&mut self, position: i64) {
        let tokens = self.centres.tokens() as i64;
        let twice = 2 * position + tokens - 1;
        match self.twice {
            Some(before) if before == twice => {}
            Some(before) if before + 2 * tokens == twice => {
                let steps = self.pairs.step.0.iter().zip(&self.pairs.step.1);
                for ((cos, sin), (c, s)) in self.cos.iter_mut().zip(&mut self.sin).zip(steps) {
                    (*cos, *sin) = (*cos * c - *sin * s, *sin * c + *cos * s);
                }
            }
            _ => {
                let angle = |f: &f64| (twice as f64 / 2.0 * f).sin_cos();
                (self.sin, self.cos) = self.pairs.frequency.iter().map(angle).unzip();
            }
        }
        self.twice = Some(twice);
    }

    /// Adds the waves of R rows to the logits, `[R][STRIDE]`, of a block whose first token has this position.
    ///
    /// # Safety
    /// The instruction set of S; `logits` has whole blocks of R rows; the queries' waves are of this head.
    #[inline(always)]
    pub(crate) unsafe fn add<S: Simd, const R: usize>(&mut self, q: &Queries, position: i64, logits: *mut f32) {
        self.turn_to(position);
        let n = self.pairs.len();
        for r in 0..R {
            let (a, b) = q.waves[2 * r * n..][..2 * n].split_at(n);
            let turned = self.turned.0[r * n..][..n].iter_mut().zip(&mut self.turned.1[r * n..][..n]);
            for ((x, y), ((a, b), (cos, sin))) in turned.zip(a.iter().zip(b).zip(self.cos.iter().zip(&self.sin))) {
                let (cos, sin) = (*cos as f32, *sin as f32);
                (*x, *y) = (a * cos + b * sin, b * cos - a * sin);
            }
        }
        let tokens = self.centres.tokens();
        // SAFETY: the caller's; a table has whole tiles of both halves of a block.
        unsafe {
            match tokens {
                64 => self.sums::<S, R, TILES>(n, logits),
                _ => self.sums::<S, R, 1>(n, logits),
            }
        }
    }

    /// # Safety
    /// As [`add`](Self::add); a block is of `32 HALF` tokens.
    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize, const HALF: usize>(&self, n: usize, logits: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            for first in (0..R).step_by(ROWS) {
                let zero = [[S::splat(0.0); HALF]; ROWS];
                let (mut even, mut odd) = (zero, zero);
                for (pair, table) in self.pairs.table.iter().enumerate() {
                    let (cos, sin) = self.centres.table(*table);
                    for t in 0..HALF {
                        let (cos, sin) = (S::load(cos.as_ptr().add(16 * t)), S::load(sin.as_ptr().add(16 * t)));
                        for r in 0..ROWS {
                            if first + r < R {
                                let at = (first + r) * n + pair;
                                even[r][t] = S::fma(S::splat(*self.turned.0.get_unchecked(at)), cos, even[r][t]);
                                odd[r][t] = S::fma(S::splat(*self.turned.1.get_unchecked(at)), sin, odd[r][t]);
                            }
                        }
                    }
                }
                for r in 0..ROWS.min(R - first) {
                    let logits = logits.add((first + r) * STRIDE);
                    for t in 0..HALF {
                        let behind = logits.add(16 * (HALF + t));
                        S::store(behind, S::add(S::load(behind), S::add(even[r][t], odd[r][t])));
                        let before = logits.add(16 * (HALF - 1 - t));
                        let mirrored = S::reversed(S::sub(even[r][t], odd[r][t]));
                        S::store(before, S::add(S::load(before), mirrored));
                    }
                }
            }
        }
    }
}
