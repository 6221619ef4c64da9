//! IQ1_S: 256 values in 32 points of eight values -1, 0, 1 out of a grid of 2048, shifted: `x = d (2 sc + 1) (point +- 1/8)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..34  qs: the low 8 bits of the indices
//!      34..50  qh, little-endian words for 4 points: |shift is negative|scale 3|high bits 3|2|1|0|, 3 bits each
//! ```

use super::iq1_grid::IQ1;
use super::packing::{field, scale};

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
