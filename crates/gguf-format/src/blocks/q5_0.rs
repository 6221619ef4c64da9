//! Q5_0: 32 values, one scale, 5-bit codes around 16: `x = d (q - 16)`.
//!
//! ```text
//! byte  0..2   d, binary16
//!       2..6   qh, little-endian: bit j is the fifth bit of code j
//!       6..22  qs: byte j holds the low bits of code j in its low nibble and of code j + 16 in its high nibble
//! ```

use super::lanes::{Lanes, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_0::signed_extreme;
use super::rounding::truncate;
use super::symmetric_search::symmetric_search;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 2 + 4 + 16;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = scale::<0, BYTES>(block);
    let codes = codes(field::<2, 4, BYTES>(block), field::<6, 16, BYTES>(block));
    for (x, q) in out.iter_mut().zip(codes) {
        *x = (i32::from(q) - 16) as f32 * d;
    }
}

/// The 32 codes, from their high bits and their nibbles. Q5_1 shares this packing.
#[inline(always)]
pub(super) fn codes(qh: &[u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let qh = u32::from_le_bytes(*qh);
    let mut codes = [0; 32];
    for j in 0..16 {
        codes[j] = (qs[j] & 15) | ((qh >> j << 4) & 16) as u8;
        codes[j + 16] = (qs[j] >> 4) | ((qh >> (j + 16) << 4) & 16) as u8;
    }
    codes
}

/// Without weights: the value of largest magnitude gets code 0, that is -16 (`quantize_row_q5_0_ref`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let d = signed_extreme(x) / -16.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let codes = each(x, |x| (truncate(x * inverse + 16.5) as i8).min(31) as u8);
    write(d, &codes, block);
}

/// With weights, eight blocks (`quantize_row_q5_0_impl`).
#[inline(always)]
pub(super) fn quantize_weighted(
    x: &[f32; 8 * LEN],
    lanes: &Lanes<8, LEN>,
    w: &Lanes<8, LEN>,
    blocks: &mut [[u8; BYTES]],
) {
    let found = symmetric_search(16.0, lanes, w);
    for (j, (x, block)) in x.as_chunks().0.iter().zip(blocks).enumerate() {
        write(found.scale[j], &found.codes(j, x), block);
    }
}

#[inline(always)]
fn write(d: f32, codes: &[u8; 32], block: &mut [u8; BYTES]) {
    write_scale::<0, BYTES>(block, d);
    *field_mut::<2, 4, BYTES>(block) = high_bits(codes);
    low_bits(codes, field_mut::<6, 16, BYTES>(block));
}

/// The fifth bits of the codes. Q5_1 shares it.
#[inline(always)]
pub(super) fn high_bits(codes: &[u8; 32]) -> [u8; 4] {
    let mut qh = 0u32;
    for (j, &code) in codes.iter().enumerate() {
        qh |= (u32::from(code) >> 4 & 1) << j;
    }
    qh.to_le_bytes()
}

/// The nibbles of the codes. Q5_1 shares it.
#[inline(always)]
pub(super) fn low_bits(codes: &[u8; 32], qs: &mut [u8; 16]) {
    for j in 0..16 {
        qs[j] = codes[j] & 15 | codes[j + 16] << 4;
    }
}
