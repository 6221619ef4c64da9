//! Q6_K: 256 values in 16 sub-blocks of 16, 6-bit codes around 32, signed 8-bit scales: `x = d sc (q - 32)`.
//!
//! ```text
//! byte   0..128  ql: 128 values share 64 bytes; byte l of them holds the low nibble of codes l and l + 64
//!      128..192  qh: 128 values share 32 bytes; byte l holds the two high bits of codes l, l + 32, l + 64, l + 96 from the low bits up
//!      192..208  scales, two's complement
//!      208..210  d, binary16
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 128 + 64 + 16 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let ql: &[u8; 128] = field::<0, 128, BYTES>(block);
    let qh: &[u8; 64] = field::<128, 64, BYTES>(block);
    let scales: &[u8; 16] = field::<192, 16, BYTES>(block);
    let d = scale::<208, BYTES>(block);
    for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // sub-block j holds codes from `first` on within its half of 128
        let (half, first) = (j / 8, 16 * (j % 8));
        let dl = d * f32::from(scales[j] as i8);
        let low = &ql[64 * half + first % 64..][..16];
        let high = &qh[32 * half + first % 32..][..16];
        let (low_shift, high_shift) = (4 * (first / 64), 2 * (first / 32));
        for ((x, &l), &h) in out.iter_mut().zip(low).zip(high) {
            *x = dl * ((l >> low_shift & 15 | (h >> high_shift & 3) << 4) as i8 - 32) as f32;
        }
    }
}
