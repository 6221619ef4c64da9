//! F32, F16 and BF16: "blocks" of one value.

use super::f16::{bf16_to_f32, f16_to_f32};

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
