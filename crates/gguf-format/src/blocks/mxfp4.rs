//! MXFP4: 32 values of 4 bits (sign, two exponent bits, one mantissa bit) and a power of two: the OCP microscaling format.
//!
//! ```text
//! byte  0      e: the scale is 2^(e - 127)
//!       1..17  qs: byte j holds value j in its low nibble and value j + 16 in its high nibble
//! ```

use super::lanes::each;
use super::packing::{field, field_mut};
use super::q4_0::pack;
use super::simd::one_at_a_time;

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

/// The scale puts the largest magnitude between 4 and 8, where codes end at 6 (`quantize_row_mxfp4_ref`). There are no weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let amax = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    // Below 2^-125 the number is negative and wraps around in its byte, as in ggml.
    block[0] = if amax > 0.0 { (floor_log2(amax) - 2 + 127) as u8 } else { 0 };
    let d = half_scale(block[0]);
    // By halves: all 32 would not fit in the registers.
    let mut codes = [0; LEN];
    for (codes, x) in codes.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks().0) {
        one_at_a_time();
        *codes = nearest_codes(x, d);
    }
    pack(&codes, field_mut::<1, 16, BYTES>(block));
}

/// The codes whose values times `d` are nearest to `x`, the first of equals. NVFP4 shares it.
#[inline(always)]
pub(super) fn nearest_codes<const N: usize>(x: &[f32; N], d: f32) -> [u8; N] {
    let mut best = each(x, |x| (f32::from(DOUBLED[0]) * d - x).abs());
    let mut codes = [0u32; N];
    for (k, &value) in (0u32..).zip(&DOUBLED).skip(1) {
        let value = f32::from(value) * d;
        for j in 0..N {
            let error = (value - x[j]).abs();
            let less = error < best[j];
            codes[j] = if less { k } else { codes[j] };
            best[j] = if less { error } else { best[j] };
        }
    }
    each(&codes, |code| code as u8)
}

/// `floor(log2f(x))` of a positive number, where `log2f` rounds to the nearest float.
///
/// A number so little below 2^k that its logarithm rounds to k counts as 2^k: up to 44 units in the last place where |k| is large.
#[inline(always)]
fn floor_log2(x: f32) -> i32 {
    let x = f64::from(x);
    let k = (x.to_bits() >> 52) as i32 - 1023 + 1;
    let above = f64::from_bits(((k + 1023) as u64) << 52);
    // How far log2(x) is below k, to second order, and half the distance of the floats there.
    let share = 1.0 - x / above;
    let distance = share * (1.0 + share / 2.0) * core::f64::consts::LOG2_E;
    let spacing = f64::from(k as f32) - f64::from((k as f32).next_down());
    if distance <= spacing / 2.0 { k } else { k - 1 }
}

#[cfg(test)]
mod tests {
    use super::floor_log2;

    /// How many floats below 2^k have a `log2f` of k or more: facts of glibc 2.36 on x86-64, whose function ggml calls.
    #[test]
    fn logarithm_rounds_as_glibcs() {
        for (k, count) in
            [(-120, 44), (-64, 44), (-63, 22), (-8, 5), (-1, 0), (1, 0), (4, 1), (8, 2), (16, 5), (100, 44)]
        {
            let power = 2.0f32.powi(k).to_bits();
            assert_eq!(floor_log2(f32::from_bits(power)), k);
            assert_eq!(floor_log2(f32::from_bits(power - count)), k, "{k}");
            assert_eq!(floor_log2(f32::from_bits(power - count - 1)), k - 1, "{k}");
        }
    }
}
