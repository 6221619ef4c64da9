//! IQ2_XS: 256 values in 32 points of eight magnitudes out of a grid of 512: `x = d (sc + 1/2) / 4 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..66  qs, 32 times 16 bits, little-endian: index in the low 9 bits, then 7 signs; the eighth makes the number of negative
//!              values even
//!      66..74  scales: byte i holds that of points 4 i, 4 i + 1 in its low nibble, of 4 i + 2, 4 i + 3 in its high nibble
//! ```

use super::grids::{even_signs, signed};
use super::iq2_grids::IQ2_XS;
use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64 + 8;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let scales: &[u8; 8] = field::<66, 8, BYTES>(block);
    for (i, (out, q)) in out.as_chunks_mut::<8>().0.iter_mut().zip(qs.as_chunks::<2>().0).enumerate() {
        let q = u16::from_le_bytes(*q);
        signed(point_scale(d, scales, i), &IQ2_XS[usize::from(q & 511)], even_signs(u32::from(q >> 9)), out);
    }
}

/// The scale of point `i`. IQ2_S shares it.
#[inline(always)]
pub(super) fn point_scale(d: f32, scales: &[u8; 8], i: usize) -> f32 {
    d * (0.5 + f32::from(scales[i / 4] >> (4 * (i / 2 % 2)) & 15)) * 0.25
}
