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
use super::iq2_xs::{Points, find_points, pack_scales, point_scale};
use super::lanes::sum_of_squares;
use super::lattice::Lattice;
use super::magnitudes::split;
use super::packing::{field, field_mut, scale, write_scale};
use super::point_search::{divide_by_largest, weights};
use super::simd::one_at_a_time;

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
        one_at_a_time();
        let index = usize::from(qs[i]) | usize::from(qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
        signed(point_scale(d, scales, i), &IQ2_S[index], signs[i], out);
    }
}

/// Below this magnitude a sub-block counts as zero (`GROUP_MAX_EPS_IQ2_S`).
const ZERO: f32 = 1e-8;

/// As IQ2_XS, with 10-bit indices and all signs (`quantize_row_iq2_s_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES], lattice: &Lattice) {
    let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
    let w = weights(x, importance, sigma2, 0.25 * sigma2);
    let split = split(x);
    let Points { scales, codes, zero } = find_points(lattice, &split, &w, ZERO);
    let (max, l) = divide_by_largest(&scales);
    *block = [0; BYTES];
    write_scale::<0, BYTES>(block, max / 31.0 * 0.9875);
    for i in 0..32 {
        if !zero[i / 2] {
            let index = lattice.index(codes[i]);
            field_mut::<2, 32, BYTES>(block)[i] = index as u8;
            field_mut::<34, 32, BYTES>(block)[i] = if scales[i / 2] < 0.0 { !split.signs[i] } else { split.signs[i] };
            field_mut::<66, 8, BYTES>(block)[i / 4] |= ((index >> 8) as u8) << (2 * (i % 4));
        }
    }
    *field_mut::<74, 8, BYTES>(block) = pack_scales(&l);
}
