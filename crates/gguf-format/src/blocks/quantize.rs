//! Rows to blocks: the checks that every type shares, and how rows are handed to the types' kernels.

use super::iq1_grid::IQ1_LATTICE;
use super::iq2_grids::{IQ2_S_LATTICE, IQ2_XS_LATTICE, IQ2_XXS_LATTICE};
use super::iq3_grids::{IQ3_S_LATTICE, IQ3_XXS_LATTICE};
use super::rows::{each_block, each_eight, each_super, each_weighted};
use super::simd::versions;
use super::{
    iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, iq4_nl, iq4_xs, length, mxfp4, nvfp4, plain, q1_0, q2_0,
    q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, tq1_0, tq2_0,
};
use crate::{Error, GgmlType, Result};
use alloc::format;

/// Quantizes rows of `row_len` values to `ty`, as ggml's `ggml_quantize_chunk` does, byte for byte.
///
/// `src` holds whole rows, row-major; `dst` exactly their bytes. `importance`, if given, holds one weight per column (`row_len`), not
/// negative: what an error in that column costs, for instance the mean square of the layer's input. F32, F16, BF16, Q8_0, the
/// ternary and binary types and the 4-bit floats have no use for it and ignore it; IQ2_XXS, IQ2_XS and IQ1_S are nothing without
/// ([`needs_importance`]).
///
/// The result depends on nothing but the arguments; rows do not influence each other, so a tensor may be cut between rows.
///
/// # Errors
/// [`Error::NoCodec`] for a type that cannot be written ([`can_quantize`]), [`Error::NoImportance`] for one that needs weights and got
/// none, [`Error::Length`] if `row_len` is not whole blocks, `src`
/// not whole rows, or `importance` or `dst` has the wrong length; [`Error::NonFinite`] for an infinity or NaN in `src` or
/// `importance`; [`Error::Overflow`] if a value, or the scale of a block, does not fit in half precision. After an error the
/// contents of `dst` are unspecified.
pub fn quantize(ty: GgmlType, src: &[f32], row_len: usize, importance: Option<&[f32]>, dst: &mut [u8]) -> Result<()> {
    let (Some(codec), Some(layout)) = (quantizer(ty), ty.layout()) else {
        return Err(Error::NoCodec { ty, direction: "quantize" });
    };
    let (len, bytes) = (layout.block_len as usize, layout.block_bytes as usize);
    if importance.is_none() && needs_importance(ty) {
        return Err(Error::NoImportance { ty });
    }
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

    if src.is_empty() {
        return Ok(());
    }
    (codec.rows)(src, row_len, importance, dst);
    let overflow = match codec.scales {
        Scales::Halves(halves) => {
            halves.iter().filter_map(|at| dst.chunks_exact(bytes).position(|block| block[at + 1] & 0x7c == 0x7c)).min()
        }
        Scales::Spread(overflows) => dst.chunks_exact(bytes).position(overflows),
    };
    match overflow.map(|block| block * len) {
        Some(index) => Err(Error::Overflow { ty, index, value: src[index] }),
        None => Ok(()),
    }
}

/// True if [`quantize`] can write this type.
pub fn can_quantize(ty: GgmlType) -> bool {
    quantizer(ty).is_some()
}

/// True if [`quantize`] writes this type only with importance weights: so few bits are worthless without, and ggml aborts.
pub fn needs_importance(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::IQ2_XXS | GgmlType::IQ2_XS | GgmlType::IQ1_S)
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
pub(super) type Rows = fn(&[f32], usize, Option<&[f32]>, &mut [u8]);

/// How a type is written.
struct Quantizer {
    /// Writes whole rows; the lengths are checked by the caller.
    rows: Rows,
    scales: Scales,
}

/// Where a block holds half-precision numbers, which overflow.
enum Scales {
    /// At these bytes.
    Halves(&'static [usize]),
    /// Spread over the block; tells whether it has overflowed.
    Spread(fn(&[u8]) -> bool),
}

fn quantizer(ty: GgmlType) -> Option<Quantizer> {
    if ty == GgmlType::IQ1_M {
        let rows = versions!(|x, _len, importance, out| each_super!(x, importance, out, iq1_m::quantize, IQ1_LATTICE));
        return Some(Quantizer { rows, scales: Scales::Spread(iq1_m::overflows) });
    }
    let (rows, halves): (Rows, &[usize]) = match ty {
        GgmlType::F32 => (versions!(|x, _len, _importance, out| each_block!(x, out, plain::f32_to_bytes)), &[]),
        GgmlType::F16 => (versions!(|x, _len, _importance, out| each_block!(x, out, plain::f16_to_bytes)), &[0]),
        GgmlType::BF16 => (versions!(|x, _len, _importance, out| each_block!(x, out, plain::bf16_to_bytes)), &[]),
        GgmlType::Q8_0 => (versions!(|x, _len, _importance, out| each_block!(x, out, q8_0::quantize)), &[0]),
        GgmlType::Q4_0 => (
            versions!(|x, len, importance, out| match importance {
                None => each_block!(x, out, q4_0::quantize),
                Some(importance) => each_weighted!(x, len, importance, out, q4_0::quantize_weighted),
            }),
            &[0],
        ),
        GgmlType::Q4_1 => (
            versions!(|x, len, importance, out| match importance {
                None => each_block!(x, out, q4_1::quantize),
                Some(importance) => each_weighted!(x, len, importance, out, q4_1::quantize_weighted),
            }),
            &[0, 2],
        ),
        GgmlType::Q5_0 => (
            versions!(|x, len, importance, out| match importance {
                None => each_block!(x, out, q5_0::quantize),
                Some(importance) => each_weighted!(x, len, importance, out, q5_0::quantize_weighted),
            }),
            &[0],
        ),
        GgmlType::Q5_1 => (
            versions!(|x, len, importance, out| match importance {
                None => each_block!(x, out, q5_1::quantize),
                Some(importance) => each_weighted!(x, len, importance, out, q5_1::quantize_weighted),
            }),
            &[0, 2],
        ),
        GgmlType::IQ4_NL => {
            (versions!(|x, len, importance, out| each_eight!(x, len, importance, out, iq4_nl::quantize)), &[0])
        }
        GgmlType::Q2_K => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, q2_k::quantize)), &[80, 82])
        }
        GgmlType::Q3_K => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, q3_k::quantize)), &[108])
        }
        GgmlType::Q4_K => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, q4_k::quantize)), &[0, 2])
        }
        GgmlType::Q5_K => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, q5_k::quantize)), &[0, 2])
        }
        GgmlType::Q6_K => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, q6_k::quantize)), &[208])
        }
        GgmlType::IQ4_XS => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, iq4_xs::quantize)), &[0])
        }
        GgmlType::IQ1_S => {
            (versions!(|x, _len, importance, out| each_super!(x, importance, out, iq1_s::quantize, IQ1_LATTICE)), &[0])
        }
        GgmlType::IQ2_XXS => (
            versions!(|x, _len, importance, out| each_super!(x, importance, out, iq2_xxs::quantize, IQ2_XXS_LATTICE)),
            &[0],
        ),
        GgmlType::IQ2_XS => (
            versions!(|x, _len, importance, out| each_super!(x, importance, out, iq2_xs::quantize, IQ2_XS_LATTICE)),
            &[0],
        ),
        GgmlType::IQ2_S => (
            versions!(|x, _len, importance, out| each_super!(x, importance, out, iq2_s::quantize, IQ2_S_LATTICE)),
            &[0],
        ),
        GgmlType::IQ3_XXS => (
            versions!(|x, _len, importance, out| each_super!(x, importance, out, iq3_xxs::quantize, IQ3_XXS_LATTICE)),
            &[0],
        ),
        GgmlType::IQ3_S => (
            versions!(|x, _len, importance, out| each_super!(x, importance, out, iq3_s::quantize, IQ3_S_LATTICE)),
            &[0],
        ),
        GgmlType::TQ1_0 => (versions!(|x, _len, _importance, out| each_block!(x, out, tq1_0::quantize)), &[52]),
        GgmlType::TQ2_0 => (versions!(|x, _len, _importance, out| each_block!(x, out, tq2_0::quantize)), &[64]),
        GgmlType::MXFP4 => (versions!(|x, _len, _importance, out| each_block!(x, out, mxfp4::quantize)), &[]),
        GgmlType::NVFP4 => (versions!(|x, _len, _importance, out| each_block!(x, out, nvfp4::quantize)), &[]),
        GgmlType::Q1_0 => (versions!(|x, _len, _importance, out| each_block!(x, out, q1_0::quantize)), &[0]),
        GgmlType::Q2_0 => (versions!(|x, _len, _importance, out| each_block!(x, out, q2_0::quantize)), &[0]),
        _ => return None,
    };
    Some(Quantizer { rows, scales: Scales::Halves(halves) })
}
