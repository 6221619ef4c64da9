//! Q4_1: 32 values, scale and minimum, 4-bit codes: `x = d q + m`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..4   m, binary16
//!       4..20  qs: byte j holds code j in its low nibble and code j + 16 in its high nibble
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let m = scale::<2, BYTES>(block);
    let qs: &[u8; 16] = field::<4, 16, BYTES>(block);
    for j in 0..16 {
        out[j] = i32::from(qs[j] & 15) as f32 * d + m;
        out[j + 16] = i32::from(qs[j] >> 4) as f32 * d + m;
    }
}
