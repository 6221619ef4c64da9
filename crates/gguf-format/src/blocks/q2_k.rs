//! Q2_K: 256 values in 16 sub-blocks of 16, 2-bit codes, 4-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte   0..16  scales: byte j is sub-block j's scale in its low nibble, its minimum in the high nibble
//!       16..80  qs: 128 values share 32 bytes; byte l holds codes l, l + 32, l + 64, l + 96 from the low bits up
//!       80..82  d, binary16
//!       82..84  dmin, binary16
//! ```

use super::affine_search::{Candidates, affine_search};
use super::codes::scaled_and_moved;
use super::lanes::{Lanes, build, each, sum_of_squares, sums, transpose, zip};
use super::packing::{field, field_mut, scale, write_scale};
use super::rounding::nearest_int;
use super::scale_search::scale_search;
use super::simd::one_at_a_time;
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 16 + 64 + 2 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let scales: &[u8; 16] = field::<0, 16, BYTES>(block);
    let qs: &[u8; 64] = field::<16, 64, BYTES>(block);
    let d = scale::<80, BYTES>(block);
    let dmin = scale::<82, BYTES>(block);
    let codes = two_bits(qs);
    for (j, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        one_at_a_time();
        let dl = d * f32::from(scales[j] & 15);
        let ml = dmin * f32::from(scales[j] >> 4);
        scaled_and_moved(&codes.as_chunks().0[j], dl, -ml, out);
    }
}

/// The 256 2-bit codes in order. Q3_K shares this packing.
#[inline(always)]
pub(super) fn two_bits(qs: &[u8; 64]) -> [i8; 256] {
    let mut codes = [0; 256];
    for (codes, qs) in codes.as_chunks_mut::<128>().0.iter_mut().zip(qs.as_chunks::<32>().0) {
        for (shift, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, &q) in codes.iter_mut().zip(qs) {
                *code = (q >> (2 * shift) & 3) as i8;
            }
        }
    }
    codes
}

/// First byte in `qs` and shift of the 2-bit codes of sub-block `j`. Q3_K shares this packing.
#[inline(always)]
pub(super) fn codes_at(j: usize) -> (usize, usize) {
    (32 * (j / 8) + 16 * (j % 2), 2 * (j % 8 / 2))
}

/// Without weights `quantize_row_q2_K_ref`, with them `quantize_row_q2_K_impl`.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let sigma2 = if importance.is_some() { sum_of_squares(x) / 256.0 } else { 0.0 };
    let (mut scales, mut mins, mut weights) = ([0.0; 16], [0.0; 16], [0.0; 16]);
    let mut codes = [0; LEN];
    // Two times eight sub-blocks: sixteen lanes would not fit the registers of the smallest SIMD.
    for half in 0..2 {
        let values = &x[128 * half..][..128];
        let lanes: Lanes<8, 16> = transpose(values);
        let found = match importance {
            None => {
                let candidates = Candidates { nmax: 3.0, first: -0.5, step: 0.1, steps: 15 };
                affine_search::<true, 8, 16>(&lanes, &zip(&lanes, &lanes, |x, _| x.abs()), &candidates)
            }
            Some(importance) => {
                let importance = transpose(&importance[128 * half..][..128]);
                let w = zip(&lanes, &importance, |x, importance| importance * (sigma2 + x * x).sqrt());
                weights[8 * half..][..8].copy_from_slice(&sums(&w));
                let candidates = Candidates { nmax: 3.0, first: -0.9, step: 0.05, steps: 36 };
                affine_search::<false, 8, 16>(&lanes, &w, &candidates)
            }
        };
        scales[8 * half..][..8].copy_from_slice(&found.scale);
        mins[8 * half..][..8].copy_from_slice(&found.min);
        let codes = codes[128 * half..][..128].as_chunks_mut::<16>().0;
        for (j, (codes, x)) in codes.iter_mut().zip(values.as_chunks().0).enumerate() {
            *codes = found.codes(j, x);
        }
    }

    let packed = field_mut::<0, 16, BYTES>(block);
    let (d, dmin);
    if importance.is_some() {
        let (low, high);
        (d, low) = scale_search(15, &scales, &weights);
        (dmin, high) = scale_search(15, &mins, &weights);
        *packed = build(|j| low[j] | high[j] << 4);
    } else {
        let (low, high);
        (d, low) = divide_by_largest(&scales);
        (dmin, high) = divide_by_largest(&mins);
        *packed = build(|j| low[j] | high[j] << 4);
    }
    let packed = *packed;
    write_scale::<80, BYTES>(block, d);
    write_scale::<82, BYTES>(block, dmin);

    // The codes again, for the scales as they can be read back.
    let (d, dmin) = (scale::<80, BYTES>(block), scale::<82, BYTES>(block));
    for (j, (codes, x)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0).enumerate() {
        let d = d * f32::from(packed[j] & 15);
        if d != 0.0 {
            let min = dmin * f32::from(packed[j] >> 4);
            *codes = each(x, |x| nearest_int((x + min) / d).clamp(0, 3) as u8);
        }
    }
    pack(&codes, field_mut::<16, 64, BYTES>(block));
}

/// 4-bit codes of `x` and their scale: the largest gets 15.
#[inline(always)]
fn divide_by_largest(x: &[f32; 16]) -> (f32, [u8; 16]) {
    let max = x.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    if max > 0.0 {
        let inverse = 15.0 / max;
        (max / 15.0, each(x, |x| nearest_int(inverse * x) as u8))
    } else {
        (0.0, [0; 16])
    }
}

/// Four 2-bit codes to a byte. Q3_K shares it.
#[inline(always)]
pub(super) fn pack(codes: &[u8; 256], qs: &mut [u8; 64]) {
    for (codes, qs) in codes.as_chunks::<128>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        for l in 0..32 {
            qs[l] = codes[l] | codes[l + 32] << 2 | codes[l + 64] << 4 | codes[l + 96] << 6;
        }
    }
}
