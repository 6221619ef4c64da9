//! TQ2_0: 256 values -1, 0, 1 in 2-bit codes, one scale: `x = d (q - 1)`.
//!
//! ```text
//! byte  0..64  qs: 128 values share 32 bytes; byte l holds codes l, l + 32, l + 64, l + 96 from the low bits up
//!      64..66  d, binary16
//! ```

use super::packing::{field, field_mut, scale, write_scale};
use super::q2_k::pack;
use super::tq1_0;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 64 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<64, BYTES>(block);
    let qs: &[u8; 64] = field::<0, 64, BYTES>(block);
    for (out, qs) in out.as_chunks_mut::<128>().0.iter_mut().zip(qs.as_chunks::<32>().0) {
        for n in 0..4 {
            for (x, &q) in out[32 * n..][..32].iter_mut().zip(qs) {
                *x = (i32::from(q >> (2 * n) & 3) - 1) as f32 * d;
            }
        }
    }
}

/// Rounds to the multiple of the largest magnitude (`quantize_row_tq2_0_ref`). There are no weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (d, codes) = tq1_0::codes(x);
    pack(&codes, field_mut::<0, 64, BYTES>(block));
    write_scale::<64, BYTES>(block, d);
}
