//! Rows to blocks: the checks that every type shares, and how rows are handed to the types' kernels.

use super::lanes::{Lanes, sum_of_squares, sums_of_squares, transpose};
use super::{iq4_nl, iq4_xs, length, plain, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};
use crate::{Error, GgmlType, Result};

/// Quantizes rows of `row_len` values to `ty`, as ggml's `ggml_quantize_chunk` does, byte for byte.
///
/// `src` holds whole rows, row-major; `dst` exactly their bytes. `importance`, if given, holds one weight per column (`row_len`), not
/// negative: what an error in that column costs, for instance the mean square of the layer's input. F32, F16, BF16 and Q8_0 have
/// no use for it and ignore it.
///
/// The result depends on nothing but the arguments; rows do not influence each other, so a tensor may be cut between rows.
///
/// # Errors
/// [`Error::NoCodec`] for a type that cannot be written ([`can_quantize`]), [`Error::Length`] if `row_len` is not whole blocks, `src`
/// not whole rows, or `importance` or `dst` has the wrong length; [`Error::NonFinite`] for an infinity or NaN in `src` or
/// `importance`; [`Error::Overflow`] if a value, or the scale of a block, does not fit in half precision. After an error the
/// contents of `dst` are unspecified.
pub fn quantize(ty: GgmlType, src: &[f32], row_len: usize, importance: Option<&[f32]>, dst: &mut [u8]) -> Result<()> {
    let (Some(codec), Some(layout)) = (quantizer(ty), ty.layout()) else {
        return Err(Error::NoCodec { ty, direction: "quantize" });
    };
    let (len, bytes) = (layout.block_len as usize, layout.block_bytes as usize);
    if row_len == 0 || !row_len.is_multiple_of(len) {
        return Err(length(ty, format!("rows of a multiple of {len} values"), row_len));
    }
    if !src.len().is_multiple_of(row_len) {
        return Err(length(ty, format!("whole rows of {row_len} values"), src.len()));
    }
    if let Some(importance) = importance.filter(|importance| importance.len() != row_len) {
        return Err(length(ty, format!("importance of {row_len} columns"), importance.len()));
    }
    // In memory a value takes 4 bytes, in a block not more than that: no overflow.
    if dst.len() != src.len() / len * bytes {
        return Err(length(ty, format!("{} bytes", src.len() / len * bytes), dst.len()));
    }
    all_finite(src)?;
    importance.map_or(Ok(()), all_finite)?;

    (codec.rows)(src, row_len, importance, dst);
    for &at in codec.halves {
        if let Some(block) = dst.chunks_exact(bytes).position(|block| block[at + 1] & 0x7c == 0x7c) {
            let index = block * len;
            return Err(Error::Overflow { ty, index, value: src[index] });
        }
    }
    Ok(())
}

/// True if [`quantize`] can write this type.
pub fn can_quantize(ty: GgmlType) -> bool {
    quantizer(ty).is_some()
}

fn all_finite(values: &[f32]) -> Result<()> {
    // The largest magnitude's bits tell for all of a chunk, without a branch per value.
    for (chunk, values) in values.chunks(256).enumerate() {
        if values.iter().fold(0u32, |max, value| max.max(value.to_bits() & 0x7fff_ffff)) >= 0x7f80_0000 {
            for (at, &value) in values.iter().enumerate() {
                if !value.is_finite() {
                    return Err(Error::NonFinite { index: chunk * 256 + at, value });
                }
            }
        }
    }
    Ok(())
}

/// Writes rows: values, row length, importance, bytes.
type Rows = fn(&[f32], usize, Option<&[f32]>, &mut [u8]);

/// How a type is written.
struct Quantizer {
    /// Writes whole rows; the lengths are checked by the caller.
    rows: Rows,
    /// Where a block holds half-precision numbers, which overflow.
    halves: &'static [usize],
}

fn quantizer(ty: GgmlType) -> Option<Quantizer> {
    let (rows, halves): (Rows, &[usize]) = match ty {
        GgmlType::F32 => (|x, _, _, out| each_block(x, out, plain::f32_to_bytes), &[]),
        GgmlType::F16 => (|x, _, _, out| each_block(x, out, plain::f16_to_bytes), &[0]),
        GgmlType::BF16 => (|x, _, _, out| each_block(x, out, plain::bf16_to_bytes), &[]),
        GgmlType::Q8_0 => (|x, _, _, out| each_block(x, out, q8_0::quantize), &[0]),
        GgmlType::Q4_0 => (
            |x, len, importance, out| match importance {
                None => each_block(x, out, q4_0::quantize),
                Some(importance) => each_weighted(x, len, importance, out, q4_0::quantize_weighted),
            },
            &[0],
        ),
        GgmlType::Q4_1 => (
            |x, len, importance, out| match importance {
                None => each_block(x, out, q4_1::quantize),
                Some(importance) => each_weighted(x, len, importance, out, q4_1::quantize_weighted),
            },
            &[0, 2],
        ),
        GgmlType::Q5_0 => (
            |x, len, importance, out| match importance {
                None => each_block(x, out, q5_0::quantize),
                Some(importance) => each_weighted(x, len, importance, out, q5_0::quantize_weighted),
            },
            &[0],
        ),
        GgmlType::Q5_1 => (
            |x, len, importance, out| match importance {
                None => each_block(x, out, q5_1::quantize),
                Some(importance) => each_weighted(x, len, importance, out, q5_1::quantize_weighted),
            },
            &[0, 2],
        ),
        GgmlType::IQ4_NL => (|x, len, importance, out| each_eight(x, len, importance, out, iq4_nl::quantize), &[0]),
        GgmlType::Q2_K => (|x, len, importance, out| each_super(x, len, importance, out, q2_k::quantize), &[80, 82]),
        GgmlType::Q3_K => (|x, len, importance, out| each_super(x, len, importance, out, q3_k::quantize), &[108]),
        GgmlType::Q4_K => (|x, len, importance, out| each_super(x, len, importance, out, q4_k::quantize), &[0, 2]),
        GgmlType::Q5_K => (|x, len, importance, out| each_super(x, len, importance, out, q5_k::quantize), &[0, 2]),
        GgmlType::Q6_K => (|x, len, importance, out| each_super(x, len, importance, out, q6_k::quantize), &[208]),
        GgmlType::IQ4_XS => (|x, len, importance, out| each_super(x, len, importance, out, iq4_xs::quantize), &[0]),
        _ => return None,
    };
    Some(Quantizer { rows, halves })
}

/// Blocks that know nothing of their row.
#[inline(always)]
fn each_block<const LEN: usize, const BYTES: usize>(
    src: &[f32],
    dst: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (values, bytes) in src.as_chunks().0.iter().zip(dst.as_chunks_mut().0) {
        block(values, bytes);
    }
}

/// Super-blocks, each with the importance of its columns.
#[inline(always)]
fn each_super<const LEN: usize, const BYTES: usize>(
    src: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    dst: &mut [u8],
    block: impl Fn(&[f32; LEN], Option<&[f32; LEN]>, &mut [u8; BYTES]),
) {
    let rows = src.chunks_exact(row_len).zip(dst.chunks_exact_mut(row_len / LEN * BYTES));
    for (row, out) in rows {
        for (i, (values, bytes)) in row.as_chunks().0.iter().zip(out.as_chunks_mut().0).enumerate() {
            block(values, importance.and_then(|importance| importance.as_chunks().0.get(i)), bytes);
        }
    }
}

/// Blocks of 32 with importance weights, eight at a time. The weights are `importance sqrt(row's mean square + x^2)`.
#[inline(always)]
fn each_weighted<const BYTES: usize>(
    src: &[f32],
    row_len: usize,
    importance: &[f32],
    dst: &mut [u8],
    eight: impl Fn(&[f32; 256], &Lanes<8, 32>, &Lanes<8, 32>, &mut [[u8; BYTES]]),
) {
    for (row, out) in src.chunks_exact(row_len).zip(dst.chunks_exact_mut(row_len / 32 * BYTES)) {
        let mean_square = sum_of_squares(row) / row_len as f32;
        in_eights(row, Some(importance), out, |x, lanes, importance, blocks| {
            let mut w = *importance;
            for (w, x) in w.iter_mut().zip(lanes) {
                for j in 0..8 {
                    w[j] *= (mean_square + x[j] * x[j]).sqrt();
                }
            }
            eight(x, lanes, &w, blocks);
        });
    }
}

/// Blocks of 32 whose weights come from the block: `importance sqrt(2 mean square + x^2)`, or `x^2`. Eight at a time.
#[inline(always)]
fn each_eight<const BYTES: usize>(
    src: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    dst: &mut [u8],
    eight: impl Fn(&[f32; 256], &Lanes<8, 32>, &Lanes<8, 32>, &mut [[u8; BYTES]]),
) {
    for (row, out) in src.chunks_exact(row_len).zip(dst.chunks_exact_mut(row_len / 32 * BYTES)) {
        in_eights(row, importance, out, |x, lanes, weights, blocks| {
            let mut w = *weights;
            if importance.is_some() {
                let sigma2 = sums_of_squares(lanes).map(|sum| sum * (2.0 / 32.0));
                for (w, x) in w.iter_mut().zip(lanes) {
                    for j in 0..8 {
                        w[j] *= (sigma2[j] + x[j] * x[j]).sqrt();
                    }
                }
            } else {
                w = lanes.map(|x| x.map(|x| x * x));
            }
            eight(x, lanes, &w, blocks);
        });
    }
}

/// Cuts a row into eights of blocks of 32; the last ones are filled up with zeros.
#[inline(always)]
fn in_eights<const BYTES: usize>(
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    eight: impl Fn(&[f32; 256], &Lanes<8, 32>, &Lanes<8, 32>, &mut [[u8; BYTES]]),
) {
    let mut rest = [0.0; 256];
    for (i, (x, blocks)) in row.chunks(256).zip(out.as_chunks_mut().0.chunks_mut(8)).enumerate() {
        let importance = importance.map_or([[0.0; 8]; 32], |importance| {
            let from = 256 * i;
            transpose(&importance[from..from + x.len()])
        });
        let lanes = transpose(x);
        let x = match x.first_chunk() {
            Some(x) => x,
            None => {
                rest[..x.len()].copy_from_slice(x);
                &rest
            }
        };
        eight(x, &lanes, &importance, blocks);
    }
}
