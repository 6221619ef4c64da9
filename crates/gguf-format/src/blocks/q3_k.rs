//! Q3_K: 256 values in 16 sub-blocks of 16, 3-bit codes around 4, 6-bit scales around 32: `x = d (sc - 32) (q - 4)`.
//!
//! ```text
//! byte   0..32   hmask: bit i of byte l is the third bit of code 32 i + l
//!       32..96   qs: 128 values share 32 bytes; byte l holds the low bits of codes l, l + 32, l + 64, l + 96 from the low bits up
//!       96..108  scales: the low nibbles of bytes 0..8 are the low bits of scales 0..8, the high nibbles of scales 8..16;
//!                the two high bits of scale j are bits 2 (j / 4).. of byte 8 + j % 4
//!      108..110  d, binary16
//! ```

use super::packing::{field, scale};
use super::q2_k::codes_at;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 32 + 64 + 12 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let hmask: &[u8; 32] = field::<0, 32, BYTES>(block);
    let qs: &[u8; 64] = field::<32, 64, BYTES>(block);
    let scales = unpack_scales(field::<96, 12, BYTES>(block));
    let d = scale::<108, BYTES>(block);
    for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(scales[j]);
        let (first, shift) = codes_at(j);
        let high = 16 * (j % 2);
        for ((x, &q), &h) in out.iter_mut().zip(&qs[first..first + 16]).zip(&hmask[high..high + 16]) {
            *x = dl * ((q >> shift & 3) as i8 - 4 * (1 - (h >> (j / 2) & 1) as i8)) as f32;
        }
    }
}

/// The 16 signed scales, -32..=31.
#[inline(always)]
fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    let mut scales = [0; 16];
    for (j, scale) in scales.iter_mut().enumerate() {
        let low = packed[j % 8] >> (4 * (j / 8)) & 15;
        let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    scales
}
