//! IQ1_M: 256 values in 32 points of eight values -1, 0, 1 out of the grid of IQ1_S, each with a shift of its own:
//! `x = d (2 sc + 1) (point +- 1/8)`.
//!
//! ```text
//! byte  0..32  qs: the low 8 bits of the indices
//!      32..48  qh: the nibble of point i, low ones first: |shift is negative|high bits 3|
//!      48..56  scales, four little-endian words: |d, 4 bits|scale 3|2|1|0|, 3 bits for two points;
//!              d is binary16, its lowest bits in the first word
//! ```

use super::f16::f16_to_f32;
use super::f16::f32_to_f16;
use super::iq1_grid::IQ1;
use super::iq1_s::{divide_by_largest, shifted};
use super::lanes::{build, sum_of_squares};
use super::lattice::Lattice;
use super::packing::{field, field_mut};
use super::point_search::weights;
use super::simd::one_at_a_time;
use super::ternary_search::{Cuts, DOWN, UP, add_sums, ascending, choose_points, largest, levels};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 32 + 16 + 8;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let qs: &[u8; 32] = field::<0, 32, BYTES>(block);
    let qh: &[u8; 16] = field::<32, 16, BYTES>(block);
    let scales = u64::from_le_bytes(*field::<48, 8, BYTES>(block));
    let words: [u16; 4] = core::array::from_fn(|i| (scales >> (16 * i)) as u16);
    let d = f16_to_f32(words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        one_at_a_time();
        let high = qh[i / 2] >> (4 * (i % 2));
        let index = usize::from(qs[i]) | usize::from(high & 7) << 8;
        let dl = d * f32::from(2 * (words[i / 8] >> (3 * (i / 2 % 4)) & 7) + 1);
        shifted(dl, &IQ1[index], high & 8 != 0, out);
    }
}

/// Below this magnitude a sub-block counts as zero (`GROUP_MAX_EPS_IQ1_M`).
const ZERO: f32 = 1e-7;

/// A shift for each point of eight, a scale for each two (`quantize_row_iq1_m_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, 2.0 * sum_of_squares(x) / 256.0, 0.0);
    let (xs, ws) = (x.as_chunks::<16>().0, w.as_chunks::<16>().0);
    *block = [0; BYTES];
    let (mut scales, mut down, mut codes) = ([0.0; 16], [[false; 2]; 16], [[0; 2]; 16]);
    for (j, (x, w)) in xs.iter().zip(ws).enumerate() {
        if largest(x) < ZERO {
            continue;
        }
        let order = ascending(x);
        let cuts = best_cuts(x, w, &order);
        if !cuts.found() {
            continue;
        }
        let mut digits = cuts.digits(&order);
        down[j] = [cuts.shift & 2 != 0, cuts.shift & 1 != 0];
        if cuts.scale < 0.0 {
            digits = build(|i| 2 - digits[i]);
            down[j] = [!down[j][0], !down[j][1]];
        }
        let both = [levels(down[j][0]), levels(down[j][1])];
        (scales[j], codes[j]) = choose_points(lattice, x, w, &digits, cuts.scale.abs(), &both);
        let index = [lattice.index(codes[j][0]), lattice.index(codes[j][1])];
        field_mut::<0, 32, BYTES>(block)[2 * j] = index[0] as u8;
        field_mut::<0, 32, BYTES>(block)[2 * j + 1] = index[1] as u8;
        field_mut::<32, 16, BYTES>(block)[j] = (index[0] >> 8 | index[1] >> 8 << 4) as u8;
    }
    let (max, l) = divide_by_largest(&scales);
    if max == 0.0 {
        return;
    }
    let (mut sum_qx, mut sum_q2) = (0.0, 0.0);
    let mut packed = 0u64;
    for j in 0..16 {
        packed |= u64::from(l[j]) << (16 * (j / 4) + 3 * (j % 4));
        field_mut::<32, 16, BYTES>(block)[j] |= u8::from(down[j][0]) << 3 | u8::from(down[j][1]) << 7;
        for k in 0..2 {
            let (x, w) = (&xs[j].as_chunks().0[k], &ws[j].as_chunks().0[k]);
            // A sub-block of zeros reads the grid's first point back.
            let times = f32::from(2 * l[j] + 1);
            add_sums(x, w, codes[j][k], times, levels(down[j][k]), &mut sum_qx, &mut sum_q2);
        }
    }
    let d = if sum_q2 > 0.0 { sum_qx / sum_q2 } else { max / 15.0 };
    // The factor is ggml's.
    let d = u64::from(f32_to_f16(d * 1.1125));
    for i in 0..4 {
        packed |= (d >> (4 * i) & 15) << (16 * i + 12);
    }
    *field_mut::<48, 8, BYTES>(block) = packed.to_le_bytes();
}

/// Whether the block's scale is beyond half precision.
pub(super) fn overflows(block: &[u8]) -> bool {
    // The exponent is spread over the last two words.
    block[55] >> 4 & 7 == 7 && block[53] >> 6 == 3
}

/// The best of all cuts and the four pairs of shifts, the first point's in the high bit.
#[inline(always)]
fn best_cuts(x: &[f32; 16], w: &[f32; 16], order: &[u8; 16]) -> Cuts {
    // Sums over the values of each half before each place, in ascending order of all; places behind the end do not count.
    let (mut sum_x, mut sum_w) = ([[0.0; 24]; 2], [[0.0; 24]; 2]);
    for (place, &i) in order.iter().enumerate() {
        let i = usize::from(i) % 16;
        for h in 0..2 {
            let (x, w) = if i / 8 == h { (w[i] * x[i], w[i]) } else { (0.0, 0.0) };
            sum_x[h][place + 1] = sum_x[h][place] + x;
            sum_w[h][place + 1] = sum_w[h][place] + w;
        }
    }
    let mut cuts = Cuts::none();
    for first in 0..=16 {
        for second in (first..=16).step_by(8) {
            // Of each half with each shift.
            let (mut half_qx, mut half_q2) = ([[[0.0; 8]; 2]; 2], [[[0.0; 8]; 2]; 2]);
            for h in 0..2 {
                let (x, w) = (&sum_x[h][second..second + 8], &sum_w[h][second..second + 8]);
                for (s, q) in [UP, DOWN].iter().enumerate() {
                    let (one, two) = (q[0] * q[0] - q[1] * q[1], q[1] * q[1] - q[2] * q[2]);
                    for j in 0..8 {
                        half_qx[h][s][j] = sum_x[h][16] * q[2] - (sum_x[h][first] + x[j]);
                        half_q2[h][s][j] = sum_w[h][16] * q[2] * q[2] + sum_w[h][first] * one + w[j] * two;
                    }
                }
            }
            let (mut sum_qx, mut sum_q2) = ([[0.0; 8]; 4], [[0.0; 8]; 4]);
            for k in 0..4 {
                for j in 0..8 {
                    sum_qx[k][j] = half_qx[0][k / 2][j] + half_qx[1][k % 2][j];
                    sum_q2[k][j] = half_q2[0][k / 2][j] + half_q2[1][k % 2][j];
                }
            }
            cuts.offer(first, second, 17 - second, &sum_qx, &sum_q2);
        }
    }
    cuts
}
