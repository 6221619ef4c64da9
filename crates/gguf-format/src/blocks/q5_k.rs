//! Q5_K: 256 values in 8 sub-blocks of 32, 5-bit codes, 6-bit scales and minimums: `x = d sc q - dmin m`.
//!
//! ```text
//! byte  0..2    d, binary16
//!       2..4    dmin, binary16
//!       4..16   scales, packed as those of Q4_K
//!      16..48   qh: bit i of byte l is the fifth bit of code 32 i + l
//!      48..176  qs: 64 values share 32 bytes; byte l holds the low bits of code l in its low nibble, of code l + 32 in its high nibble
//! ```

use super::affine_search::Candidates;
use super::codes::scaled_and_moved;
use super::lanes::{build, each};
use super::packing::{field, field_mut, scale, write_scale};
use super::q4_k::{Found, codes, find_scales, pack_scales, scaling};
use super::simd::{in_memory, one_at_a_time};

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 2 + 2 + 12 + 32 + 128;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let scaling = scaling(block);
    let (scales, mins) = in_memory(&scaling);
    // Their lowest bits are those of the next two sub-blocks.
    let mut qh = *field::<16, 32, BYTES>(block);
    let qs: &[u8; 128] = field::<48, 128, BYTES>(block);
    for (i, (out, qs)) in out.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0).enumerate() {
        one_at_a_time();
        let codes: [[i8; 32]; 2] =
            [build(|l| (qs[l] & 15 | qh[l] << 4 & 16) as i8), build(|l| (qs[l] >> 4 | qh[l] << 3 & 16) as i8)];
        qh = each(&qh, |h| h >> 2);
        for (j, (codes, out)) in in_memory(&codes).iter().zip(out.as_chunks_mut().0).enumerate() {
            scaled_and_moved(codes, scales[2 * i + j], mins[2 * i + j], out);
        }
    }
}

/// Without weights `quantize_row_q5_K_ref`, with them `quantize_row_q5_K_impl`.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], importance: Option<&[f32; LEN]>, block: &mut [u8; BYTES]) {
    let candidates = match importance {
        None => Candidates { nmax: 31.0, first: -0.5, step: 0.1, steps: 15 },
        Some(_) => Candidates { nmax: 31.0, first: -0.9, step: 0.05, steps: 36 },
    };
    let Found { d, dmin, scales, mins, search } = find_scales(x, importance, &candidates);
    let (scales, mins) = (each(&scales, |scale| scale.min(63)), each(&mins, |min| min.min(63)));
    write_scale::<0, BYTES>(block, d);
    write_scale::<2, BYTES>(block, dmin);
    *field_mut::<4, 12, BYTES>(block) = pack_scales(&scales, &mins);
    let (d, dmin) = (scale::<0, BYTES>(block), scale::<2, BYTES>(block));
    let codes = codes(x, d, dmin, &scales, &mins, &search, 31);
    let qh = field_mut::<16, 32, BYTES>(block);
    *qh = [0; 32];
    for (i, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (h, &code) in qh.iter_mut().zip(codes) {
            *h |= (code >> 4) << i;
        }
    }
    for (codes, qs) in codes.as_chunks::<64>().0.iter().zip(field_mut::<48, 128, BYTES>(block).as_chunks_mut::<32>().0)
    {
        for l in 0..32 {
            qs[l] = codes[l] & 15 | codes[l + 32] << 4;
        }
    }
}
