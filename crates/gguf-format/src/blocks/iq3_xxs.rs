//! IQ3_XXS: 256 values in 64 points of four magnitudes out of a grid of 256: `x = d (sc + 1/2) / 2 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..66  qs: the indices
//!      66..98  one little-endian word for 8 points: |scale 4|signs 3 |signs 2 |signs 1 |signs 0 |, 7 bits for two points; the
//!              eighth sign makes the number of negative values even
//! ```

use super::grids::{even_signs, signed};
use super::iq3_grids::IQ3_XXS;
use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 96;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let words: &[u8; 32] = field::<66, 32, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let word = u32::from_le_bytes(words.as_chunks().0[i / 8]);
        let dl = d * (0.5 + (word >> 28) as f32) * 0.5;
        let signs = even_signs(word >> (7 * (i / 2 % 4))) >> (4 * (i % 2));
        signed(dl, &IQ3_XXS[usize::from(qs[i])], signs, out);
    }
}
