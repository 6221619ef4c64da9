//! Signed bytes with a scale: `scale = largest / 127`, rounded to half precision before anything is divided by it.

use super::{ROUND, largest};
use half::f16;

/// Codes of whole 16s of values, the numbers plus 128; gives the scale's bits. Zeros have the scale zero.
#[inline(always)]
pub(super) fn encode(x: &[f32], codes: &mut [u8]) -> u16 {
    let scale = f16::from_f32(largest(x) / 127.0);
    let inverse = if scale.to_bits() == 0 { 0.0 } else { 1.0 / scale.to_f32() };
    for (x, codes) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
        for i in 0..16 {
            let v = (x[i] * inverse).clamp(-127.0, 127.0);
            codes[i] = (v + (ROUND + 128.0)).to_bits() as u8;
        }
    }
    scale.to_bits()
}
