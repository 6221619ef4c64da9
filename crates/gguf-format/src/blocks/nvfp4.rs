//! NVFP4: 64 values of 4 bits (those of MXFP4) in 4 sub-blocks of 16, each with an 8-bit float scale of 4 exponent and 3 mantissa bits.
//!
//! ```text
//! byte  0..4   scales, unsigned E4M3
//!       4..36  qs, 8 bytes a sub-block: byte j holds value j in its low nibble and value j + 8 in its high nibble
//! ```

use super::mxfp4::DOUBLED;
use super::packing::field;

pub(super) const LEN: usize = 64;
pub(super) const BYTES: usize = 4 + 32;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let scales: &[u8; 4] = field::<0, 4, BYTES>(block);
    let qs: &[u8; 32] = field::<4, 32, BYTES>(block);
    for (i, (out, qs)) in out.as_chunks_mut::<16>().0.iter_mut().zip(qs.as_chunks::<8>().0).enumerate() {
        let d = half_scale(scales[i]);
        for j in 0..8 {
            out[j] = f32::from(DOUBLED[usize::from(qs[j] & 15)]) * d;
            out[j + 8] = f32::from(DOUBLED[usize::from(qs[j] >> 4)]) * d;
        }
    }
}

/// Half of the scale with these bits; NaN (0x7f) counts as 0, the top bit is ignored, as in ggml.
#[inline(always)]
pub(super) fn half_scale(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), f32::from(bits & 7));
    // 2^(exponent - 7) (1 + mantissa / 8), or below the smallest exponent 2^-6 mantissa / 8; halved
    if exponent == 0 {
        mantissa * (1.0 / 1024.0)
    } else {
        (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 127 - 8) << 23)
    }
}
