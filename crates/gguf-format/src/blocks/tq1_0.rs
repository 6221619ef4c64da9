//! TQ1_0: 256 values -1, 0, 1, five to a byte, one scale: `x = d (q - 1)`.
//!
//! A byte holds the digits of a number below 3^5 = 243 to base 3 as the fraction `ceil(number 256 / 243)` of 256: multiplied by 3,
//! the first digit is what overflows the byte.
//!
//! ```text
//! byte  0..32  digit n of byte m is value 32 n + m
//!      32..48  digit n of byte 32 + m is value 160 + 16 n + m
//!      48..52  digit n < 4 of byte 48 + m is value 240 + 4 n + m
//!      52..54  d, binary16
//! ```

use super::packing::{scale, write_scale};
use super::rounding::round_half_away;

pub(super) const LEN: usize = 256;
pub(super) const BYTES: usize = 48 + 4 + 2;

#[inline(always)]
pub(super) fn dequantize(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let d = scale::<52, BYTES>(block);
    // first byte, bytes, digits, first value
    for (at, bytes, digits, first) in [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)] {
        for n in 0..digits {
            let out = &mut out[first + n * bytes..][..bytes];
            for (x, &byte) in out.iter_mut().zip(&block[at..at + bytes]) {
                let digit = (u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8;
                *x = (i32::from(digit) - 1) as f32 * d;
            }
        }
    }
}

/// Rounds to the multiple of the largest magnitude (`quantize_row_tq1_0_ref`). There are no weights.
#[inline(always)]
pub(super) fn quantize(x: &[f32; LEN], block: &mut [u8; BYTES]) {
    let (d, codes) = codes(x);
    // the same groups as in `dequantize`; the digits that the last bytes do not have are zero
    for (at, bytes, digits, first) in [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)] {
        for m in 0..bytes {
            let number = (0..5).fold(0u16, |number, n| {
                3 * number + if n < digits { u16::from(codes[first + n * bytes + m]) } else { 0 }
            });
            block[at + m] = (number * 256).div_ceil(243) as u8;
        }
    }
    write_scale::<52, BYTES>(block, d);
}

/// The largest magnitude, and the codes 0, 1, 2 of the values. TQ2_0 shares them.
#[inline(always)]
pub(super) fn codes(x: &[f32; LEN]) -> (f32, [u8; LEN]) {
    let d = x.iter().fold(0.0f32, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    let codes = x.map(|x| {
        let scaled = x * inverse;
        // Infinite or NaN where the largest value is too small to have an inverse; C's lroundf then gives a number with low bits 0.
        let rounded = if scaled.abs() < 2.0 { round_half_away(scaled) } else { 0 };
        (rounded + 1) as u8
    });
    (d, codes)
}
