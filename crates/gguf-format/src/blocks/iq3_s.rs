//! IQ3_S: 256 values in 64 points of four magnitudes out of a grid of 512: `x = d (2 sc + 1) * point * sign`.
//!
//! ```text
//! byte   0..2    d, binary16
//!        2..66   qs: the low 8 bits of the indices
//!       66..74   qh: bit i % 8 of byte i / 8 is the high bit of index i
//!       74..106  signs: bit j of byte i is set where value 8 i + j is negative
//!      106..110  scales, 4 bits for 8 points, the low nibble first
//! ```

use super::grids::signed;
use super::iq3_grids::IQ3_S;
use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64 + 8 + 32 + 4;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let qh: &[u8; 8] = field::<66, 8, BYTES>(block);
    let signs: &[u8; 32] = field::<74, 32, BYTES>(block);
    let scales: &[u8; 4] = field::<106, 4, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let index = usize::from(qs[i]) | usize::from(qh[i / 8] >> (i % 8) & 1) << 8;
        let dl = d * f32::from(1 + 2 * (scales[i / 16] >> (4 * (i / 8 % 2)) & 15));
        signed(dl, &IQ3_S[index], signs[i / 2] >> (4 * (i % 2)), out);
    }
}
