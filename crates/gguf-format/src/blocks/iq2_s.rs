//! IQ2_S: 256 values in 32 points of eight magnitudes out of a grid of 1024: `x = d (sc + 1/2) / 4 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..34  qs: the low 8 bits of the indices
//!      34..66  signs: bit j of byte i is set where value j of point i is negative
//!      66..74  qh: bits 2 (i % 4).. of byte i / 4 are the high bits of index i
//!      74..82  scales, as those of IQ2_XS
//! ```

use super::grids::signed;
use super::iq2_grids::IQ2_S;
use super::iq2_xs::point_scale;
use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64 + 8 + 8;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 32] = field::<2, 32, BYTES>(block);
    let signs: &[u8; 32] = field::<34, 32, BYTES>(block);
    let qh: &[u8; 8] = field::<66, 8, BYTES>(block);
    let scales: &[u8; 8] = field::<74, 8, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let index = usize::from(qs[i]) | usize::from(qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
        signed(point_scale(d, scales, i), &IQ2_S[index], signs[i], out);
    }
}
