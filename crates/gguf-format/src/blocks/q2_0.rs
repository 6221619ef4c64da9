//! Q2_0: 64 values -1, 0, 1, 2 in 2-bit codes, one scale: `x = d (q - 1)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: byte j holds codes 4 j .. 4 j + 3 from the low bits up
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 64;
pub(super) const BYTES: usize = 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 16] = field::<2, 16, BYTES>(block);
    for (out, q) in out.as_chunks_mut::<4>().0.iter_mut().zip(qs) {
        for (j, x) in out.iter_mut().enumerate() {
            *x = (i32::from(q >> (2 * j) & 3) - 1) as f32 * d;
        }
    }
}
