//! Q4_K: 256 values in 8 sub-blocks of 32, 4-bit codes, 6-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    dmin, binary16
//!       4..16   scales
//!      16..144  qs: 64 values share 32 bytes; byte l holds code l in its low nibble, code l + 32 in its high nibble
//!
//! scales:  byte 0..4   |s4+j hi|s0+j     |      sJ, mJ: 6 bits of sub-block J's scale and minimum;
//!               4..8   |m4+j hi|m0+j     |      hi: their bits 4 and 5, lo: bits 0 to 3
//!               8..12  |m4+j lo|s4+j lo  |
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 2 + 12 + 128;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let dmin = scale::<2, BYTES>(block);
    let (scales, mins) = unpack_scales(field::<4, 12, BYTES>(block));
    let qs: &[u8; 128] = field::<16, 128, BYTES>(block);
    for (i, (out, qs)) in out.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0).enumerate() {
        let (d0, m0) = (d * f32::from(scales[2 * i]), dmin * f32::from(mins[2 * i]));
        let (d1, m1) = (d * f32::from(scales[2 * i + 1]), dmin * f32::from(mins[2 * i + 1]));
        for (l, &q) in qs.iter().enumerate() {
            out[l] = d0 * f32::from(q & 15) - m0;
            out[l + 32] = d1 * f32::from(q >> 4) - m1;
        }
    }
}

/// The 8 scales and the 8 minimums, 0..=63. Q5_K shares this packing.
#[inline(always)]
pub(super) fn unpack_scales(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        mins[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, mins)
}
