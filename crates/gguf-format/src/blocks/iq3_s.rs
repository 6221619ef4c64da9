//! IQ3_S: 256 values in 64 points of four magnitudes out of a grid of 512: `x = d (2 sc + 1) * point * sign`.
//!
//! ```text
//! byte   0..2    d, binary16
//!        2..66   qs: the low 8 bits of the indices
//!       66..74   qh: bit i % 8 of byte i / 8 is the high bit of index i
//!       74..106  signs: bit j of byte i is set where value 8 i + j is negative
//!      106..110  scales, 4 bits for 8 points, the low nibble first
//! ```

use super::grids::{both, signed};
use super::iq3_grids::IQ3_S;
use super::lanes::{each, sum_of_squares};
use super::lattice::Lattice;
use super::magnitudes::split;
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::{Again, Found, Search, divide_by_largest, largest, point_search, weights};
use super::simd::one_at_a_time;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 64 + 8 + 32 + 4;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 64] = field::<2, 64, BYTES>(block);
    let qh: &[u8; 8] = field::<66, 8, BYTES>(block);
    let signs: &[u8; 32] = field::<74, 32, BYTES>(block);
    let scales: &[u8; 4] = field::<106, 4, BYTES>(block);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let dl = d * f32::from(1 + 2 * (scales[i / 2] >> (4 * (i % 2)) & 15));
        let (qs, signs) = (&qs.as_chunks::<8>().0[i], &signs.as_chunks::<4>().0[i]);
        // The high bit of index k is moved to bit 8.
        let index = |k: usize| usize::from(qs[k]) | usize::from(qh[i]) << (8 - k) & 256;
        for (k, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            one_at_a_time();
            signed(dl, &both(IQ3_S[index(2 * k)], IQ3_S[index(2 * k + 1)]), signs[k], out);
        }
    }
}

/// Below this magnitude a sub-block counts as zero: the least that there is.
const ZERO: f32 = f32::from_bits(1);

/// 19 candidates for each 32 values, all signs (`quantize_row_iq3_s_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let w = weights(x, importance, 2.0 * sum_of_squares(x) / 256.0, 0.0);
    let split = split(x);
    let largest = largest::<32>(&split.values, ZERO);
    let start = each(&largest, |largest| largest / 15.0);
    let search = Search { steps: 9, step: 0.2, again: Again::AllIfAnyOff };
    let Found { scales, codes } = point_search::<32, 4, 8>(&search, lattice, &split.values, &w, &largest, &start);
    let (max, l) = divide_by_largest(&scales);
    *block = [0; BYTES];
    write_scale::<0, BYTES>(block, max / 31.0 * 1.033);
    // As in ggml, codes and signs of a sub-block of zeros are left out, so that those behind it move up and are read as another's;
    // their high bits stay. Blocks with such sub-blocks come out wrong, but they are the reference's.
    let mut place = 0;
    for j in 0..8 {
        if largest[j] != 0.0 {
            for (k, codes) in codes.iter().enumerate() {
                let index = lattice.index(codes[j]);
                field_mut::<2, 64, BYTES>(block)[8 * place + k] = index as u8;
                field_mut::<66, 8, BYTES>(block)[j] |= ((index >> 8) as u8) << k;
            }
            for i in 0..4 {
                let signs = split.signs[4 * j + i];
                field_mut::<74, 32, BYTES>(block)[4 * place + i] = if scales[j] < 0.0 { !signs } else { signs };
            }
            place += 1;
        }
    }
    *field_mut::<106, 4, BYTES>(block) = core::array::from_fn(|i| l[2 * i] | l[2 * i + 1] << 4);
}
