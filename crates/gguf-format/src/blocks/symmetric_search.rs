//! Scale of a sub-block, for types with `x = scale (q - nmax)`.
//!
//! The candidates are inverse scales around `-nmax / max`, where `max` is the value of largest magnitude: it gets the code with the
//! larger range. Each rounds the values to codes; the one whose least squares scale explains most of the weighted square sum
//! stays (`make_qx_quants` in ggml-quants.c with its error type 1).

use super::lanes::{Lanes, each};
use super::rounding::{clamp, round_small};

/// Below this magnitude a sub-block counts as zero (`GROUP_MAX_EPS`).
pub(super) const ZERO: f32 = 1e-15;

/// What the search found, for `W` sub-blocks.
pub(super) struct Symmetric<const W: usize> {
    pub(super) scale: [f32; W],
    /// The codes found were `nmax + round(inverse x)`; of a sub-block of zeros, 0.
    inverse: [f32; W],
    zero: [bool; W],
    nmax: f32,
}

impl<const W: usize> Symmetric<W> {
    /// The codes that the search chose for sub-block `j`, whose values are `x`: 0..2 nmax.
    #[inline(always)]
    pub(super) fn codes<const N: usize>(&self, j: usize, x: &[f32; N]) -> [u8; N] {
        if self.zero[j] {
            return [0; N];
        }
        each(x, |x| (self.nmax + round_small(clamp(self.inverse[j] * x, -self.nmax, self.nmax - 1.0))) as u8)
    }
}

/// The value of largest magnitude of each sub-block, the first of equals; and whether the sub-block counts as zero.
#[inline(always)]
pub(super) fn extremes<const W: usize, const N: usize>(x: &Lanes<W, N>) -> ([f32; W], [bool; W]) {
    let (mut max, mut amax) = ([0.0f32; W], [0.0f32; W]);
    for x in x {
        for j in 0..W {
            let larger = x[j].abs() > amax[j];
            max[j] = if larger { x[j] } else { max[j] };
            amax[j] = if larger { x[j].abs() } else { amax[j] };
        }
    }
    (max, each(&amax, |amax| amax < ZERO))
}

/// Searches `W` sub-blocks of `N` values `x` with weights `w`.
#[inline(always)]
pub(super) fn symmetric_search<const W: usize, const N: usize>(
    nmax: f32,
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
) -> Symmetric<W> {
    let (max, zero) = extremes(x);
    let mut inverse = [0.0; W];
    for j in 0..W {
        inverse[j] = -nmax / max[j];
    }
    let (sum_lx, sum_l2) = sums(nmax, x, w, &inverse);
    let (mut scale, mut best) = ([0.0; W], [0.0; W]);
    for j in 0..W {
        scale[j] = if sum_l2[j] != 0.0 { sum_lx[j] / sum_l2[j] } else { 0.0 };
        best[j] = scale[j] * sum_lx[j];
    }
    for step in (-9i8..=9).filter(|&step| step != 0) {
        let numerator = -(nmax + 0.1 * f32::from(step));
        let mut candidate = [0.0; W];
        for j in 0..W {
            candidate[j] = numerator / max[j];
        }
        let (sum_lx, sum_l2) = sums(nmax, x, w, &candidate);
        for j in 0..W {
            let better = sum_l2[j] > 0.0 && sum_lx[j] * sum_lx[j] > best[j] * sum_l2[j];
            let this_scale = sum_lx[j] / sum_l2[j];
            scale[j] = if better { this_scale } else { scale[j] };
            best[j] = if better { this_scale * sum_lx[j] } else { best[j] };
            inverse[j] = if better { candidate[j] } else { inverse[j] };
        }
    }
    for j in 0..W {
        scale[j] = if zero[j] { 0.0 } else { scale[j] };
    }
    Symmetric { scale, inverse, zero, nmax }
}

/// `sum(w x l)` and `sum(w l l)` over the codes `l` of one candidate.
#[inline(always)]
fn sums<const W: usize, const N: usize>(
    nmax: f32,
    x: &Lanes<W, N>,
    w: &Lanes<W, N>,
    inverse: &[f32; W],
) -> ([f32; W], [f32; W]) {
    let (mut sum_lx, mut sum_l2) = ([0.0; W], [0.0; W]);
    for (x, w) in x.iter().zip(w) {
        for j in 0..W {
            let l = round_small(clamp(inverse[j] * x[j], -nmax, nmax - 1.0));
            sum_lx[j] += w[j] * x[j] * l;
            sum_l2[j] += w[j] * l * l;
        }
    }
    (sum_lx, sum_l2)
}
