//! Q4_1: 32 values, scale and minimum, 4-bit codes: `x = d q + m`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..4   m, binary16
//!       4..20  qs: byte j holds code j in its low nibble and code j + 16 in its high nibble
//! ```

use super::affine_search::{Candidates, affine_search};
use super::codes::{nibbles, scaled_and_moved};
use super::lanes::{Lanes, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_0::pack;
use super::rounding::truncate;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let m = scale::<2, BYTES>(block);
    let qs: &[u8; 16] = field::<4, 16, BYTES>(block);
    scaled_and_moved(&nibbles::<16, LEN>(qs), d, m, out);
}

/// Without weights: the codes span the values from least to greatest (`quantize_row_q4_1_ref`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (min, max) = extremes(x);
    let d = (max - min) / 15.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    write_scale::<0, BYTES>(block, d);
    write_scale::<2, BYTES>(block, min);
    let codes = each(x, |x| (truncate((x - min) * inverse + 0.5) as i8).min(15) as u8);
    pack(&codes, field_mut::<4, 16, BYTES>(block));
}

/// With weights, eight blocks (`quantize_row_q4_1_impl`).
#[inline(always)]
pub(super) fn quantize_weighted(
    x: &[f32; 8 * LEN],
    lanes: &Lanes<8, LEN>,
    w: &Lanes<8, LEN>,
    blocks: &mut [[u8; BYTES]],
) {
    let candidates = Candidates { nmax: 15.0, first: -0.9, step: 0.05, steps: 36 };
    let found = affine_search::<false, 8, LEN>(lanes, w, &candidates);
    for (j, (x, block)) in x.as_chunks().0.iter().zip(blocks).enumerate() {
        write_scale::<0, BYTES>(block, found.scale[j]);
        write_scale::<2, BYTES>(block, -found.min[j]);
        pack(&found.codes(j, x), field_mut::<4, 16, BYTES>(block));
    }
}

/// Least and greatest value; of zeros of both signs, the first. Q5_1 shares it.
#[inline(always)]
pub(super) fn extremes(x: &[f32; LEN]) -> (f32, f32) {
    let min = x.iter().fold(f32::MAX, |min, &x| if x < min { x } else { min });
    let max = x.iter().fold(-f32::MAX, |max, &x| if x > max { x } else { max });
    (min, max)
}
