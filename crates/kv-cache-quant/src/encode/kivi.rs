//! KIVI (arXiv 2402.02750): `x = code * step + minimum`, `step = (largest - minimum) / (2^bits - 1)`.
//!
//! All arithmetic in half precision, each operation rounded, as its reference does (`quant/new_pack.py`): subtract the minimum, divide by the
//! step, clamp, round to nearest even. Equal values have the step zero and the code zero.

use half::f16;

/// Codes of values that share a step; gives the bits of step and minimum.
#[inline(always)]
pub(super) fn encode(bits: u8, x: impl Iterator<Item = f32> + Clone, codes: &mut [u8]) -> (u16, u16) {
    let half = |x: f32| f16::from_f32(x).to_f32();
    let top = ((1u32 << bits) - 1) as f32;
    let min = x.clone().map(half).fold(f32::INFINITY, f32::min);
    let max = x.clone().map(half).fold(f32::NEG_INFINITY, f32::max);
    let step = half(half(max - min) / top);
    for (code, x) in codes.iter_mut().zip(x) {
        let steps = half(half(half(x) - min) / step);
        *code = if step > 0.0 { steps.clamp(0.0, top).round_ties_even() as u8 } else { 0 };
    }
    (f16::from_f32(step).to_bits(), f16::from_f32(min).to_bits())
}

/// As [`encode`], for a channel's values of 32 tokens.
pub(crate) fn encode_channel(bits: u8, x: &[f32], codes: &mut [u8]) -> (u16, u16) {
    encode(bits, x.iter().copied(), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by torch 2.15.0 in float16 with the arithmetic of KIVI's `quant/new_pack.py` (876b4d2): `mn = x.min(); s = (x.max() - mn) / (2**bits - 1);
    /// q = ((x - mn) / s).clamp(0, 2**bits - 1).round()`.
    #[test]
    fn is_the_reference() {
        let x: Vec<f32> = (0..64)
            .map(|i| f64::from((i * 37 + 11) % 64) * 0.137 - 3.1 + f64::from(i * i % 7) * 0.9)
            .map(|x| x as f32)
            .collect();
        let cases: [(u8, usize, u16, u16, [u8; 32]); 4] = [
            (
                2,
                0,
                16836,
                48735,
                [0, 2, 2, 3, 2, 1, 2, 0, 2, 2, 3, 2, 1, 2, 0, 2, 2, 0, 2, 1, 2, 0, 2, 2, 0, 2, 1, 2, 1, 3, 2, 0],
            ),
            (
                2,
                1,
                16849,
                49184,
                [2, 2, 2, 1, 3, 3, 1, 2, 2, 3, 1, 0, 3, 1, 3, 2, 3, 1, 0, 3, 1, 3, 2, 3, 1, 0, 3, 1, 3, 2, 0, 1],
            ),
            (
                4,
                0,
                14493,
                48735,
                [
                    0, 10, 9, 14, 8, 5, 9, 1, 11, 9, 15, 9, 5, 9, 1, 12, 10, 1, 9, 6, 10, 2, 12, 11, 1, 10, 7, 11, 3,
                    13, 11, 2,
                ],
            ),
            (
                4,
                1,
                14503,
                49184,
                [
                    11, 8, 12, 4, 15, 13, 3, 12, 9, 13, 5, 0, 14, 4, 13, 10, 14, 6, 1, 14, 5, 14, 10, 14, 6, 2, 15, 6,
                    14, 11, 0, 7,
                ],
            ),
        ];
        for (bits, group, step, min, expected) in cases {
            let mut codes = [0; 32];
            let found = encode(bits, x[group * 32..][..32].iter().copied(), &mut codes);
            assert_eq!((found, codes), ((step, min), expected), "{bits} bits, group {group}");
        }
        let mut codes = [9; 32];
        assert_eq!(encode(2, [1.5; 32].into_iter(), &mut codes), (0, f16::from_f32(1.5).to_bits()));
        assert_eq!(codes, [0; 32]);
    }
}
