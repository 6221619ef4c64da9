//! Q3_K: 256 values in 16 sub-blocks of 16, 3-bit codes around 4, 6-bit scales around 32: `x = d (sc - 32) (q - 4)`.
//!
//! ```text
//! byte   0..32   hmask: bit i of byte l is the third bit of code 32 i + l
//!       32..96   qs: 128 values share 32 bytes; byte l holds the low bits of codes l, l + 32, l + 64, l + 96 from the low bits up
//!       96..108  scales: the low nibbles of bytes 0..8 are the low bits of scales 0..8, the high nibbles of scales 8..16;
//!                the two high bits of scale j are bits 2 (j / 4).. of byte 8 + j % 4
//!      108..110  d, binary16
//! ```

use super::descent_search::descent_search;
use super::lanes::{Lanes, each, sum_of_squares, sums, transpose, zip};
use super::packing::{field, field_mut, scale, write_scale};
use super::q2_k::{codes_at, pack};
use super::rounding::nearest_int;
use super::symmetric_search::symmetric_search;
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 32 + 64 + 12 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let hmask: &[u8; 32] = field::<0, 32, BYTES>(block);
    let qs: &[u8; 64] = field::<32, 64, BYTES>(block);
    let scales = unpack_scales(field::<96, 12, BYTES>(block));
    let d = scale::<108, BYTES>(block);
    for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(scales[j]);
        let (first, shift) = codes_at(j);
        let high = 16 * (j % 2);
        for ((x, &q), &h) in out.iter_mut().zip(&qs[first..first + 16]).zip(&hmask[high..high + 16]) {
            *x = dl * ((q >> shift & 3) as i8 - 4 * (1 - (h >> (j / 2) & 1) as i8)) as f32;
        }
    }
}

/// The 16 signed scales, -32..=31.
#[inline(always)]
fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    let mut scales = [0; 16];
    for (j, scale) in scales.iter_mut().enumerate() {
        let low = packed[j % 8] >> (4 * (j / 8)) & 15;
        let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
        *scale = (low | high << 4) as i8 - 32;
    }
    scales
}

/// Without weights `quantize_row_q3_K_ref`, with them `quantize_row_q3_K_impl`.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let lanes: Lanes<16, 16> = transpose(x);
    let mut codes = [0; LEN];
    let scales; // 0..64
    let d;
    match importance {
        None => {
            let found = descent_search(4.0, &lanes);
            for (j, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                *codes = found.codes(j);
            }
            (d, scales) = divide_by_largest(&found.scale);
        }
        Some(importance) => {
            let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
            let importance = transpose(importance);
            let w = zip(&lanes, &importance, |x, importance| importance * (sigma2 + x * x).sqrt());
            let found = symmetric_search(4.0, &lanes, &w);
            for (j, (codes, x)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks().0).enumerate() {
                *codes = found.codes(j, x);
            }
            // The scales as one sub-block of one lane, weighted by their sub-blocks' weight.
            let (one, weights) = (each(&found.scale, |scale| [scale]), each(&sums(&w), |sum| [sum]));
            let outer = symmetric_search(32.0, &one, &weights);
            (d, scales) = (outer.scale[0], outer.codes(0, &found.scale));
        }
    }
    *field_mut::<96, 12, BYTES>(block) = pack_scales(&scales);
    write_scale::<108, BYTES>(block, d);

    // The codes again, for the scales as they can be read back.
    let d = scale::<108, BYTES>(block);
    for (j, (codes, x)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0).enumerate() {
        let d = d * (i32::from(scales[j]) - 32) as f32;
        if d != 0.0 {
            *codes = each(x, |x| (nearest_int(x / d).clamp(-4, 3) + 4) as u8);
        }
    }
    let hmask = field_mut::<0, 32, BYTES>(block);
    *hmask = [0; 32];
    for (i, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (h, &code) in hmask.iter_mut().zip(codes) {
            *h |= (code >> 2) << i;
        }
    }
    pack(&each(&codes, |code| code & 3), field_mut::<32, 64, BYTES>(block));
}

/// 6-bit codes around 32 of the sub-blocks' scales, and their scale: the one of largest magnitude gets 0, that is -32.
#[inline(always)]
fn divide_by_largest(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let (mut amax, mut max) = (0.0, 0.0);
    for &x in x {
        if x.abs() > amax {
            (amax, max) = (x.abs(), x);
        }
    }
    if max == 0.0 {
        // All bits clear, which reads as -32, times a scale of zero.
        return (0.0, [0; 16]);
    }
    let inverse = -32.0 / max;
    (1.0 / inverse, each(x, |x| ((nearest_int(inverse * x) as i8).clamp(-32, 31) + 32) as u8))
}

#[inline(always)]
fn pack_scales(scales: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (j, &scale) in scales.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
    packed
}
