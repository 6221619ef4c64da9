//! Q5_0: 32 values, one scale, 5-bit codes around 16: `x = d (q - 16)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..6   qh, little-endian: bit j is the fifth bit of code j
//!       6..22  qs: byte j holds the low bits of code j in its low nibble and of code j + 16 in its high nibble
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 4 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let codes = codes(field::<2, 4, BYTES>(block), field::<6, 16, BYTES>(block));
    for (x, q) in out.iter_mut().zip(codes) {
        *x = (i32::from(q) - 16) as f32 * d;
    }
}

/// The 32 codes, from their high bits and their nibbles. Q5_1 shares this packing.
#[inline(always)]
pub(super) fn codes(qh: &[u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let qh = u32::from_le_bytes(*qh);
    let mut codes = [0; 32];
    for j in 0..16 {
        codes[j] = (qs[j] & 15) | ((qh >> j << 4) & 16) as u8;
        codes[j + 16] = (qs[j] >> 4) | ((qh >> (j + 16) << 4) & 16) as u8;
    }
    codes
}
