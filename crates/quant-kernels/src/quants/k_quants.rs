//! Types in super-blocks of 256: Q2_K to Q6_K, IQ4_XS. A unit is one of them.

use super::Quants;
use super::small_blocks::{GRID, nibbles, words};
use crate::codes::{u16_at, u32_at};
use crate::lanes::Lanes;

const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const SIXES: u64 = 0x3f3f_3f3f_3f3f_3f3f;
const TWOS: u64 = 0x0303_0303_0303_0303;

/// The two bits of 64 columns: of 32 bytes bits `by` and `by + 1`, then the next two.
#[inline(always)]
unsafe fn two_bits<S: Lanes>(p: *const u8, by: u32) -> S::B {
    // SAFETY: the caller owns 32 bytes.
    unsafe { S::and_b(S::shr_b(S::twice(p), [by, by, by + 2, by + 2]), S::splat_b(3)) }
}

/// One bit of 64 columns, at bit `to`: of 32 bytes bit `by`, then the next one.
#[inline(always)]
unsafe fn one_bit<S: Lanes>(p: *const u8, by: u32, to: u32) -> S::B {
    // SAFETY: the caller owns 32 bytes.
    unsafe { S::shl_b(S::and_b(S::shr_b(S::twice(p), [by, by, by + 1, by + 1]), S::splat_b(1)), to) }
}

/// Scales and mins of Q4_K and Q5_K: d, dmin, then eight times 6 and 6 bits in 12 bytes.
#[inline(always)]
unsafe fn six_bits<S: Lanes>(block: *const u8) -> (S::F, S::F) {
    // SAFETY: 16 bytes of the block.
    unsafe {
        // Scales 0 to 3 and mins 0 to 3, with the top bits of the last four above them; then the low nibbles of these.
        let (first, last) = (words(block.add(4), 4), u64::from(u32_at(block.add(12))));
        let last = last & (NIBBLES >> 32) | (last >> 4 & (NIBBLES >> 32)) << 32;
        let (own, rest) = (first & SIXES, last | (first >> 6 & TWOS) << 4);
        let scales = own & 0xffff_ffff | rest << 32;
        let mins = own >> 32 | rest & 0xffff_ffff_0000_0000;
        let scales = S::mul(S::unsigned([scales, 0]), S::half(u16_at(block)));
        (scales, S::mul(S::unsigned([mins, 0]), S::half(u16_at(block.add(2)))))
    }
}

/// `d sc q - dmin m`.
pub(crate) struct Q2K;

impl Quants for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 16 + 64 + 2 + 2;
    const SUB: usize = 16;
    const ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { two_bits::<S>(unit.add(16 + j / 2 * 32), 4 * (j % 2) as u32) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe {
            let both = [words(unit, 4), words(unit.add(8), 4)];
            let scales = S::mul(S::unsigned(both.map(|w| w & NIBBLES)), S::half(u16_at(unit.add(80))));
            (scales, S::mul(S::unsigned(both.map(|w| w >> 4 & NIBBLES)), S::half(u16_at(unit.add(82)))))
        }
    }
}

/// `d (sc - 32) (q - 4)`.
pub(crate) struct Q3K;

impl Quants for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 32 + 64 + 12 + 2;
    const SUB: usize = 16;
    const ZERO: i32 = 4;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            let low = two_bits::<S>(unit.add(32 + j / 2 * 32), 4 * (j % 2) as u32);
            S::or_b(low, one_bit::<S>(unit, 2 * j as u32, 2))
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe {
            // Eight bytes of nibbles: low ones first; their upper two bits in four bytes, two at a time.
            let (own, upper) = (words(unit.add(96), 4), u64::from(u32_at(unit.add(104))));
            let spread = |by: u32| (upper >> by & (TWOS >> 32)) | (upper >> (by + 2) & (TWOS >> 32)) << 32;
            let scales = [own & NIBBLES | spread(0) << 4, own >> 4 & NIBBLES | spread(4) << 4];
            let scales = S::sub(S::unsigned(scales), S::splat(32.0));
            (S::mul(scales, S::half(u16_at(unit.add(108)))), S::splat(0.0))
        }
    }
}

/// `d sc q - dmin m`.
pub(crate) struct Q4K;

impl Quants for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 12 + 128;
    const SUB: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { S::and_b(S::shr_b(S::twice(unit.add(16 + 32 * j)), [0, 0, 4, 4]), S::splat_b(15)) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { six_bits::<S>(unit) }
    }
}

/// `d sc q - dmin m`.
pub(crate) struct Q5K;

impl Quants for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 12 + 32 + 128;
    const SUB: usize = 32;
    const ZERO: i32 = 0;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            let low = S::and_b(S::shr_b(S::twice(unit.add(48 + 32 * j)), [0, 0, 4, 4]), S::splat_b(15));
            S::or_b(low, one_bit::<S>(unit.add(16), 2 * j as u32, 4))
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { six_bits::<S>(unit) }
    }
}

/// `d sc (q - 32)`.
pub(crate) struct Q6K;

impl Quants for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 128 + 64 + 16 + 2;
    const SUB: usize = 16;
    const ZERO: i32 = 32;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            let low = S::shr_b(S::bytes(unit.add(j / 2 * 64)), [4 * (j % 2) as u32; 4]);
            let high = two_bits::<S>(unit.add(128 + j / 2 * 32), 4 * (j % 2) as u32);
            S::or_b(S::and_b(low, S::splat_b(15)), S::shl_b(high, 4))
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe { (S::mul(S::signed(unit.add(192)), S::half(u16_at(unit.add(208)))), S::splat(0.0)) }
    }
}

/// `d (sc - 32) GRID[q]`.
pub(crate) struct Iq4Xs;

impl Quants for Iq4Xs {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 4 + 128;
    const SUB: usize = 32;
    const ZERO: i32 = 128;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe { S::lookup(&GRID, nibbles::<S>(unit.add(8 + 32 * j), unit.add(24 + 32 * j))) }
    }
    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe {
            let (high, low) = (u64::from(u16_at(unit.add(2))), u64::from(u32_at(unit.add(4))));
            let scale = |j: u32| (low >> (4 * j) & 15 | (high >> (2 * j) & 3) << 4) << (8 * j);
            let scales = (0..8).fold(0, |all, j| all | scale(j));
            let scales = S::sub(S::unsigned([scales, 0]), S::first(S::splat(32.0), 8));
            (S::mul(scales, S::half(u16_at(unit))), S::splat(0.0))
        }
    }
}
