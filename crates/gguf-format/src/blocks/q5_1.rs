//! Q5_1: 32 values, scale and minimum, 5-bit codes: `x = d q + m`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..4   m, binary16
//!       4..8   qh, little-endian: bit j is the fifth bit of code j
//!       8..24  qs: byte j holds the low bits of code j in its low nibble and of code j + 16 in its high nibble
//! ```

use super::packing::{field, scale};
use super::q5_0;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 2 + 4 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let m = scale::<2, BYTES>(block);
    let codes = q5_0::codes(field::<4, 4, BYTES>(block), field::<8, 16, BYTES>(block));
    for (x, q) in out.iter_mut().zip(codes) {
        *x = i32::from(q) as f32 * d + m;
    }
}
