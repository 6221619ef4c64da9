//! MXFP4: 32 values of 4 bits (sign, two exponent bits, one mantissa bit) and a power of two: the OCP microscaling format.
//!
//! ```text
//! byte  0      e: the scale is 2^(e - 127)
//!       1..17  qs: byte j holds value j in its low nibble and value j + 16 in its high nibble
//! ```

use super::packing::field;

pub(super) const LEN: usize = 32;
pub(super) const BYTES: usize = 1 + 16;

/// Twice the values of the 16 codes, so that they are integers (`kvalues_fp4` in ggml-common.h). NVFP4 shares them.
pub(super) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let d = half_scale(block[0]);
    let qs: &[u8; 16] = field::<1, 16, BYTES>(block);
    for j in 0..16 {
        out[j] = f32::from(DOUBLED[usize::from(qs[j] & 15)]) * d;
        out[j + 16] = f32::from(DOUBLED[usize::from(qs[j] >> 4)]) * d;
    }
}

/// Half of the scale, `2^(e - 128)`; e = 255, NaN in the specification, is 2^127 here as in ggml.
#[inline(always)]
pub(super) fn half_scale(e: u8) -> f32 {
    // The two smallest are subnormal.
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}
