//! Scale of a sub-block for the uneven grid of IQ4_NL and IQ4_XS.
//!
//! The candidates are inverse scales that put the value of largest magnitude on, or up to 7 units beside, the grid's first value;
//! as in the symmetric search, the one whose least squares scale explains most of the weighted square sum stays
//! (`quantize_row_iq4_nl_impl` in ggml-quants.c).

use super::iq4_nl::{VALUES, nearest};
use super::lanes::{Lanes, each};
use super::symmetric_search::extremes;

/// The scales of `W` sub-blocks of `N` values `x` with weights `w`.
#[inline(always)]
pub(super) fn grid_search<const W: usize, const N: usize>(x: &Lanes<W, N>, w: &Lanes<W, N>) -> [f32; W] {
    let first = f32::from(VALUES[0]);
    let (max, zero) = extremes(x);
    let (sum_qx, sum_q2) = sums(x, w, &each(&max, |max| 1.0 / (-max / first)));
    let (mut scale, mut best) = ([0.0; W], [0.0; W]);
    for j in 0..W {
        scale[j] = if sum_q2[j] > 0.0 { sum_qx[j] / sum_q2[j] } else { 0.0 };
        best[j] = scale[j] * sum_qx[j];
    }
    for step in -7i8..=7 {
        let (sum_qx, sum_q2) = sums(x, w, &each(&max, |max| (f32::from(step) + first) / max));
        for j in 0..W {
            let better = (sum_q2[j] > 0.0) & (sum_qx[j] * sum_qx[j] > best[j] * sum_q2[j]);
            let this_scale = sum_qx[j] / sum_q2[j];
            scale[j] = if better { this_scale } else { scale[j] };
            best[j] = if better { this_scale * sum_qx[j] } else { best[j] };
        }
    }
    for j in 0..W {
        scale[j] = if zero[j] { 0.0 } else { scale[j] };
    }
    scale
}

/// `sum(w q x)` and `sum(w q q)` over the grid values `q` of one candidate.
#[inline(always)]
fn sums<const W: usize, const N: usize>(x: &Lanes<W, N>, w: &Lanes<W, N>, inverse: &[f32; W]) -> ([f32; W], [f32; W]) {
    let (mut sum_qx, mut sum_q2) = ([0.0; W], [0.0; W]);
    for (x, w) in x.iter().zip(w) {
        for j in 0..W {
            let q = nearest(inverse[j] * x[j]);
            sum_qx[j] += w[j] * q * x[j];
            sum_q2[j] += w[j] * q * q;
        }
    }
    (sum_qx, sum_q2)
}
