//! Scale of a sub-block of Q3_K without importance weights.
//!
//! From codes rounded for `-nmax / max`, coordinate descent: up to five rounds, in each of which every value in turn takes the code
//! nearest to it under the least squares scale of all the others, if that explains more of the square sum, weighted by the
//! squares of the values (`make_q3_quants` in ggml-quants.c).

use super::lanes::{Lanes, build};
use super::rounding::{clamp, nearest_int, round_small};
use super::symmetric_search::extremes;

/// What the search found, for `W` sub-blocks of `N` values.
pub(super) struct Descent<const W: usize, const N: usize> {
    pub(super) scale: [f32; W],
    /// -nmax..nmax
    codes: Lanes<W, N>,
    zero: [bool; W],
    nmax: f32,
}

impl<const W: usize, const N: usize> Descent<W, N> {
    /// The codes that the search chose for sub-block `j`: 0..2 nmax; of a sub-block of zeros, 0.
    #[inline(always)]
    pub(super) fn codes(&self, j: usize) -> [u8; N] {
        if self.zero[j] {
            return [0; N];
        }
        build(|l| (self.codes[l][j] + self.nmax) as u8)
    }
}

/// Searches `W` sub-blocks of `N` values.
#[inline(always)]
pub(super) fn descent_search<const W: usize, const N: usize>(nmax: f32, x: &Lanes<W, N>) -> Descent<W, N> {
    let (max, zero) = extremes(x);
    let inverse: [f32; W] = build(|j| if zero[j] { 0.0 } else { -nmax / max[j] });
    let mut codes = [[0.0; W]; N];
    let (mut sum_lx, mut sum_l2) = ([0.0; W], [0.0; W]);
    for (x, codes) in x.iter().zip(&mut codes) {
        for j in 0..W {
            let l = round_small(clamp(inverse[j] * x[j], -nmax, nmax - 1.0));
            codes[j] = l;
            let w = x[j] * x[j];
            sum_lx[j] += w * x[j] * l;
            sum_l2[j] += w * l * l;
        }
    }
    for _ in 0..5 {
        let mut changed = [false; W];
        for (x, codes) in x.iter().zip(&mut codes) {
            for j in 0..W {
                let old = codes[j];
                let w = x[j] * x[j];
                let lx = sum_lx[j] - w * x[j] * old;
                let l2 = sum_l2[j] - w * old * old;
                let new = clamp(nearest_int(x[j] * l2 / lx) as f32, -nmax, nmax - 1.0);
                let new_lx = lx + w * x[j] * new;
                let new_l2 = l2 + w * new * new;
                let better = (lx > 0.0)
                    & (new != old)
                    & (new_l2 > 0.0)
                    & (new_lx * new_lx * sum_l2[j] > sum_lx[j] * sum_lx[j] * new_l2);
                codes[j] = if better { new } else { old };
                sum_lx[j] = if better { new_lx } else { sum_lx[j] };
                sum_l2[j] = if better { new_l2 } else { sum_l2[j] };
                changed[j] |= better;
            }
        }
        // A sub-block without a change in one round has none in the next.
        if !changed.contains(&true) {
            break;
        }
    }
    let scale = build(|j| if sum_l2[j] > 0.0 && !zero[j] { sum_lx[j] / sum_l2[j] } else { 0.0 });
    Descent { scale, codes, zero, nmax }
}
