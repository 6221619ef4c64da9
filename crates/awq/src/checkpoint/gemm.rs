//! Layout `gemm`: words along the output features.

use super::{CheckpointError, Result};
use quant_core::affine::Bits;
use quant_core::bit_stream::{self, word_count};
use rayon::prelude::*;

/// Which of its eight columns each nibble of a word holds, least significant first: the kernels split a word into pairs of halves.
pub const INTERLEAVE: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Output features unpacked at a time: whole words of every width, some cache lines of them.
const TILE: usize = 128;
/// Columns that fill whole words at every width.
const STRIPE: usize = 32;
/// Input features whose codes change places with output features' at a time.
const EIGHT: usize = 8;

/// Words of a row of `columns` columns. 4 bits take whole words.
pub(super) fn row_words(columns: usize, bits: Bits) -> Option<usize> {
    match bits.get() {
        4 if columns.is_multiple_of(8) => Some(columns / 8),
        4 => None,
        _ => Some(word_count(columns, bits.get())),
    }
}

/// Columns of a row of `words` words, the most there can be.
pub(super) fn row_columns(words: usize, bits: Bits) -> usize {
    words.saturating_mul(32) / usize::from(bits.get())
}

/// One row of codes to words, and back.
pub(super) fn pack_row(codes: &[u8], bits: Bits, words: &mut [u32]) -> Result<()> {
    if bits.get() != 4 {
        return Ok(bit_stream::pack(codes, bits.get(), words)?);
    }
    for (codes, word) in codes.chunks_exact(8).zip(words) {
        *word = INTERLEAVE.iter().rev().fold(0, |word, &column| word << 4 | u32::from(codes[column]));
    }
    Ok(())
}

pub(super) fn unpack_row(words: &[u32], bits: Bits, codes: &mut [u8]) -> Result<()> {
    if bits.get() != 4 {
        return Ok(bit_stream::unpack(words, bits.get(), codes)?);
    }
    for (&word, codes) in words.iter().zip(codes.chunks_exact_mut(8)) {
        for (nibble, &column) in INTERLEAVE.iter().enumerate() {
            codes[column] = (word >> (4 * nibble)) as u8 & 15;
        }
    }
    Ok(())
}

/// `qweight`, `[in, words]` little endian, to codes `[out, in]`.
pub(super) fn unpack_transposed(data: &[u8], out_features: usize, in_features: usize, bits: Bits) -> Result<Vec<u8>> {
    let len = in_features.checked_mul(out_features).ok_or_else(|| CheckpointError::Tensor {
        tensor: "qweight",
        expected: "a product of features that fits this machine".into(),
        found: format!("{in_features} x {out_features}"),
    })?;
    let stored = data.as_chunks::<4>().0;
    let row = stored.len() / in_features;
    let mut codes = vec![0u8; len];
    codes.par_chunks_mut(TILE * in_features).enumerate().try_for_each(|(tile, codes)| {
        let columns = codes.len() / in_features;
        let first = tile * (TILE / STRIPE) * usize::from(bits.get());
        let used = if bits.get() == 4 { columns / 8 } else { word_count(columns, bits.get()) };
        let (mut words, mut lines) = (vec![0u32; used], vec![0u8; EIGHT * columns]);
        for start in (0..in_features).step_by(EIGHT) {
            let count = EIGHT.min(in_features - start);
            for (i, line) in lines.chunks_exact_mut(columns).take(count).enumerate() {
                for (word, &bytes) in words.iter_mut().zip(&stored[(start + i) * row + first..][..used]) {
                    *word = u32::from_le_bytes(bytes);
                }
                unpack_row(&words, bits, line)?;
            }
            let whole = if count == EIGHT { columns / EIGHT * EIGHT } else { 0 };
            for o in (0..whole).step_by(EIGHT) {
                let square = std::array::from_fn(|i| lines[i * columns + o..].first_chunk().map_or([0; EIGHT], |c| *c));
                for (k, bytes) in transposed(square).into_iter().enumerate() {
                    codes[(o + k) * in_features + start..][..EIGHT].copy_from_slice(&bytes);
                }
            }
            for o in whole..columns {
                for i in 0..count {
                    codes[o * in_features + start + i] = lines[i * columns + o];
                }
            }
        }
        Ok::<(), CheckpointError>(())
    })?;
    Ok(codes)
}

/// 8 x 8 bytes with rows and columns exchanged: blocks of four, of two, single bytes change sides.
fn transposed(rows: [[u8; EIGHT]; EIGHT]) -> [[u8; EIGHT]; EIGHT] {
    let mut x = rows.map(u64::from_le_bytes);
    for (distance, mask) in [(4, 0x0000_0000_ffff_ffff_u64), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff)] {
        let bits = 8 * distance;
        for i in (0..EIGHT).filter(|i| i & distance == 0) {
            let (a, b) = (x[i], x[i + distance]);
            x[i] = a & mask | (b & mask) << bits;
            x[i + distance] = a >> bits & mask | b & !mask;
        }
    }
    x.map(u64::to_le_bytes)
}

/// Codes `[out, in]` to the words of `qweight`, `[in, words]`.
pub(super) fn pack_transposed(codes: &[u8], in_features: usize, bits: Bits, row: usize) -> Result<Vec<u32>> {
    let out_features = codes.len() / in_features;
    let mut words = vec![0u32; in_features * row];
    // Some input features at a time, so that a cache line of codes is read once.
    words.par_chunks_mut(64 * row).enumerate().try_for_each(|(tile, words)| {
        let rows = words.len() / row;
        let mut block = vec![0u8; rows * out_features];
        for (o, codes) in codes.chunks_exact(in_features).enumerate() {
            for (i, &code) in codes[tile * 64..][..rows].iter().enumerate() {
                block[i * out_features + o] = code;
            }
        }
        let lines = block.chunks_exact(out_features).zip(words.chunks_exact_mut(row));
        lines.into_iter().try_for_each(|(codes, words)| pack_row(codes, bits, words))
    })?;
    Ok(words)
}
