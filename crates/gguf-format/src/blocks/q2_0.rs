//! Q2_0: 64 values -1, 0, 1, 2 in 2-bit codes, one scale: `x = d (q - 1)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: byte j holds codes 4 j .. 4 j + 3 from the low bits up
//! ```

use super::packing::{field, field_mut, scale, write_scale};
use super::rounding::round_half_away;

pub(super) const LEN: usize = 64;
pub(super) const BYTES: usize = 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 16] = field::<2, 16, BYTES>(block);
    for (out, q) in out.as_chunks_mut::<4>().0.iter_mut().zip(qs) {
        for (j, x) in out.iter_mut().enumerate() {
            *x = (i32::from(q >> (2 * j) & 3) - 1) as f32 * d;
        }
    }
}

/// The scale is the largest magnitude (`quantize_row_q2_0_ref`), so code 3 is not used. There are no weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
    write_scale::<0, BYTES>(block, d);
    for (q, x) in field_mut::<2, 16, BYTES>(block).iter_mut().zip(x.as_chunks::<4>().0) {
        *q = (0..4).fold(0, |q, j| q | (round_half_away(x[j] * inverse) + 1).clamp(0, 3) << (2 * j)) as u8;
    }
}
