//! The affine integer grid, `w = scale · (code − zero)`, as a [`GroupCodec`].

use crate::codec::GroupCodec;
use crate::{Options, ScaleSearch};
use half::f16;
use quant_core::affine::Bits;

/// Codes of 2 to 8 bits with an f16 scale and an integer zero point per group.
///
/// Scales are rounded to f16 here, before anything is rounded with them, so that what the solver makes good is the error of the weights
/// as a checkpoint gives them back. Codes round to the nearest, ties to even. A group of zeros gets a scale as if it reached from
/// -1 to 1, as in the authors' code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineGrid {
    bits: Bits,
    symmetric: bool,
    search: ScaleSearch,
}

/// Scale and zero point of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AffineParams {
    /// An f16 value, not 0; infinite where the weights ask for more than f16 holds.
    pub scale: f32,
    /// A whole number from 0 to the largest code.
    pub zero: f32,
}

/// Ranges that the search tries.
const CANDIDATES: u8 = 20;
/// Scales beside the fitted one that are tried with error feedback.
const STEPS: [f32; 4] = [0.94, 0.97, 1.03, 1.06];

impl AffineGrid {
    /// The grid that `options` ask for.
    pub fn new(options: &Options) -> Self {
        Self { bits: options.bits, symmetric: options.symmetric, search: options.search }
    }

    #[inline(always)]
    fn max(&self) -> f32 {
        f32::from(self.bits.max_code())
    }

    /// `code − zero` of a weight, given as a number of steps.
    #[inline(always)]
    fn nearest(&self, zero: f32, steps: f32) -> f32 {
        (steps.round_ties_even() + zero).max(0.0).min(self.max()) - zero
    }

    /// `Σ importance · (w − value)²`. Multiplies by the scale's inverse: next to a tie that can take the other of two equally good codes.
    #[inline(always)]
    fn error(&self, params: &AffineParams, weights: &[f32], importance: &[f32]) -> f32 {
        let inverse = 1.0 / params.scale;
        let [error] = sums(
            weights,
            importance,
            #[inline(always)]
            |weight, importance| {
                let error = weight - params.scale * self.nearest(params.zero, weight * inverse);
                [importance * error * error]
            },
        );
        error
    }

    /// The best scale for the codes that `params` give, a quotient of sums.
    #[inline(always)]
    fn refined(&self, params: &AffineParams, weights: &[f32], importance: &[f32]) -> AffineParams {
        let inverse = 1.0 / params.scale;
        let [cross, square] = sums(
            weights,
            importance,
            #[inline(always)]
            |weight, importance| {
                let steps = self.nearest(params.zero, weight * inverse);
                let weighted = importance * steps;
                [weighted * weight, weighted * steps]
            },
        );
        if square > 0.0 { AffineParams { scale: to_f16(cross / square), ..*params } } else { *params }
    }

    /// The parameters whose grid just holds `low..=high`, which holds 0.
    #[inline(always)]
    fn spanning(&self, low: f32, high: f32) -> AffineParams {
        let scale = to_f16(high / self.max() - low / self.max());
        AffineParams { scale, zero: self.nearest(0.0, -low / scale) }
    }

    /// How many ranges are tried, and the share of the whole that the least of them has.
    fn shares(&self) -> (u8, f32) {
        match (self.search, self.bits.get()) {
            (ScaleSearch::MinMax, _) => (1, 1.0),
            (_, 2) => (CANDIDATES, 0.3),
            (_, 3) => (CANDIDATES, 0.5),
            (_, 4) => (CANDIDATES, 0.6),
            (_, 5) => (CANDIDATES, 0.7),
            _ => (CANDIDATES, 0.85),
        }
    }

    /// The grid for a share of the range from `low`, at most 0, to `high`, at least 0. One side of a symmetric grid has a code more: the
    /// larger side lies there, unless `opposite`.
    #[inline(always)]
    fn candidate(&self, low: f32, high: f32, opposite: bool) -> AffineParams {
        if !self.symmetric {
            return self.spanning(low, high);
        }
        let middle = f32::from(self.bits.middle());
        let largest = if -low > high { low } else { high };
        let scale = if opposite { largest / (middle - 1.0) } else { -largest / middle };
        AffineParams { scale: to_f16(scale), zero: middle }
    }
}

/// The nearest f16, but not 0: that would divide by it, and make all weights of the group 0.
#[inline(always)]
fn to_f16(scale: f32) -> f32 {
    let rounded = f16::from_f32(scale).to_f32();
    if rounded == 0.0 { f16::from_bits(1).to_f32().copysign(scale) } else { rounded }
}

/// Sums of `terms(weight, importance)`, in sixteen parts so that they vectorize; the parts are added in order.
#[inline(always)]
fn sums<const N: usize>(weights: &[f32], importance: &[f32], terms: impl Fn(f32, f32) -> [f32; N]) -> [f32; N] {
    const WIDE: usize = 16;
    let mut parts = [[0.0f32; WIDE]; N];
    let (weights, importance) = (weights.as_chunks::<WIDE>(), importance.as_chunks::<WIDE>());
    for (weights, importance) in weights.0.iter().zip(importance.0) {
        for lane in 0..WIDE {
            let terms = terms(weights[lane], importance[lane]);
            for part in 0..N {
                parts[part][lane] += terms[part];
            }
        }
    }
    for (lane, (&weight, &importance)) in weights.1.iter().zip(importance.1).enumerate() {
        let terms = terms(weight, importance);
        for part in 0..N {
            parts[part][lane] += terms[part];
        }
    }
    parts.map(|part| part.iter().sum())
}

impl GroupCodec for AffineGrid {
    type Params = AffineParams;

    #[inline(always)]
    fn fit(&self, weights: &[f32], importance: &[f32]) -> AffineParams {
        let (mut low, mut high) = (0.0f32, 0.0f32);
        for &weight in weights {
            low = low.min(weight);
            high = high.max(weight);
        }
        if low == 0.0 && high == 0.0 {
            (low, high) = (-1.0, 1.0);
        }
        // Only the search by the Hessian knows columns of more and of less importance.
        let alike;
        let importance = if self.search == ScaleSearch::Hessian {
            importance
        } else {
            alike = vec![1.0; weights.len()];
            &alike
        };
        let mut best = (f32::INFINITY, self.candidate(low, high, false));
        let (shares, least) = self.shares();
        let signs = if self.symmetric { 2 } else { 1 };
        // The last two refine the best so far: with the better scale other codes may be nearest, so twice.
        let candidates = shares * signs + if shares > 1 { 2 } else { 0 };
        for index in 0..candidates {
            let params = if index >= shares * signs {
                self.refined(&best.1, weights, importance)
            } else {
                let share = 1.0 - (1.0 - least) * f32::from(index / signs) / f32::from(shares);
                self.candidate(low * share, high * share, index % signs == 1)
            };
            let error = self.error(&params, weights, importance);
            if error < best.0 {
                best = (error, params);
            }
        }
        best.1
    }

    fn variants(&self) -> usize {
        match (self.search, self.symmetric) {
            (ScaleSearch::Hessian, true) => STEPS.len(),
            (ScaleSearch::Hessian, false) => STEPS.len() + 2,
            _ => 0,
        }
    }

    #[inline(always)]
    fn variant(&self, fitted: &AffineParams, index: usize) -> AffineParams {
        match STEPS.get(index) {
            Some(step) => AffineParams { scale: to_f16(fitted.scale * step), ..*fitted },
            None => {
                let zero = fitted.zero + if index == STEPS.len() { 1.0 } else { -1.0 };
                AffineParams { zero: zero.max(0.0).min(self.max()), ..*fitted }
            }
        }
    }

    #[inline(always)]
    fn round(&self, params: &AffineParams, _slot: usize, weight: f32) -> (u8, f32) {
        let steps = self.nearest(params.zero, weight / params.scale);
        ((steps + params.zero) as i32 as u8, params.scale * steps)
    }

    #[inline(always)]
    fn value(&self, params: &AffineParams, _slot: usize, code: u8) -> f32 {
        params.scale * (f32::from(code) - params.zero)
    }

    #[inline(always)]
    fn rescaled(&self, params: &AffineParams, factor: f32) -> AffineParams {
        AffineParams { scale: to_f16(params.scale * factor), ..*params }
    }
}
