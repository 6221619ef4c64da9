//! Reading the fields of a block.

use super::f16::{f16_to_f32, f32_to_f16};

/// The part of `block` that starts at byte `AT`. Out of bounds does not compile.
#[inline(always)]
pub(super) fn field<const AT: usize, const N: usize, const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; N] {
    const { assert!(AT + N <= BYTES, "the field ends behind the block") };
    match block[AT..].first_chunk() {
        Some(part) => part,
        None => unreachable!(),
    }
}

/// As [`field`], to write.
#[inline(always)]
pub(super) fn field_mut<const AT: usize, const N: usize, const BYTES: usize>(block: &mut [u8; BYTES]) -> &mut [u8; N] {
    const { assert!(AT + N <= BYTES, "the field ends behind the block") };
    match block[AT..].first_chunk_mut() {
        Some(part) => part,
        None => unreachable!(),
    }
}

/// The half-precision scale at byte `AT`, little-endian.
#[inline(always)]
pub(super) fn scale<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field::<AT, 2, BYTES>(block)))
}

/// Rounds `value` to half precision and writes it at byte `AT`, little-endian.
#[inline(always)]
pub(super) fn write_scale<const AT: usize, const BYTES: usize>(block: &mut [u8; BYTES], value: f32) {
    *field_mut::<AT, 2, BYTES>(block) = f32_to_f16(value).to_le_bytes();
}
