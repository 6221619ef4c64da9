//! Layouts `gemv` and `gemv_fast`, for reading: words along the input features.

use super::{CheckpointError, Result};
use half::f16;
use quant_core::bit_stream;
use rayon::prelude::*;

/// Rows of `gemv_fast` that share their words.
pub(super) const ROWS: usize = 4;
/// Columns of `gemv_fast` that are shuffled among themselves.
pub(super) const SPAN: usize = 64;

/// `gemv`: rows of words in order to codes, `[out, in]`.
pub(super) fn unpack_rows(words: &[u32], in_features: usize, codes: &mut [u8]) -> Result<()> {
    let rows = codes.par_chunks_exact_mut(in_features).zip(words.par_chunks_exact(in_features / 8));
    rows.try_for_each(|(codes, words)| Ok(bit_stream::unpack(words, 4, codes)?))
}

/// `gemv_fast`: codes `[out, in]` of the 16-bit words `[out / 4, in]`.
///
/// Of 64 columns of four rows, row after row with the columns in [`place`]'s order, each four consecutive codes make a word.
pub(super) fn unpack_fast(data: &[u8], in_features: usize, codes: &mut [u8]) {
    let words = data.as_chunks::<2>().0;
    let rows = codes.par_chunks_exact_mut(ROWS * in_features).zip(words.par_chunks_exact(in_features));
    rows.for_each(|(codes, words)| {
        for (r, codes) in codes.chunks_exact_mut(in_features).enumerate() {
            for (codes, words) in codes.chunks_exact_mut(SPAN).zip(words.chunks_exact(SPAN)) {
                for (k, code) in codes.iter_mut().enumerate() {
                    let at = r * SPAN + place(k);
                    *code = (u16::from_le_bytes(words[at / 4]) >> (at % 4 * 4)) as u8 & 15;
                }
            }
        }
    });
}

/// Where column `k` of a span stands: of each 32, column `8a + 2b + c` (`c` 0 or 1) at `8b + 4c + a`.
fn place(k: usize) -> usize {
    let (a, b, c) = (k % 32 / 8, k % 8 / 2, k % 2);
    k / 32 * 32 + 8 * b + 4 * c + a
}

/// The zero point of a scaled one, `−scale · zero` rounded to F16.
///
/// # Errors
/// [`CheckpointError::Tensor`] where no zero point of 0 to 15 gives it.
pub(super) fn unscaled(scaled: f16, scale: f16, tensor: &'static str, at: usize) -> Result<u16> {
    let (scaled, scale) = (scaled.to_f32(), scale.to_f32());
    let zero = if scale == 0.0 { 0.0 } else { (-scaled / scale).round() };
    // F16 rounds by one part in 2048, below its smallest normal value by 2^-25.
    let off = (scaled + scale * zero).abs();
    if (0.0..16.0).contains(&zero) && off <= scaled.abs() / 1024.0 + 6e-8 {
        return Ok(zero as u16);
    }
    let expected = "-scale times a zero point of 0 to 15".into();
    Err(CheckpointError::Tensor { tensor, expected, found: format!("{scaled} at index {at}, scale {scale}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_autoawq() {
        // `pack_intweight` of AutoAWQ's gemv_fast.py for w[n][k] = (7 n + 3 k) mod 16, four rows of 64: its first words.
        let words = [0x8080u16, 0xb3b3, 0xe6e6, 0x1919, 0x4c4c, 0x7f7f, 0xa2a2, 0xd5d5];
        let code = |n: usize, k: usize| ((7 * n + 3 * k) % 16) as u8;
        let mut data = vec![0u8; 128];
        for (bytes, word) in data.chunks_exact_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut codes = vec![0u8; 256];
        unpack_fast(&data, 64, &mut codes);
        // Eight words of four codes: the first 32 columns of row 0.
        let expected: Vec<u8> = (0..32).map(|k| code(0, k)).collect();
        assert_eq!(codes[..32], expected);
        let places: std::collections::BTreeSet<_> = (0..SPAN).map(place).collect();
        assert_eq!(places.into_iter().collect::<Vec<_>>(), (0..SPAN).collect::<Vec<_>>());
    }

    #[test]
    fn zero_points_of_scaled_ones() {
        for bits in [0x2000u16, 0x0001, 0x03ff, 0x3c00, 0xa123] {
            let scale = f16::from_bits(bits);
            for zero in 0..16u16 {
                let scaled = f16::from_f32(-(scale.to_f32() * f32::from(zero)));
                assert_eq!(unscaled(scaled, scale, "qzeros", 0).unwrap(), zero, "{scale}");
            }
        }
        for (scaled, scale) in
            [(1.0, 1.0), (-16.0, 1.0), (-0.5, 1.0), (f32::NAN, 1.0), (1.0, 0.0), (f32::INFINITY, 1.0)]
        {
            assert!(unscaled(f16::from_f32(scaled), f16::from_f32(scale), "qzeros", 0).is_err(), "{scaled}");
        }
    }
}
