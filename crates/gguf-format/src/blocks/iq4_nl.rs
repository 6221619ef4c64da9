//! IQ4_NL: 32 values, one scale, 4-bit indices into a fixed uneven grid: `x = d VALUES[q]`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: byte j holds index j in its low nibble and index j + 16 in its high nibble
//! ```

use super::grid_search::grid_search;
use super::lanes::{Lanes, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_0::pack;

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

/// Eight blocks with weights `w` (`quantize_row_iq4_nl_impl` with 7 tries to each side).
#[inline(always)]
pub(super) fn quantize(x: &[f32; 8 * LEN], lanes: &Lanes<8, LEN>, w: &Lanes<8, LEN>, blocks: &mut [[u8; BYTES]]) {
    let scales = grid_search(lanes, w);
    for (j, (x, block)) in x.as_chunks::<LEN>().0.iter().zip(blocks).enumerate() {
        write_scale::<0, BYTES>(block, scales[j]);
        let inverse = if scales[j] != 0.0 { 1.0 / scales[j] } else { 0.0 };
        pack(&each(x, |x| index(inverse * x)), field_mut::<2, 16, BYTES>(block));
    }
}

/// Index of the grid value nearest to `x`, the higher one at a tie (`best_index_int8`); NaN gives the last.
#[inline(always)]
pub(super) fn index(x: f32) -> u8 {
    let mut index = 0;
    for k in 0..15 {
        index += 1 - u8::from(x < midpoint(k));
    }
    index
}

/// Grid value nearest to `x`, chosen as [`index`] does.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    let mut value = f32::from(VALUES[0]);
    for k in 0..15 {
        value += if x < midpoint(k) { 0.0 } else { f32::from(VALUES[k + 1]) - f32::from(VALUES[k]) };
    }
    value
}

#[inline(always)]
fn midpoint(k: usize) -> f32 {
    (f32::from(VALUES[k]) + f32::from(VALUES[k + 1])) / 2.0
}
