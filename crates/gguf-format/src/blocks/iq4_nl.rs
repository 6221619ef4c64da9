//! IQ4_NL: 32 values, one scale, 4-bit indices into a fixed uneven grid: `x = d VALUES[q]`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: byte j holds index j in its low nibble and index j + 16 in its high nibble
//! ```

use super::packing::{field, scale};

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 16;

/// The grid (`kvalues_iq4nl` in ggml-common.h): denser near zero, as weights are.
pub(super) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    expand(d, field::<2, 16, BYTES>(block), out);
}

/// 32 grid values times `d`. IQ4_XS shares this packing.
#[inline(always)]
pub(super) fn expand(d: f32, qs: &[u8; 16], out: &mut [f32; 32]) {
    for j in 0..16 {
        out[j] = d * f32::from(VALUES[usize::from(qs[j] & 15)]);
        out[j + 16] = d * f32::from(VALUES[usize::from(qs[j] >> 4)]);
    }
}
