//! Q6_K: 256 values in 16 sub-blocks of 16, 6-bit codes around 32, signed 8-bit scales: `x = d sc (q - 32)`.
//!
//! ```text
//! byte   0..128  ql: 128 values share 64 bytes; byte l of them holds the low nibble of codes l and l + 64
//!      128..192  qh: 128 values share 32 bytes; byte l holds the two high bits of codes l, l + 32, l + 64, l + 96 from the low bits up
//!      192..208  scales, two's complement
//!      208..210  d, binary16
//! ```

use super::codes::scaled;
use super::lanes::{Lanes, each, transpose, zip};
use super::packing::{field, field_mut, scale, write_scale};
use super::rounding::nearest_int;
use super::symmetric_search::{ZERO, symmetric_search};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 128 + 64 + 16 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let ql: &[u8; 128] = field::<0, 128, BYTES>(block);
    let qh: &[u8; 64] = field::<128, 64, BYTES>(block);
    let scales: &[u8; 16] = field::<192, 16, BYTES>(block);
    let d = scale::<208, BYTES>(block);
    let mut codes = [0; LEN];
    let halves = ql.as_chunks::<64>().0.iter().zip(qh.as_chunks::<32>().0);
    for (codes, (ql, qh)) in codes.as_chunks_mut::<128>().0.iter_mut().zip(halves) {
        for (i, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &ql.as_chunks::<32>().0[i % 2];
            for ((code, &l), &h) in codes.iter_mut().zip(low).zip(qh) {
                *code = (l >> (4 * (i / 2)) & 15 | (h >> (2 * i) & 3) << 4) as i8 - 32;
            }
        }
    }
    for (j, (codes, out)) in codes.as_chunks::<16>().0.iter().zip(out.as_chunks_mut().0).enumerate() {
        scaled(codes, d * f32::from(scales[j] as i8), out);
    }
}

/// The weights are the importance itself, or without it the squares of the values (`quantize_row_q6_K_ref`, `_impl`).
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let mut scales = [0.0; 16];
    let mut codes = [0; LEN];
    // Two times eight sub-blocks: sixteen lanes would not fit the registers of the smallest SIMD.
    for half in 0..2 {
        let values = &x[128 * half..][..128];
        let lanes: Lanes<8, 16> = transpose(values);
        let w = match importance {
            Some(importance) => transpose(&importance[128 * half..][..128]),
            None => zip(&lanes, &lanes, |x, _| x * x),
        };
        let found = symmetric_search(32.0, &lanes, &w);
        scales[8 * half..][..8].copy_from_slice(&found.scale);
        let codes = codes[128 * half..][..128].as_chunks_mut::<16>().0;
        for (j, (codes, x)) in codes.iter_mut().zip(values.as_chunks().0).enumerate() {
            *codes = found.codes(j, x);
        }
    }
    let (mut amax, mut max) = (0.0, 0.0);
    for scale in scales {
        if scale.abs() > amax {
            (amax, max) = (scale.abs(), scale);
        }
    }
    if amax < ZERO {
        *block = [0; BYTES];
        return;
    }
    let inverse = -128.0 / max;
    let scales = each(&scales, |scale| nearest_int(inverse * scale).min(127) as i8);
    write_scale::<208, BYTES>(block, 1.0 / inverse);
    *field_mut::<192, 16, BYTES>(block) = each(&scales, |scale| scale as u8);

    // The codes again, for the scales as they can be read back.
    let d = scale::<208, BYTES>(block);
    for (j, (codes, x)) in codes.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0).enumerate() {
        let d = d * f32::from(scales[j]);
        if d != 0.0 {
            *codes = each(x, |x| (nearest_int(x / d).clamp(-32, 31) + 32) as u8);
        }
    }
    let codes = codes.as_chunks::<128>().0;
    for (codes, ql) in codes.iter().zip(field_mut::<0, 128, BYTES>(block).as_chunks_mut::<64>().0) {
        for l in 0..64 {
            ql[l] = codes[l] & 15 | codes[l + 64] << 4;
        }
    }
    for (codes, qh) in codes.iter().zip(field_mut::<128, 64, BYTES>(block).as_chunks_mut::<32>().0) {
        for l in 0..32 {
            qh[l] = codes[l] >> 4 | codes[l + 32] >> 4 << 2 | codes[l + 64] >> 4 << 4 | codes[l + 96] >> 4 << 6;
        }
    }
}
