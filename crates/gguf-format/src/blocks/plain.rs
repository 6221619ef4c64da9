//! F32, F16 and BF16: "blocks" of one value.

use super::f16::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

#[inline(always)]
pub(super) fn f32_from_bytes(src: &[u8; 4], dst: &mut [f32; 1]) {
    dst[0] = f32::from_le_bytes(*src);
}

#[inline(always)]
pub(super) fn f16_from_bytes(src: &[u8; 2], dst: &mut [f32; 1]) {
    dst[0] = f16_to_f32(u16::from_le_bytes(*src));
}

#[inline(always)]
pub(super) fn bf16_from_bytes(src: &[u8; 2], dst: &mut [f32; 1]) {
    dst[0] = bf16_to_f32(u16::from_le_bytes(*src));
}

#[inline(always)]
pub(super) fn f32_to_bytes(src: &[f32; 1], dst: &mut [u8; 4]) {
    *dst = src[0].to_le_bytes();
}

#[inline(always)]
pub(super) fn f16_to_bytes(src: &[f32; 1], dst: &mut [u8; 2]) {
    *dst = f32_to_f16(src[0]).to_le_bytes();
}

#[inline(always)]
pub(super) fn bf16_to_bytes(src: &[f32; 1], dst: &mut [u8; 2]) {
    *dst = f32_to_bf16(src[0]).to_le_bytes();
}
