//! IQ1_S: 256 values in 32 points of eight values -1, 0, 1 out of a grid of 2048, shifted: `x = d (2 sc + 1) (point +- 1/8)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..34  qs: the low 8 bits of the indices
//!      34..50  qh, little-endian words for 4 points: |shift is negative|scale 3|high bits 3|2|1|0|, 3 bits each
//! ```

use super::iq1_grid::IQ1;
use super::lanes::{build, sum_of_squares};
use super::lattice::Lattice;
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::weights;
use super::rounding::nearest_int;
use super::simd::one_at_a_time;
use super::ternary_search::{Cuts, DOWN, UP, ascending, choose_points, largest, levels};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 32 + 16;

/// What is added to a point.
pub(super) const SHIFT: f32 = 0.125;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 32] = field::<2, 32, BYTES>(block);
    let qh: &[u8; 16] = field::<34, 16, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        one_at_a_time();
        let word = u16::from_le_bytes(qh.as_chunks().0[i / 4]);
        let index = usize::from(qs[i]) | usize::from(word >> (3 * (i % 4)) & 7) << 8;
        let dl = d * f32::from(2 * (word >> 12 & 7) + 1);
        shifted(dl, &IQ1[index], word & 0x8000 != 0, out);
    }
}

/// `scale` times the shifted point. IQ1_M shares it.
#[inline(always)]
pub(super) fn shifted(scale: f32, point: &[i8; 8], negative: bool, out: &mut [f32; 8]) {
    let shift = if negative { -SHIFT } else { SHIFT };
    for (x, &value) in out.iter_mut().zip(point) {
        *x = scale * (f32::from(value) + shift);
    }
}

/// Below this magnitude a sub-block counts as zero (`GROUP_MAX_EPS_IQ1_S`).
const ZERO: f32 = 1e-12;

/// One shift for each 32 values (`quantize_row_iq1_s_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, 2.0 * sum_of_squares(x) / 256.0, 0.0);
    *block = [0; BYTES];
    let (mut scales, mut words) = ([0.0; 8], [0u16; 8]);
    for (j, (x, w)) in x.as_chunks::<32>().0.iter().zip(w.as_chunks().0).enumerate() {
        if largest(x) < ZERO {
            continue;
        }
        let order = ascending(x);
        let cuts = best_cuts(x, w, &order);
        if !cuts.found() {
            continue;
        }
        let mut digits = cuts.digits(&order);
        let mut down = cuts.shift == 1;
        if cuts.scale < 0.0 {
            digits = build(|i| 2 - digits[i]);
            down = !down;
        }
        let (scale, codes) = choose_points(lattice, x, w, &digits, cuts.scale.abs(), &[levels(down); 4]);
        scales[j] = scale;
        words[j] = u16::from(down) << 15;
        for (k, code) in codes.into_iter().enumerate() {
            let index = lattice.index(code);
            field_mut::<2, 32, BYTES>(block)[4 * j + k] = index as u8;
            words[j] |= index >> 8 << (3 * k);
        }
    }
    let (max, l) = divide_by_largest(&scales);
    // The factor is ggml's.
    write_scale::<0, BYTES>(block, max / 15.0 * 1.125);
    for (j, bytes) in field_mut::<34, 16, BYTES>(block).as_chunks_mut().0.iter_mut().enumerate() {
        // Without a scale ggml leaves out the shifts.
        let word = if max == 0.0 { words[j] & 0x0fff } else { words[j] | u16::from(l[j]) << 12 };
        *bytes = word.to_le_bytes();
    }
}

/// The best of all cuts and both shifts.
#[inline(always)]
fn best_cuts(x: &[f32; 32], w: &[f32; 32], order: &[u8; 32]) -> Cuts {
    // Sums over the values before each place, in ascending order; places behind the end are read but do not count.
    let (mut sum_x, mut sum_w) = ([0.0; 40], [0.0; 40]);
    for (place, &i) in order.iter().enumerate() {
        let i = usize::from(i) % 32;
        sum_x[place + 1] = sum_x[place] + w[i] * x[i];
        sum_w[place + 1] = sum_w[place] + w[i];
    }
    let mut cuts = Cuts::none();
    for first in 0..=32 {
        for second in (first..=32).step_by(8) {
            let (mut sum_qx, mut sum_q2) = ([[0.0; 8]; 2], [[0.0; 8]; 2]);
            let (x, w) = (&sum_x[second..second + 8], &sum_w[second..second + 8]);
            for (k, q) in [UP, DOWN].iter().enumerate() {
                for j in 0..8 {
                    sum_qx[k][j] =
                        (sum_x[first] - 0.0) * q[0] + (x[j] - sum_x[first]) * q[1] + (sum_x[32] - x[j]) * q[2];
                    sum_q2[k][j] = (sum_w[first] - 0.0) * q[0] * q[0]
                        + (w[j] - sum_w[first]) * q[1] * q[1]
                        + (sum_w[32] - w[j]) * q[2] * q[2];
                }
            }
            cuts.offer(first, second, 33 - second, &sum_qx, &sum_q2);
        }
    }
    cuts
}

/// The largest scale and the codes `l` of all, which stand for `2 l + 1` times its 15th. IQ1_M shares it.
#[inline(always)]
pub(super) fn divide_by_largest<const N: usize>(scales: &[f32; N]) -> (f32, [u8; N]) {
    let mut max = 0.0;
    for &scale in scales {
        // NaN stays: the super-block cannot be written.
        max = if scale > max || scale.is_nan() { scale } else { max };
    }
    let inverse = 1.0 / (max / 15.0);
    let code = |i: usize| nearest_int(0.5 * (inverse * scales[i] - 1.0)).clamp(0, 7) as u8;
    (max, if max == 0.0 { [0; N] } else { build(code) })
}
