//! Q4_0: 32 values, one scale, 4-bit codes around 8: `x = d (q - 8)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..18  qs: byte j holds code j in its low nibble and code j + 16 in its high nibble
//! ```

use super::codes::{nibbles, scaled};
use super::lanes::{Lanes, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::rounding::truncate;
use super::symmetric_search::symmetric_search;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let qs: &[u8; 16] = field::<2, 16, BYTES>(block);
    scaled(&each(&nibbles::<16, LEN>(qs), |q| q - 8), d, out);
}

/// Without weights: the value of largest magnitude gets code 0, that is -8 (`quantize_row_q4_0_ref`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = signed_extreme(x) / -8.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    write_scale::<0, BYTES>(block, d);
    let codes = each(x, |x| (truncate(x * inverse + 8.5) as i8).min(15) as u8);
    pack(&codes, field_mut::<2, 16, BYTES>(block));
}

/// With weights, eight blocks (`quantize_row_q4_0_impl`).
#[inline(always)]
pub(super) fn quantize_weighted(
    x: &[f32; 8 * LEN],
    lanes: &Lanes<8, LEN>,
    w: &Lanes<8, LEN>,
    blocks: &mut [[u8; BYTES]],
) {
    let found = symmetric_search(8.0, lanes, w);
    for (j, (x, block)) in x.as_chunks().0.iter().zip(blocks).enumerate() {
        write_scale::<0, BYTES>(block, found.scale[j]);
        pack(&found.codes(j, x), field_mut::<2, 16, BYTES>(block));
    }
}

/// The value of largest magnitude, the first of equals; of zeros of any sign, +0. Q5_0 shares it.
#[inline(always)]
pub(super) fn signed_extreme(x: &[f32; LEN]) -> f32 {
    let amax = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    if amax == 0.0 { 0.0 } else { x.iter().copied().find(|x| x.abs() == amax).unwrap_or(0.0) }
}

/// Two codes to a byte. Q4_1 and IQ4_NL share it.
#[inline(always)]
pub(super) fn pack(codes: &[u8; 32], qs: &mut [u8; 16]) {
    for j in 0..16 {
        qs[j] = codes[j] | codes[j + 16] << 4;
    }
}
