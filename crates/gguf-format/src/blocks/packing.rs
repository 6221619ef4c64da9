//! Reading the fields of a block.

use super::f16::{f16_to_f32, f32_to_f16};
use super::lanes::each;
use super::simd::in_memory;

/// The part of `block` that starts at byte `AT`. Out of bounds does not compile.
#[inline(always)]
pub(super) fn field<const AT: usize, const N: usize, const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; N] {
    const { assert!(AT + N <= BYTES, "the field ends behind the block") };
    match block[AT..].first_chunk() {
        Some(part) => part,
        // The assertion above: it does not compile for a field that is longer than the rest.
        None => unreachable!(),
    }
}

/// As [`field`], to write.
#[inline(always)]
pub(super) fn field_mut<const AT: usize, const N: usize, const BYTES: usize>(block: &mut [u8; BYTES]) -> &mut [u8; N] {
    const { assert!(AT + N <= BYTES, "the field ends behind the block") };
    match block[AT..].first_chunk_mut() {
        Some(part) => part,
        // The assertion above: it does not compile for a field that is longer than the rest.
        None => unreachable!(),
    }
}

/// The half-precision scale at byte `AT`, little-endian.
#[inline(always)]
pub(super) fn scale<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field::<AT, 2, BYTES>(block)))
}

/// The half-precision scales of bytes 0..2 and 2..4. Four are converted, the block's next bytes with them: that is one vector, where two
/// would be computed one after the other.
#[inline(always)]
pub(super) fn two_scales<const BYTES: usize>(block: &[u8; BYTES]) -> (f32, f32) {
    let mut bits = [0; 4];
    for (bits, &bytes) in bits.iter_mut().zip(field::<0, 8, BYTES>(block).as_chunks().0) {
        *bits = u16::from_le_bytes(bytes);
    }
    let values = each(&bits, f16_to_f32);
    let values = in_memory(&values);
    (values[0], values[1])
}

/// Rounds `value` to half precision and writes it at byte `AT`, little-endian.
#[inline(always)]
pub(super) fn write_scale<const AT: usize, const BYTES: usize>(block: &mut [u8; BYTES], value: f32) {
    *field_mut::<AT, 2, BYTES>(block) = f32_to_f16(value).to_le_bytes();
}
