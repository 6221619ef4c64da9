//! Q1_0: 128 signs, one scale: `x = +-d`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: bit j % 8 of byte j / 8 is set where value j is positive
//! ```

use super::packing::{field, field_mut, scale, write_scale};

pub(super) const LEN: usize = 128;
pub(super) const BYTES: usize = 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 16] = field::<2, 16, BYTES>(block);
    for (out, q) in out.as_chunks_mut::<8>().0.iter_mut().zip(qs) {
        for (j, x) in out.iter_mut().enumerate() {
            *x = if q >> j & 1 == 1 { d } else { -d };
        }
    }
}

/// The scale is the mean magnitude (`quantize_row_q1_0_ref`). There are no weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let sum = x.iter().fold(0.0, |sum, x| sum + x.abs());
    write_scale::<0, BYTES>(block, sum / 128.0);
    for (q, x) in field_mut::<2, 16, BYTES>(block).iter_mut().zip(x.as_chunks::<8>().0) {
        *q = (0..8).fold(0, |q, j| q | u8::from(x[j] >= 0.0) << j);
    }
}
