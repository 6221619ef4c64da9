//! Types in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL. A unit is two blocks.

use super::Quants;
use crate::codes::{u16_at, u32_at};
use crate::lanes::Lanes;

/// The grid of IQ4_NL and IQ4_XS (`kvalues_iq4nl` in ggml-common.h), plus 128.
pub(crate) const GRID: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// 64 codes of 4 bits: of each 16 bytes the low nibbles, then the high ones.
#[inline(always)]
pub(crate) unsafe fn nibbles<S: Lanes>(a: *const u8, b: *const u8) -> S::B {
    // SAFETY: the caller owns 16 bytes at each.
    unsafe { S::and_b(S::shr_b(S::quarters(a, b), [0, 4, 0, 4]), S::splat_b(15)) }
}

/// Two numbers of 16 bits that lie `by` bytes apart.
#[inline(always)]
pub(super) unsafe fn halves(p: *const u8, by: usize) -> u32 {
    // SAFETY: the caller owns both.
    unsafe { u32::from(u16_at(p)) | u32::from(u16_at(p.add(by))) << 16 }
}

/// 64 bits of two words that lie `by` bytes apart.
#[inline(always)]
pub(super) unsafe fn words(p: *const u8, by: usize) -> u64 {
    // SAFETY: the caller owns both.
    unsafe { u64::from(u32_at(p)) | u64::from(u32_at(p.add(by))) << 32 }
}

/// `d (q - 8)`: d, 16 bytes.
pub(crate) struct Q4_0;

impl Quants for Q4_0 {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 18;
    const SUB: usize = 32;
    const ZERO: i32 = 8;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { nibbles::<S>(unit.add(2), unit.add(20)) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::pair(halves(unit, 18)), S::splat(0.0)) }
    }
}

/// `d q + m`: d, m, 16 bytes.
pub(crate) struct Q4_1;

impl Quants for Q4_1 {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 20;
    const SUB: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { nibbles::<S>(unit.add(4), unit.add(24)) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit. The mins are subtracted: their signs are turned.
        unsafe { (S::pair(halves(unit, 20)), S::pair(halves(unit.add(2), 20) ^ 0x8000_8000)) }
    }
}

/// `d (q - 16)`: d, 32 fifth bits, 16 bytes.
pub(crate) struct Q5_0;

impl Quants for Q5_0 {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 22;
    const SUB: usize = 32;
    const ZERO: i32 = 16;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            let fifth = S::where_bits(words(unit.add(2), 22), 16);
            S::or_b(nibbles::<S>(unit.add(6), unit.add(28)), fifth)
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::pair(halves(unit, 22)), S::splat(0.0)) }
    }
}

/// `d q + m`: d, m, 32 fifth bits, 16 bytes.
pub(crate) struct Q5_1;

impl Quants for Q5_1 {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 24;
    const SUB: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            let fifth = S::where_bits(words(unit.add(4), 24), 16);
            S::or_b(nibbles::<S>(unit.add(8), unit.add(32)), fifth)
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::pair(halves(unit, 24)), S::pair(halves(unit.add(2), 24) ^ 0x8000_8000)) }
    }
}

/// `d q`: d, 32 bytes.
pub(crate) struct Q8_0;

impl Quants for Q8_0 {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 34;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { S::xor_b(S::two(unit.add(2), unit.add(36)), S::splat_b(128)) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::pair(halves(unit, 34)), S::splat(0.0)) }
    }
}

/// `d GRID[q]`: d, 16 bytes.
pub(crate) struct Iq4Nl;

impl Quants for Iq4Nl {
    const LEN: usize = 64;
    const BYTES: usize = 2 * 18;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, _: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { S::lookup(&GRID, nibbles::<S>(unit.add(2), unit.add(20))) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::pair(halves(unit, 18)), S::splat(0.0)) }
    }
}
