//! Q8_0: 32 values, one scale, signed bytes: `x = d q`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..34  qs, two's complement
//! ```

use super::packing::{field, field_mut, write_scale};
use super::rounding::round_half_away;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 32;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], d: f32, out: &mut [f32; LEN]) {
    let qs: &[u8; 32] = field::<2, 32, BYTES>(block);
    for (x, &q) in out.iter_mut().zip(qs) {
        *x = f32::from(q as i8) * d;
    }
}

/// Symmetric, ties away from zero (`quantize_row_q8_0_ref`). ggml ignores importance weights here, so does the caller.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let amax = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    let d = amax / 127.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    write_scale::<0, BYTES>(block, d);
    for (q, &x) in field_mut::<2, 32, BYTES>(block).iter_mut().zip(x) {
        *q = round_half_away(x * inverse) as u8;
    }
}
