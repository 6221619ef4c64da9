//! Signed bytes with a scale: `scale = largest / 127`, rounded to half precision before anything is divided by it.

use super::largest_finite;
use crate::simd::Simd;
use half::f16;

/// Codes of whole 16s of finite values, the numbers plus 128; gives the scale's bits. Zeros have the scale zero.
///
/// # Safety
/// The instruction set of S; as many codes as values.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd>(x: &[f32], codes: &mut [u8]) -> u16 {
    // SAFETY: the caller's; 16 values and 16 codes each.
    unsafe {
        let scale = f16::from_f32(largest_finite::<S>(x) / 127.0);
        let inverse = if scale.to_bits() == 0 { 0.0 } else { 1.0 / scale.to_f32() };
        for (x, codes) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
            let v = S::mul(S::load(x.as_ptr()), S::splat(inverse));
            let v = S::min(S::max(v, S::splat(-127.0)), S::splat(127.0));
            S::put_bytes(S::add(S::round(v), S::splat(128.0)), codes.as_mut_ptr());
        }
        scale.to_bits()
    }
}
