//! Binary16 by instructions that every processor with NEON has; their intrinsics are younger than the compiler that this crate asks for.

use std::arch::aarch64::*;
use std::arch::asm;

/// Four binary16 numbers.
///
/// # Safety
/// Needs NEON.
#[inline(always)]
pub(crate) unsafe fn floats(bits: uint16x4_t) -> float32x4_t {
    let result;
    // SAFETY: the caller has NEON; it touches registers alone.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) result, in(vreg) bits, options(pure, nomem, nostack, preserves_flags))
    };
    result
}

/// Eight binary16 numbers, little endian.
///
/// # Safety
/// Needs NEON and 16 bytes at `p`.
#[inline(always)]
pub(crate) unsafe fn floats_at(p: *const u8) -> [float32x4_t; 2] {
    let high;
    // SAFETY: the caller has NEON and the bytes; the instruction touches registers alone.
    unsafe {
        let bits = vreinterpretq_u16_u8(vld1q_u8(p));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", lateout(vreg) high, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
        [floats(vget_low_u16(bits)), high]
    }
}
