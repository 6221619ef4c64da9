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

use super::packing::scale;

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
                let digit = u16::from(byte.wrapping_mul(POWERS[n])) * 3 >> 8;
                *x = (i32::from(digit) - 1) as f32 * d;
            }
        }
    }
}
