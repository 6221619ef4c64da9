//! Codecs of the ggml block types.
//!
//! A tensor's row is cut into blocks of [`Layout::block_len`](crate::Layout::block_len) values; every block carries its own scales and codes. [`quantize`]
//! writes the bytes that ggml's `ggml_quantize_chunk` writes and [`dequantize`] the values that its `dequantize_row_*` functions
//! give, bit for bit. The arithmetic is IEEE binary32 in one fixed order without fused multiply-add, so that results do not
//! depend on the machine.
//!
//! One file holds one type; the searches for scales that several types share are in the `*_search` files.

mod affine_search;
mod codes;
mod descent_search;
mod f16;
mod grid_search;
mod grids;
mod iq1_grid;
mod iq1_m;
mod iq1_s;
mod iq2_grids;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_grids;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod lanes;
mod lattice;
mod magnitudes;
mod mxfp4;
mod nvfp4;
mod packing;
mod plain;
mod point_search;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod quantize;
mod rounding;
mod rows;
mod scale_search;
mod simd;
mod symmetric_search;
mod ternary_search;
mod tq1_0;
mod tq2_0;

use crate::{Error, GgmlType, Result};
use alloc::format;
use alloc::string::{String, ToString};
use rows::{each_block, each_read, each_scaled};
use simd::versions;

pub use quantize::{can_quantize, needs_importance, quantize};

/// Dequantizes whole blocks to f32, as ggml's `dequantize_row_*` does, bit for bit.
///
/// `src` holds whole blocks, `dst` exactly their values. Any bytes are accepted: scales that are not finite give values that are
/// not finite.
///
/// # Errors
/// [`Error::NoCodec`] for a type that has no values ([`can_dequantize`]), [`Error::Length`] if `src` is not whole blocks or `dst`
/// has another length than their values.
pub fn dequantize(ty: GgmlType, src: &[u8], dst: &mut [f32]) -> Result<()> {
    let kernel = dequantizer(ty).ok_or(Error::NoCodec { ty, direction: "dequantize" })?;
    let layout = ty.layout().ok_or(Error::NoCodec { ty, direction: "dequantize" })?;
    let (len, bytes) = (layout.block_len as usize, layout.block_bytes as usize);
    if !src.len().is_multiple_of(bytes) {
        return Err(length(ty, format!("a multiple of {bytes} bytes"), src.len()));
    }
    // The product cannot overflow: a block has at most 4 values per byte more than memory holds bytes, checked all the same.
    match (src.len() / bytes).checked_mul(len) {
        Some(values) if values == dst.len() => {}
        Some(values) => return Err(length(ty, format!("room for {values} values"), dst.len())),
        None => return Err(length(ty, "fewer bytes".into(), src.len())),
    }
    kernel(src, dst);
    Ok(())
}

/// True if [`dequantize`] can read this type.
pub fn can_dequantize(ty: GgmlType) -> bool {
    dequantizer(ty).is_some()
}

fn length(ty: GgmlType, expected: String, found: usize) -> Error {
    Error::Length { ty, expected, found: found.to_string() }
}

/// Reads whole blocks; the lengths are checked by the caller.
type Dequantizer = fn(&[u8], &mut [f32]);

fn dequantizer(ty: GgmlType) -> Option<Dequantizer> {
    Some(match ty {
        GgmlType::F32 => versions!(|src => dst| each_block!(src, dst, plain::f32_from_bytes)),
        GgmlType::F16 => versions!(|src => dst| each_block!(src, dst, plain::f16_from_bytes)),
        GgmlType::BF16 => versions!(|src => dst| each_block!(src, dst, plain::bf16_from_bytes)),
        GgmlType::Q4_0 => versions!(|src => dst| each_read!(src, dst, q4_0::dequantize)),
        GgmlType::Q4_1 => versions!(|src => dst| each_read!(src, dst, q4_1::dequantize)),
        GgmlType::Q5_0 => versions!(|src => dst| each_read!(src, dst, q5_0::dequantize)),
        GgmlType::Q5_1 => versions!(|src => dst| each_read!(src, dst, q5_1::dequantize)),
        GgmlType::Q8_0 => versions!(|src => dst| each_scaled!(src, dst, q8_0::dequantize)),
        GgmlType::Q2_K => versions!(|src => dst| each_read!(src, dst, q2_k::dequantize)),
        GgmlType::Q3_K => versions!(|src => dst| each_read!(src, dst, q3_k::dequantize)),
        GgmlType::Q4_K => versions!(|src => dst| each_read!(src, dst, q4_k::dequantize)),
        GgmlType::Q5_K => versions!(|src => dst| each_read!(src, dst, q5_k::dequantize)),
        GgmlType::Q6_K => versions!(|src => dst| each_read!(src, dst, q6_k::dequantize)),
        GgmlType::IQ4_NL => versions!(|src => dst| each_read!(src, dst, iq4_nl::dequantize)),
        GgmlType::IQ4_XS => versions!(|src => dst| each_read!(src, dst, iq4_xs::dequantize)),
        GgmlType::IQ1_M => versions!(|src => dst| each_read!(src, dst, iq1_m::dequantize)),
        GgmlType::IQ1_S => versions!(|src => dst| each_read!(src, dst, iq1_s::dequantize)),
        GgmlType::IQ2_S => versions!(|src => dst| each_read!(src, dst, iq2_s::dequantize)),
        GgmlType::IQ2_XS => versions!(|src => dst| each_read!(src, dst, iq2_xs::dequantize)),
        GgmlType::IQ2_XXS => versions!(|src => dst| each_read!(src, dst, iq2_xxs::dequantize)),
        GgmlType::IQ3_S => versions!(|src => dst| each_read!(src, dst, iq3_s::dequantize)),
        GgmlType::IQ3_XXS => versions!(|src => dst| each_read!(src, dst, iq3_xxs::dequantize)),
        GgmlType::MXFP4 => versions!(|src => dst| each_read!(src, dst, mxfp4::dequantize)),
        GgmlType::NVFP4 => versions!(|src => dst| each_read!(src, dst, nvfp4::dequantize)),
        GgmlType::Q1_0 => versions!(|src => dst| each_read!(src, dst, q1_0::dequantize)),
        GgmlType::Q2_0 => versions!(|src => dst| each_read!(src, dst, q2_0::dequantize)),
        GgmlType::TQ1_0 => versions!(|src => dst| each_read!(src, dst, tq1_0::dequantize)),
        GgmlType::TQ2_0 => versions!(|src => dst| each_read!(src, dst, tq2_0::dequantize)),
        _ => return None,
    })
}
