//! Q2_K: 256 values in 16 sub-blocks of 16, 2-bit codes, 4-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte   0..16  scales: byte j is sub-block j's scale in its low nibble, its minimum in the high nibble
//!       16..80  qs: 128 values share 32 bytes; byte l holds codes l, l + 32, l + 64, l + 96 from the low bits up
//!       80..82  d, binary16
//!       82..84  dmin, binary16
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 16 + 64 + 2 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let scales: &[u8; 16] = field::<0, 16, BYTES>(block);
    let qs: &[u8; 64] = field::<16, 64, BYTES>(block);
    let d = scale::<80, BYTES>(block);
    let dmin = scale::<82, BYTES>(block);
    for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(scales[j] & 15);
        let ml = dmin * f32::from(scales[j] >> 4);
        let (first, shift) = codes_at(j);
        for (x, &q) in out.iter_mut().zip(&qs[first..first + 16]) {
            *x = dl * f32::from(q >> shift & 3) - ml;
        }
    }
}

/// First byte in `qs` and shift of the 2-bit codes of sub-block `j`. Q3_K shares this packing.
#[inline(always)]
pub(super) fn codes_at(j: usize) -> (usize, usize) {
    (32 * (j / 8) + 16 * (j % 2), 2 * (j % 8 / 2))
}
