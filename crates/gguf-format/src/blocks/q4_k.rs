//! Q4_K: 256 values in 8 sub-blocks of 32, 4-bit codes, 6-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    dmin, binary16
//!       4..16   scales
//!      16..144  qs: 64 values share 32 bytes; byte l holds code l in its low nibble, code l + 32 in its high nibble
//!
//! scales:  byte 0..4   |s4+j hi|s0+j     |      sJ, mJ: 6 bits of sub-block J's scale and minimum;
//!               4..8   |m4+j hi|m0+j     |      hi: their bits 4 and 5, lo: bits 0 to 3
//!               8..12  |m4+j lo|s4+j lo  |
//! ```

use super::affine_search::{Affine, Candidates, affine_search};
use super::lanes::{Lanes, build, each, sum_of_squares, sums, sums_of_squares, transpose, zip};
use super::packing::{field, field_mut, scale, two_scales, write_scale};
use super::rounding::nearest_int;
use super::scale_search::scale_search;
use super::simd::{in_memory, one_at_a_time};
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 2 + 12 + 128;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let scaling = scaling(block);
    let (scales, mins) = in_memory(&scaling);
    let qs: &[u8; 128] = field::<16, 128, BYTES>(block);
    for (i, (out, qs)) in out.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0).enumerate() {
        one_at_a_time();
        let (d0, m0, d1, m1) = (scales[2 * i], mins[2 * i], scales[2 * i + 1], mins[2 * i + 1]);
        for (l, &q) in qs.iter().enumerate() {
            // Widened once for both codes.
            let q = i32::from(q);
            out[l] = d0 * (q & 15) as f32 + m0;
            out[l + 32] = d1 * (q >> 4) as f32 + m1;
        }
    }
}

/// What the codes of each sub-block are multiplied with, and what is added to them. Q5_K shares it.
#[inline(always)]
pub(super) fn scaling<const BYTES: usize>(block: &[u8; BYTES]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = two_scales(block);
    let (scales, mins) = unpack_scales(field::<4, 12, BYTES>(block));
    (each(&scales, |scale| d * f32::from(scale)), each(&mins, |min| -(dmin * f32::from(min))))
}

/// The 8 scales and the 8 minimums, 0..=63. Q5_K shares this packing.
#[inline(always)]
pub(super) fn unpack_scales(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    // Four bytes at a time.
    let [low, low_mins, rest] = [0, 4, 8].map(|at| u32::from_le_bytes(build(|i| packed[at + i])));
    let high = rest & 0x0f0f_0f0f | low >> 2 & 0x3030_3030;
    let high_mins = rest >> 4 & 0x0f0f_0f0f | low_mins >> 2 & 0x3030_3030;
    let both = |low: u32, high: u32| (u64::from(low & 0x3f3f_3f3f) | u64::from(high) << 32).to_le_bytes();
    (both(low, high), both(low_mins, high_mins))
}

/// Without weights `quantize_row_q4_K_ref`, with them `quantize_row_q4_K_impl`.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let candidates = match importance {
        None => Candidates { nmax: 15.0, first: -1.0, step: 0.1, steps: 20 },
        Some(_) => Candidates { nmax: 15.0, first: -0.9, step: 0.05, steps: 36 },
    };
    let Found { d, dmin, scales, mins, search } = find_scales(x, importance, &candidates);
    write_scale::<0, BYTES>(block, d);
    write_scale::<2, BYTES>(block, dmin);
    *field_mut::<4, 12, BYTES>(block) = pack_scales(&scales, &mins);
    // As they can be read back: a scale above 63 is not what it was.
    let (scales, mins) = unpack_scales(field::<4, 12, BYTES>(block));
    let (d, dmin) = (scale::<0, BYTES>(block), scale::<2, BYTES>(block));
    let codes = codes(x, d, dmin, &scales, &mins, &search, 15);
    for (codes, qs) in codes.as_chunks::<64>().0.iter().zip(field_mut::<16, 128, BYTES>(block).as_chunks_mut::<32>().0)
    {
        for l in 0..32 {
            qs[l] = codes[l] | codes[l + 32] << 4;
        }
    }
}

/// The scales of a super-block, before and after they are quantized themselves.
pub(super) struct Found {
    pub(super) d: f32,
    pub(super) dmin: f32,
    pub(super) scales: [u8; 8],
    pub(super) mins: [u8; 8],
    pub(super) search: Affine<8>,
}

/// Scales and minimums of the 8 sub-blocks. Q5_K shares the search.
#[inline(always)]
pub(super) fn find_scales(x: &[f32; LEN], importance: Option<&[f32; LEN]>, candidates: &Candidates) -> Found {
    let lanes: Lanes<8, 32> = transpose(x);
    match importance {
        None => {
            let root_mean_square = each(&sums_of_squares(&lanes), |sum| (sum / 32.0).sqrt());
            let w = {
                let mut w = lanes;
                for w in &mut w {
                    for j in 0..8 {
                        w[j] = root_mean_square[j] + w[j].abs();
                    }
                }
                w
            };
            let search = affine_search::<false, 8, 32>(&lanes, &w, candidates);
            let (d, scales) = divide_by_largest(&search.scale);
            let (dmin, mins) = divide_by_largest(&search.min);
            Found { d, dmin, scales, mins, search }
        }
        Some(importance) => {
            let sigma2 = 2.0 * sum_of_squares(x) / 256.0;
            let w = zip(&lanes, &transpose(importance), |x, importance| importance * (sigma2 + x * x).sqrt());
            let search = affine_search::<false, 8, 32>(&lanes, &w, candidates);
            let weights = sums(&w);
            let (d, scales) = scale_search(63, &search.scale, &weights);
            let (dmin, mins) = scale_search(63, &search.min, &weights);
            Found { d, dmin, scales, mins, search }
        }
    }
}

/// 6-bit codes of `x` and their scale: the largest gets 63.
#[inline(always)]
fn divide_by_largest(x: &[f32; 8]) -> (f32, [u8; 8]) {
    let max = x.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    let inverse = if max > 0.0 { 63.0 / max } else { 0.0 };
    (max / 63.0, each(x, |x| (nearest_int(inverse * x) as u8).min(63)))
}

/// The codes for the scales as they can be read back, 0..=`nmax`; where a sub-block's scale is zero, those of the search.
#[inline(always)]
pub(super) fn codes(
    x: &[f32; LEN],
    d: f32,
    dmin: f32,
    scales: &[u8; 8],
    mins: &[u8; 8],
    search: &Affine<8>,
    nmax: i32,
) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (j, (codes, x)) in codes.as_chunks_mut::<32>().0.iter_mut().zip(x.as_chunks::<32>().0).enumerate() {
        let d = d * f32::from(scales[j]);
        *codes = if d != 0.0 {
            let min = dmin * f32::from(mins[j]);
            each(x, |x| nearest_int((x + min) / d).clamp(0, nmax) as u8)
        } else {
            search.codes(j, x)
        };
    }
    codes
}

/// The inverse of [`unpack_scales`]. Scales above 63 (see `scale_search`) spill into their neighbours as in ggml.
#[inline(always)]
pub(super) fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    packed
}
