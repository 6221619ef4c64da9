//! NVFP4: 64 values of 4 bits (those of MXFP4) in 4 sub-blocks of 16, each with an 8-bit float scale of 4 exponent and 3 mantissa bits.
//!
//! ```text
//! byte  0..4   scales, unsigned E4M3
//!       4..36  qs, 8 bytes a sub-block: byte j holds value j in its low nibble and value j + 8 in its high nibble
//! ```

use super::mxfp4::{DOUBLED, nearest_codes};
use super::packing::{field, field_mut};

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

/// The scale puts the largest magnitude at the last code, 6 (`quantize_row_nvfp4_ref`); beyond 2688 values are cut off. There are no
/// weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let mut scales = [0; 4];
    for (i, (x, qs)) in
        x.as_chunks::<16>().0.iter().zip(field_mut::<4, 32, BYTES>(block).as_chunks_mut::<8>().0).enumerate()
    {
        let amax = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
        scales[i] = scale_bits(amax / 6.0);
        let codes: [u8; 16] = nearest_codes(x, half_scale(scales[i]));
        for j in 0..8 {
            qs[j] = codes[j] | codes[j + 8] << 4;
        }
    }
    *field_mut::<0, 4, BYTES>(block) = scales;
}

/// The bits of the scale for `x`, rounded to nearest, ties upward; from 248 on 448 (`ggml_fp32_to_ue4m3`).
#[inline(always)]
fn scale_bits(x: f32) -> u8 {
    let x = if x > 448.0 { 448.0 } else { x };
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        // Subnormal; what rounds up to the smallest normal scale stays below it, as in ggml.
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // One bit more than the mantissa has, then up where it is set; a carry reaches the exponent. The largest exponent has only its
    // largest value, 448, as in ggml: 0x7f is NaN.
    let rounded = ((exponent as u32) << 3 | bits >> 20 & 7) + (bits >> 19 & 1);
    if rounded < 0x78 { rounded as u8 } else { 0x7e }
}
