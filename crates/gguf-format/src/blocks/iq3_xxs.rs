//! IQ3_XXS: 256 values in 64 points of four magnitudes out of a grid of 256: `x = d (sc + 1/2) / 2 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..66  qs: the indices
//!      66..98  one little-endian word for 8 points: |scale 4|signs 3 |signs 2 |signs 1 |signs 0 |, 7 bits for two points; the
//!              eighth sign makes the number of negative values even
//! ```

use super::grids::{both, even_signs, signed};
use super::iq3_grids::IQ3_XXS;
use super::lanes::{each, sum_of_squares};
use super::lattice::Lattice;
use super::magnitudes::split_even;
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::{Again, Found, Search, divide_by_largest, largest, point_search, weights};
use super::simd::one_at_a_time;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 96;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let words: &[u8; 32] = field::<66, 32, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let word = u32::from_le_bytes(words.as_chunks().0[i]);
        let dl = d * (0.5 + (word >> 28) as i32 as f32) * 0.5;
        let qs = &qs.as_chunks::<8>().0[i];
        for (k, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            one_at_a_time();
            let (a, b) = (usize::from(qs[2 * k]), usize::from(qs[2 * k + 1]));
            signed(dl, &both(IQ3_XXS[a], IQ3_XXS[b]), even_signs(word >> (7 * k)), out);
        }
    }
}

/// Below this magnitude a sub-block counts as zero (`GROUP_MAX_EPS_IQ3_XXS`).
const ZERO: f32 = 1e-8;

/// 31 candidates for each 32 values (`quantize_row_iq3_xxs_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, 2.0 * sum_of_squares(x) / 256.0, 0.0);
    let split = split_even(x, &w);
    let largest = largest::<32>(&split.values, ZERO);
    let start = each(&largest, |largest| largest / 15.0);
    let search = Search { steps: 15, step: 0.2, again: Again::Off };
    let Found { scales, codes } = point_search::<32, 4, 8>(&search, lattice, &split.values, &w, &largest, &start);
    let (max, l) = divide_by_largest(&scales);
    *block = [0; BYTES];
    write_scale::<0, BYTES>(block, max / 31.0 * 1.0125);
    if max == 0.0 {
        return;
    }
    for (j, qs) in field_mut::<2, 64, BYTES>(block).as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for k in 0..8 {
            qs[k] = lattice.index(codes[k][j]) as u8;
        }
    }
    for (j, word) in field_mut::<66, 32, BYTES>(block).as_chunks_mut().0.iter_mut().enumerate() {
        let mut bits = u32::from(l[j]) << 28;
        if largest[j] != 0.0 {
            let flip = if scales[j] < 0.0 { 127 } else { 0 };
            for k in 0..4 {
                bits |= u32::from((split.signs[4 * j + k] ^ flip) & 127) << (7 * k);
            }
        }
        *word = bits.to_le_bytes();
    }
}
