//! Q5_1: 32 values, scale and minimum, 5-bit codes: `x = d q + m`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..4   m, binary16
//!       4..8   qh, little-endian: bit j is the fifth bit of code j
//!       8..24  qs: byte j holds the low bits of code j in its low nibble and of code j + 16 in its high nibble
//! ```

use super::affine_search::{Candidates, affine_search};
use super::lanes::{Lanes, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_1::extremes;
use super::q5_0;
use super::rounding::truncate;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 2 + 4 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let m = scale::<2, BYTES>(block);
    let codes = q5_0::codes(field::<4, 4, BYTES>(block), field::<8, 16, BYTES>(block));
    for (x, q) in out.iter_mut().zip(codes) {
        *x = i32::from(q) as f32 * d + m;
    }
}

/// Without weights: the codes span the values from least to greatest (`quantize_row_q5_1_ref`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (min, max) = extremes(x);
    let d = (max - min) / 31.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let codes = each(x, |x| truncate((x - min) * inverse + 0.5) as u8);
    write(d, min, &codes, block);
}

/// With weights, eight blocks (`quantize_row_q5_1_impl`).
#[inline(always)]
pub(super) fn quantize_weighted(
    x: &[f32; 8 * LEN],
    lanes: &Lanes<8, LEN>,
    w: &Lanes<8, LEN>,
    blocks: &mut [[u8; BYTES]],
) {
    let candidates = Candidates { nmax: 31.0, first: -0.9, step: 0.05, steps: 36 };
    let found = affine_search::<false, 8, LEN>(lanes, w, &candidates);
    for (j, (x, block)) in x.as_chunks().0.iter().zip(blocks).enumerate() {
        write(found.scale[j], -found.min[j], &found.codes(j, x), block);
    }
}

#[inline(always)]
fn write(d: f32, min: f32, codes: &[u8; 32], block: &mut [u8; BYTES]) {
    write_scale::<0, BYTES>(block, d);
    write_scale::<2, BYTES>(block, min);
    *field_mut::<4, 4, BYTES>(block) = q5_0::high_bits(codes);
    q5_0::low_bits(codes, field_mut::<8, 16, BYTES>(block));
}
