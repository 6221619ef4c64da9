//! Scale and points of sub-blocks, for the types whose grids hold magnitudes `1, 3, 5, …` (2 digit + 1).
//!
//! The candidates are inverse scales around the one that puts the largest magnitude on the grid's largest. Each rounds the values
//! to digits and replaces points that are not in the grid by the cheapest of their neighbours; the one whose least squares scale
//! explains most of the weighted square sum stays. Then points are chosen once more for the scale found (`quantize_row_iq2_*_impl`
//! and `quantize_row_iq3_*_impl` in ggml-quants.c).

use super::lanes::{Lanes, build, each, transpose, zip};
use super::lattice::{Lattice, Place, cheapest, first_least};
use super::rounding::nearest_int;
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

/// How a type searches.
pub(super) struct Search {
    /// Candidates to each side of the middle.
    pub(super) steps: i8,
    /// What they are apart, in units of the grid.
    pub(super) step: f32,
    /// Which points are chosen again for the scale found.
    pub(super) again: Again,
}

/// Which points are chosen again.
#[derive(PartialEq)]
pub(super) enum Again {
    /// All of the sub-block.
    All,
    /// All, if one of the chosen was not in the grid, or none was chosen.
    AllIfAnyOff,
    /// Those that were not in the grid.
    Off,
}

/// Scales and points of eight sub-blocks of `POINTS` points each.
pub(super) struct Found<const POINTS: usize> {
    /// May be negative or NaN, in theory.
    pub(super) scales: [f32; 8],
    /// `[k][j]` is the code of point `k` of sub-block `j`.
    pub(super) codes: [[u32; 8]; POINTS],
}

/// Searches eight sub-blocks of `N` magnitudes `x` with weights `w`. `largest` is the magnitude that the middle candidate puts on the
/// grid's largest; where it is zero, scale and codes are zero. `P` is the number of values of a point, `POINTS` is `N / P`.
#[inline(always)]
pub(super) fn point_search<const N: usize, const P: usize, const POINTS: usize>(
    search: &Search,
    lattice: &Lattice,
    x: &[f32],
    w: &[f32],
    largest: &[f32; 8],
    start: &[f32; 8],
) -> Found<POINTS> {
    let x_points = x.as_chunks::<P>().0;
    let roots: [f32; 256] = build(|i| if i < 8 * N { w[i].sqrt() } else { 0.0 });
    let root_points = roots.as_chunks::<P>().0;
    let lanes: Lanes<8, N> = transpose(x);
    let w: Lanes<8, N> = transpose(w);
    let wx = zip(&w, &lanes, |w, x| w * x);
    let top = f32::from(2 * max_digit::<P>() + 1);

    let (mut scales, mut best) = (*start, [0.0; 8]);
    let mut codes = [[0; 8]; POINTS];
    let mut off = [[search.again != Again::Off; 8]; POINTS];
    for step in -search.steps..=search.steps {
        let inverse = each(largest, |largest| (top + f32::from(step) * search.step) / largest);
        let mut these = round::<N, P, POINTS>(&lanes, &inverse);
        let mut these_off = [[false; 8]; POINTS];
        for k in 0..POINTS {
            for j in 0..8 {
                if let Place::Near(near) = lattice.find(these[k][j]) {
                    let at = j * POINTS + k;
                    these[k][j] = nearest::<P>(near, &x_points[at], &root_points[at], 1.0 / inverse[j]);
                    these_off[k][j] = true;
                }
            }
        }
        let (sum_qx, sum_q2) = sums::<N, P, POINTS>(&wx, &w, &these);
        for j in 0..8 {
            let better = (sum_q2[j] > 0.0) & (sum_qx[j] * sum_qx[j] > best[j] * sum_q2[j]);
            let scale = sum_qx[j] / sum_q2[j];
            scales[j] = if better { scale } else { scales[j] };
            best[j] = if better { scale * sum_qx[j] } else { best[j] };
            for k in 0..POINTS {
                codes[k][j] = if better { these[k][j] } else { codes[k][j] };
                off[k][j] = if better { these_off[k][j] } else { off[k][j] };
            }
        }
    }

    let again = round::<N, P, POINTS>(&lanes, &each(&scales, |scale| 1.0 / scale));
    let mut any = [false; 8];
    for j in 0..8 {
        any[j] = scales[j] > 0.0 && (search.again == Again::All || (0..POINTS).any(|k| off[k][j]));
        for k in 0..POINTS {
            if any[j] && (search.again != Again::Off || off[k][j]) {
                codes[k][j] = match lattice.find(again[k][j]) {
                    Place::In => again[k][j],
                    Place::Near(near) => {
                        let at = j * POINTS + k;
                        nearest::<P>(near, &x_points[at], &root_points[at], scales[j])
                    }
                };
            }
        }
    }
    let (sum_qx, sum_q2) = sums::<N, P, POINTS>(&wx, &w, &codes);
    for j in 0..8 {
        scales[j] = if any[j] & (sum_q2[j] > 0.0) { sum_qx[j] / sum_q2[j] } else { scales[j] };
        if largest[j] == 0.0 {
            scales[j] = 0.0;
            for codes in &mut codes {
                codes[j] = 0;
            }
        }
    }
    Found { scales, codes }
}

/// `importance sqrt(sigma2 + x^2)`; without importance, `plain + x^2`.
#[inline(always)]
pub(super) fn weights(x: &[f32; 256], importance: Option<&[f32; 256]>, sigma2: f32, plain: f32) -> [f32; 256] {
    match importance {
        Some(importance) => build(|i| importance[i] * (sigma2 + x[i] * x[i]).sqrt()),
        None => build(|i| plain + x[i] * x[i]),
    }
}

/// The largest magnitude of each sub-block; zero where it is below `zero`.
#[inline(always)]
pub(super) fn largest<const N: usize>(x: &[f32], zero: f32) -> [f32; 8] {
    let lanes: Lanes<8, N> = transpose(x);
    let mut max = lanes[0];
    for x in &lanes {
        for j in 0..8 {
            max[j] = if max[j] > x[j] { max[j] } else { x[j] };
        }
    }
    each(&max, |max| if max < zero { 0.0 } else { max })
}

/// The largest of the scales, which the super-block's scale has to be a 31st of, and their 4-bit codes `l`, which stand for `2 l + 1`
/// times that. Negative scales are as their opposites.
#[inline(always)]
pub(super) fn divide_by_largest<const N: usize>(scales: &[f32; N]) -> (f32, [u8; N]) {
    let scales = each(scales, f32::abs);
    let mut max = 0.0;
    for scale in scales {
        // NaN stays: the super-block cannot be written.
        max = if scale > max || scale.is_nan() { scale } else { max };
    }
    let inverse = 1.0 / (max / 31.0);
    let code = |scale| nearest_int(0.5 * (inverse * scale - 1.0)).clamp(0, 15) as u8;
    (max, if max == 0.0 { [0; N] } else { each(&scales, code) })
}

const fn digit_bits<const P: usize>() -> usize {
    if P == 8 { 2 } else { 3 }
}

const fn max_digit<const P: usize>() -> u8 {
    if P == 8 { 2 } else { 7 }
}

/// The codes of the points nearest to the values times `inverse`, in the grid or not.
#[inline(always)]
fn round<const N: usize, const P: usize, const POINTS: usize>(
    x: &Lanes<8, N>,
    inverse: &[f32; 8],
) -> [[u32; 8]; POINTS] {
    let max = i32::from(max_digit::<P>());
    let mut codes = [[0; 8]; POINTS];
    for (codes, x) in codes.iter_mut().zip(x.as_chunks::<P>().0) {
        for (i, x) in x.iter().enumerate() {
            for j in 0..8 {
                let digit = nearest_int(0.5 * (inverse[j] * x[j] - 1.0)).clamp(0, max);
                codes[j] |= (digit as u32) << (digit_bits::<P>() * i);
            }
        }
    }
    codes
}

/// `sum(w x q)` and `sum(w q q)` over the magnitudes `q` of the points.
#[inline(always)]
fn sums<const N: usize, const P: usize, const POINTS: usize>(
    wx: &Lanes<8, N>,
    w: &Lanes<8, N>,
    codes: &[[u32; 8]; POINTS],
) -> ([f32; 8], [f32; 8]) {
    let (mut sum_qx, mut sum_q2) = ([0.0; 8], [0.0; 8]);
    for (k, codes) in codes.iter().enumerate() {
        for i in 0..P {
            let l = k * P + i;
            for j in 0..8 {
                let q = magnitude::<P>(codes[j], i);
                sum_qx[j] += wx[l][j] * q;
                sum_q2[j] += w[l][j] * q * q;
            }
        }
    }
    (sum_qx, sum_q2)
}

/// Magnitude `i` of a point.
#[inline(always)]
fn magnitude<const P: usize>(code: u32, i: usize) -> f32 {
    let digit = code >> (digit_bits::<P>() * i) & ((1 << digit_bits::<P>()) - 1);
    (2 * digit + 1) as i32 as f32
}

/// The code of the first of the points in `near` with the least weighted square error.
#[inline(always)]
fn nearest<const P: usize>(near: &[[u16; 8]], x: &[f32; P], w: &[f32; P], scale: f32) -> u32 {
    if let (Some(x), Some(w)) = (x.first_chunk::<8>(), w.first_chunk::<8>()) {
        let cost = |q: f32| build(|i| w[i] * (scale * q - x[i]) * (scale * q - x[i]));
        return cheapest(near, &[cost(1.0), cost(3.0), cost(5.0)]);
    }
    first_least(near, |codes| {
        let mut sums = [0.0; 8];
        for i in 0..P {
            for j in 0..8 {
                let off = scale * magnitude::<P>(codes[j], i) - x[i];
                sums[j] += w[i] * off * off;
            }
        }
        sums
    })
}
