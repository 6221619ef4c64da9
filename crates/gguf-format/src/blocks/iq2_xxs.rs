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
use super::lanes::{each, sum_of_squares};
use super::lattice::Lattice;
use super::magnitudes::split_even;
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::{Again, Found, Search, divide_by_largest, largest, point_search, weights};
use super::scale_search::scale_search;
use super::simd::one_at_a_time;
use super::symmetric_search::ZERO;

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
            one_at_a_time();
            signed(dl, &IQ2_XXS[usize::from(index)], even_signs(bits >> (7 * l)), out);
        }
    }
}

/// The candidates are around three times the scale of a search with levels 0 to 4 (`quantize_row_iq2_xxs_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, sum_of_squares(x) / 256.0, 0.0);
    let split = split_even(x, &w);
    let mut start = largest::<32>(&split.values, ZERO);
    for ((start, x), w) in start.iter_mut().zip(split.values.as_chunks::<32>().0).zip(w.as_chunks().0) {
        *start = if *start == 0.0 { 0.0 } else { scale_search(4, x, w).0 };
    }
    let search = Search { steps: 6, step: 0.1, again: Again::All };
    let largest = each(&start, |start| if start * 3.0 <= 0.0 { 0.0 } else { start * 3.0 });
    let Found { scales, codes } = point_search::<32, 8, 4>(&search, lattice, &split.values, &w, &largest, &start);
    let (max, l) = divide_by_largest(&scales);
    *block = [0; BYTES];
    write_scale::<0, BYTES>(block, max / 31.0);
    if max == 0.0 {
        return;
    }
    for (j, group) in field_mut::<2, 64, BYTES>(block).as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut bits = u32::from(l[j]) << 28;
        if largest[j] != 0.0 {
            let flip = if scales[j] < 0.0 { 127 } else { 0 };
            for k in 0..4 {
                group[k] = lattice.index(codes[k][j]) as u8;
                bits |= u32::from((split.signs[4 * j + k] ^ flip) & 127) << (7 * k);
            }
        }
        group[4..].copy_from_slice(&bits.to_le_bytes());
    }
}
