//! IQ2_XS: 256 values in 32 points of eight magnitudes out of a grid of 512: `x = d (sc + 1/2) / 4 * point * sign`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..66  qs, 32 times 16 bits, little-endian: index in the low 9 bits, then 7 signs; the eighth makes the number of negative
//!              values even
//!      66..74  scales: byte i holds that of points 4 i, 4 i + 1 in its low nibble, of 4 i + 2, 4 i + 3 in its high nibble
//! ```

use super::grids::{even_signs, signed};
use super::iq2_grids::IQ2_XS;
use super::lanes::{each, sum_of_squares};
use super::lattice::Lattice;
use super::magnitudes::{Magnitudes, split_even};
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::{Again, Found, Search, divide_by_largest, largest, point_search, weights};
use super::simd::one_at_a_time;
use super::symmetric_search::ZERO;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64 + 8;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let scales: &[u8; 8] = field::<66, 8, BYTES>(block);
    for (i, (out, q)) in out.as_chunks_mut::<8>().0.iter_mut().zip(qs.as_chunks::<2>().0).enumerate() {
        one_at_a_time();
        let q = u16::from_le_bytes(*q);
        signed(point_scale(d, scales, i), &IQ2_XS[usize::from(q & 511)], even_signs(u32::from(q >> 9)), out);
    }
}

/// The scale of point `i`. IQ2_S shares it.
#[inline(always)]
pub(super) fn point_scale(d: f32, scales: &[u8; 8], i: usize) -> f32 {
    d * (0.5 + f32::from(scales[i / 4] >> (4 * (i / 2 % 2)) & 15)) * 0.25
}

/// Scales of 16 values, 4 bits each, and 9-bit indices with 7 signs (`quantize_row_iq2_xs_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, sum_of_squares(x) / 256.0, 0.0);
    let split = split_even(x, &w);
    let Points { scales, codes, zero } = find_points(lattice, &split, &w, ZERO);
    let (max, l) = divide_by_largest(&scales);
    *block = [0; BYTES];
    write_scale::<0, BYTES>(block, max / 31.0);
    if max == 0.0 {
        return;
    }
    for (i, q) in field_mut::<2, 64, BYTES>(block).as_chunks_mut().0.iter_mut().enumerate() {
        if !zero[i / 2] {
            let flip = if scales[i / 2] < 0.0 { 127 } else { 0 };
            let signs = u16::from((split.signs[i] ^ flip) & 127);
            *q = (lattice.index(codes[i]) | signs << 9).to_le_bytes();
        }
    }
    *field_mut::<66, 8, BYTES>(block) = pack_scales(&l);
}

/// What the search finds for 16 sub-blocks of two points.
pub(super) struct Points {
    pub(super) scales: [f32; 16],
    pub(super) codes: [u32; 32],
    /// Whether the sub-block counts as zero.
    pub(super) zero: [bool; 16],
}

/// Searches the sub-blocks; one whose largest magnitude is below `least` counts as zero. IQ2_S shares it.
#[inline(always)]
pub(super) fn find_points(lattice: &Lattice, split: &Magnitudes, w: &[f32; LEN], least: f32) -> Points {
    let search = Search { steps: 9, step: 0.1, again: Again::Off };
    let mut points = Points { scales: [0.0; 16], codes: [0; 32], zero: [false; 16] };
    for (half, (x, w)) in split.values.as_chunks::<128>().0.iter().zip(w.as_chunks::<128>().0).enumerate() {
        let largest = largest::<16>(x, least);
        let start = each(&largest, |largest| largest / 5.0);
        let Found { scales, codes } = point_search::<16, 8, 2>(&search, lattice, x, w, &largest, &start);
        for j in 0..8 {
            let at = 8 * half + j;
            points.scales[at] = scales[j];
            points.zero[at] = largest[j] == 0.0;
            points.codes[2 * at] = codes[0][j];
            points.codes[2 * at + 1] = codes[1][j];
        }
    }
    points
}

/// The inverse of [`point_scale`]: 16 4-bit scales.
#[inline(always)]
pub(super) fn pack_scales(l: &[u8; 16]) -> [u8; 8] {
    core::array::from_fn(|i| l[2 * i] | l[2 * i + 1] << 4)
}
