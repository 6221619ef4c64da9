//! Scale and minimum of a sub-block, for types with `x = scale q - min`.
//!
//! The candidates are inverse scales around `nmax / (max - min)`. Each rounds the values to codes, solves the weighted least squares
//! problem for scale and minimum given those codes, and measures the weighted error; the best one stays, and its minimum is where
//! the following candidates start from (`make_qkx2_quants` and `make_qkx3_quants` in ggml-quants.c, which differ only in the
//! candidates asked for).

use core::hint::black_box;

use super::lanes::{Lanes, build, each};
use super::rounding::{clamp, nearest_int, round_small};

/// Which candidates to try: inverse scales `(first + step k + nmax) / (max - min)`, `k = 0..=steps`.
pub(super) struct Candidates {
    /// The largest code.
    pub(super) nmax: f32,
    pub(super) first: f32,
    pub(super) step: f32,
    pub(super) steps: u8,
}

/// What the search found, for `W` sub-blocks.
pub(super) struct Affine<const W: usize> {
    pub(super) scale: [f32; W],
    /// To be subtracted: not negative.
    pub(super) min: [f32; W],
    rounding: Rounding<W>,
}

impl<const W: usize> Affine<W> {
    /// The codes that the search chose for sub-block `j`, whose values are `x`.
    #[inline(always)]
    pub(super) fn codes<const N: usize>(&self, j: usize, x: &[f32; N]) -> [u8; N] {
        let Rounding { inverse, base, nmax } = self.rounding;
        each(x, |x| nearest_int(inverse[j] * (x - base[j])).clamp(0, nmax as i32) as u8)
    }
}

/// Codes are `round(inverse (x - base))`, within `0..=nmax`.
#[derive(Clone, Copy)]
struct Rounding<const W: usize> {
    inverse: [f32; W],
    base: [f32; W],
    nmax: f32,
}

/// Searches `W` sub-blocks of `N` values `x` with weights `w`. The error is `w |diff|` if `ABSOLUTE`, else `w diff^2`.
///
/// A sub-block of equal values has scale 0 and codes 0.
#[inline(always)]
pub(super) fn affine_search<const ABSOLUTE: bool, const W: usize, const N: usize>(
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
    candidates: &Candidates,
) -> Affine<W> {
    let nmax = candidates.nmax;
    let (mut low, mut high, mut sum_w, mut sum_x) = (x[0], x[0], w[0], [0.0; W]);
    for j in 0..W {
        sum_x[j] = w[0][j] * x[0][j];
    }
    for (x, w) in x.iter().zip(w).skip(1) {
        for j in 0..W {
            low[j] = if x[j] < low[j] { x[j] } else { low[j] };
            high[j] = if x[j] > high[j] { x[j] } else { high[j] };
            sum_w[j] += w[j];
            sum_x[j] += w[j] * x[j];
        }
    }
    let mut min = each(&low, |low| if low > 0.0 { 0.0 } else { low });
    let constant: [bool; W] = build(|j| high[j] <= min[j]);
    // What a sub-block of equal values has instead of an infinite inverse scale; its determinants are 0, it stays as it is.
    let inverse_of = |numerator: f32, min: &[f32; W]| -> [f32; W] {
        build(|j| if constant[j] { 0.0 } else { numerator / (high[j] - min[j]) })
    };

    let mut codes = [[0.0; W]; N];
    let mut best = Rounding { inverse: inverse_of(nmax, &min), base: min, nmax };
    let mut scale: [f32; W] = build(|j| if constant[j] { 0.0 } else { 1.0 / best.inverse[j] });
    fit(x, w, &best, &low, &high, &mut codes);
    let mut best_error = error::<ABSOLUTE, W, N>(x, w, &codes, &scale, &min);

    for step in 0..=candidates.steps {
        let numerator = candidates.first + candidates.step * f32::from(step) + nmax;
        let this = Rounding { inverse: inverse_of(numerator, &min), base: min, nmax };
        let [sum_l, sum_l2, sum_xl] = fit(x, w, &this, &low, &high, &mut codes);
        let (mut this_scale, mut this_min, mut determinant) = ([0.0; W], [0.0; W], [0.0; W]);
        for j in 0..W {
            determinant[j] = sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j];
            this_scale[j] = (sum_w[j] * sum_xl[j] - sum_x[j] * sum_l[j]) / determinant[j];
            this_min[j] = (sum_l2[j] * sum_x[j] - sum_l[j] * sum_xl[j]) / determinant[j];
            let positive = this_min[j] > 0.0;
            this_scale[j] = if positive { sum_xl[j] / sum_l2[j] } else { this_scale[j] };
            this_min[j] = if positive { 0.0 } else { this_min[j] };
        }
        let this_error = error::<ABSOLUTE, W, N>(x, w, &codes, &this_scale, &this_min);
        for j in 0..W {
            let better = (determinant[j] > 0.0) & (this_error[j] < best_error[j]);
            best_error[j] = if better { this_error[j] } else { best_error[j] };
            scale[j] = if better { this_scale[j] } else { scale[j] };
            best.inverse[j] = if better { this.inverse[j] } else { best.inverse[j] };
            best.base[j] = if better { this.base[j] } else { best.base[j] };
            min[j] = if better { this_min[j] } else { min[j] };
        }
    }
    Affine { scale, min: each(&min, |min| -min), rounding: best }
}

/// Rounds the values to codes and returns the sums of `w l`, `w l l` and `w l x` over them.
#[inline(always)]
fn fit<const W: usize, const N: usize>(
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
    rounding: &Rounding<W>,
    low: &[f32; W],
    high: &[f32; W],
    codes: &mut Lanes<W, N>,
) -> [[f32; W]; 3] {
    let Rounding { inverse, base, nmax } = *rounding;
    // Rounding by one addition is right below 2^22 only. The extreme values tell for all between them.
    let in_range = (0..W).fold(true, |all, j| {
        let (low, high) = (inverse[j] * (low[j] - base[j]), inverse[j] * (high[j] - base[j]));
        all & (low.abs() < 4e6) & (high.abs() < 4e6)
    });
    if in_range {
        sums(x, w, codes, |x, j| round_small(clamp(inverse[j] * (x - base[j]), 0.0, nmax)))
    } else {
        sums(x, w, codes, |x, j| clamp(nearest_int(inverse[j] * (x - base[j])) as f32, 0.0, nmax))
    }
}

#[inline(always)]
fn sums<const W: usize, const N: usize>(
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
    codes: &mut Lanes<W, N>,
    code: impl Fn(f32, usize) -> f32,
) -> [[f32; W]; 3] {
    let (mut sum_l, mut sum_l2, mut sum_xl) = ([0.0; W], [0.0; W], [0.0; W]);
    for ((x, w), codes) in x.iter().zip(w).zip(codes) {
        for j in 0..W {
            let l = code(x[j], j);
            codes[j] = l;
            let wl = w[j] * l;
            sum_l[j] += wl;
            sum_l2[j] += wl * l;
            sum_xl[j] += wl * x[j];
        }
    }
    // Stored as arrays the sums become whole vectors; looked at lane by lane they became half-scalar code, at half the speed.
    black_box([sum_l, sum_l2, sum_xl])
}

#[inline(always)]
fn error<const ABSOLUTE: bool, const W: usize, const N: usize>(
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
    codes: &Lanes<W, N>,
    scale: &[f32; W],
    min: &[f32; W],
) -> [f32; W] {
    let mut error = [0.0; W];
    for ((x, w), codes) in x.iter().zip(w).zip(codes) {
        for j in 0..W {
            let diff = scale[j] * codes[j] + min[j] - x[j];
            error[j] += w[j] * if ABSOLUTE { diff.abs() } else { diff * diff };
        }
    }
    black_box(error)
}
