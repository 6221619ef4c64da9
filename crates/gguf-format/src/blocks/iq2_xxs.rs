//! IQ2_XXS: 256 values in 8 groups of 32, each four indices into a grid of 256 points of eight magnitudes:
//! `x = d (sc + 1/2) / 4 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..66  a group has 8 bytes: four 8-bit indices, then little-endian |scale 4|signs 3 |signs 2 |signs 1 |signs 0 |,
//!              7 bits a point; the eighth sign makes the number of negative values even
//! ```

use super::grids::{even_signs, signed};
use super::iq2_grids::IQ2_XXS;
use super::packing::{field, scale};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let groups: &[u8; 64] = field::<2, 64, BYTES>(block);
    for (out, group) in out.as_chunks_mut::<32>().0.iter_mut().zip(groups.as_chunks::<8>().0) {
        let [a, b, c, e, bits @ ..] = *group;
        let bits = u32::from_le_bytes(bits);
        let dl = d * (0.5 + (bits >> 28) as f32) * 0.25;
        for (l, (out, index)) in out.as_chunks_mut::<8>().0.iter_mut().zip([a, b, c, e]).enumerate() {
            signed(dl, &IQ2_XXS[usize::from(index)], even_signs(bits >> (7 * l)), out);
        }
    }
}
