//! Q5_K: 256 values in 8 sub-blocks of 32, 5-bit codes, 6-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    dmin, binary16
//!       4..16   scales, packed as those of Q4_K
//!      16..48   qh: bit i of byte l is the fifth bit of code 32 i + l
//!      48..176  qs: 64 values share 32 bytes; byte l holds the low bits of code l in its low nibble, of code l + 32 in its high nibble
//! ```

use super::packing::{field, scale};
use super::q4_k::unpack_scales;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 2 + 12 + 32 + 128;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let dmin = scale::<2, BYTES>(block);
    let (scales, mins) = unpack_scales(field::<4, 12, BYTES>(block));
    let qh: &[u8; 32] = field::<16, 32, BYTES>(block);
    let qs: &[u8; 128] = field::<48, 128, BYTES>(block);
    for (i, (out, qs)) in out.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0).enumerate() {
        let (d0, m0) = (d * f32::from(scales[2 * i]), dmin * f32::from(mins[2 * i]));
        let (d1, m1) = (d * f32::from(scales[2 * i + 1]), dmin * f32::from(mins[2 * i + 1]));
        for (l, (&q, &h)) in qs.iter().zip(qh).enumerate() {
            let h = h >> (2 * i);
            out[l] = d0 * f32::from(q & 15 | (h & 1) << 4) - m0;
            out[l + 32] = d1 * f32::from(q >> 4 | (h & 2) << 3) - m1;
        }
    }
}
