//! Signed bytes with a scale: `scale = largest / 127`, rounded to half precision before anything is divided by it.

use super::{Scratch, most_of};
use crate::simd::Simd;

/// Codes of rows of finite values, the numbers plus 128, and each row's scale. Zeros have the scale zero.
///
/// # Safety
/// The instruction set of S; rows of whole 16s that the scratch takes.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd>(rows: &[f32], n: usize, scratch: &mut Scratch) {
    let (mut halves, mut scales) = ([0u8; 32], [0.0f32; 16]);
    let codes = scratch.codes.chunks_mut(16 * n).zip(scratch.scales.chunks_mut(16));
    for (rows, (codes, bits)) in rows.chunks(16 * n).zip(codes) {
        // SAFETY: the caller's; 16 values and 16 codes each.
        unsafe {
            let mut most = [S::splat(0.0); 16];
            for (most, row) in most.iter_mut().zip(rows.chunks_exact(n)) {
                *most = most_of::<S>(*most, row);
            }
            S::store(scales.as_mut_ptr(), S::gather::<true>(&most));
            scales.iter_mut().for_each(|x| *x /= 127.0);
            S::put_halves(S::load(scales.as_ptr()), halves.as_mut_ptr());
            S::store(scales.as_mut_ptr(), S::halves(halves.as_ptr()));
            for (bits, half) in bits.iter_mut().zip(halves.as_chunks::<2>().0) {
                *bits = u16::from_le_bytes(*half);
            }
            for (i, row) in rows.chunks_exact(n).enumerate() {
                let inverse = S::splat(if scales[i] == 0.0 { 0.0 } else { 1.0 / scales[i] });
                let codes = &mut codes[i * n..][..n];
                for (x, codes) in row.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
                    let v = S::mul(S::load(x.as_ptr()), inverse);
                    let v = S::min(S::max(v, S::splat(-127.0)), S::splat(127.0));
                    S::put_bytes(S::add(S::round(v), S::splat(128.0)), codes.as_mut_ptr());
                }
            }
        }
    }
}
