//! Q8_0: 32 values, one scale, signed bytes: `x = d q`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..34  qs, two's complement
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 32;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 32] = field::<2, 32, BYTES>(block);
    for (x, &q) in out.iter_mut().zip(qs) {
        *x = f32::from(q as i8) * d;
    }
}
