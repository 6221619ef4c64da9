//! Codes of 2, 3, 4 and 8 bits with a scale and a zero point per block ([`crate::codes`] has the table of where they stand): `scale · code - min` with
//! `min = scale · zero`.

use super::Quants;
use super::small_blocks::{halves, nibbles, words};
use crate::codes::{AFFINE_HEADER as HEADER, u16_at};
use crate::lanes::Lanes;

/// Blocks of `BLOCK` codes of `BITS` bits; of 32 codes two blocks are a unit.
pub(crate) struct Affine<const BITS: usize, const BLOCK: usize>;

impl<const BITS: usize, const BLOCK: usize> Affine<BITS, BLOCK> {
    /// Bytes of a block.
    const BLOCK_BYTES: usize = HEADER + BLOCK * BITS / 8;

    /// Where the bytes begin that hold column 64 j, and column 64 j + 32, whose codes take `run` bytes.
    #[inline(always)]
    unsafe fn places(unit: *const u8, j: usize, run: usize) -> (*const u8, *const u8) {
        // SAFETY: within the unit.
        unsafe {
            let first = unit.add(HEADER + 2 * run * j);
            (first, if BLOCK == 32 { first.add(Self::BLOCK_BYTES) } else { first.add(run) })
        }
    }

    /// The low two bits of 64 codes.
    #[inline(always)]
    unsafe fn two_bits<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            if BLOCK == 32 {
                // Of 8 bytes bits 0 and 1, then 2 and 3, ...
                let (a, b) = Self::places(unit, j, 8);
                let mut all = [0u64; 8];
                for (i, word) in all.iter_mut().enumerate() {
                    *word = (words(if i < 4 { a } else { b }, 4) >> (i % 4 * 2)).to_le();
                }
                return S::and_b(S::bytes(all.as_ptr().cast()), S::splat_b(3));
            }
            let p = unit.add(HEADER + 16 * j);
            S::and_b(S::shr_b(S::quarters(p, p), [0, 2, 4, 6]), S::splat_b(3))
        }
    }
}

impl<const BITS: usize, const BLOCK: usize> Quants for Affine<BITS, BLOCK> {
    const LEN: usize = if BLOCK == 32 { 64 } else { BLOCK };
    const BYTES: usize = if BLOCK == 32 { 2 * Self::BLOCK_BYTES } else { Self::BLOCK_BYTES };
    const SUB: usize = 32;
    const ZERO: i32 = 0;
    const WIDE: bool = BITS == 8;

    #[inline(always)]
    unsafe fn codes<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: within the unit.
        unsafe {
            match BITS {
                8 => {
                    let (a, b) = Self::places(unit, j, 32);
                    S::two(a, b)
                }
                4 => {
                    let (a, b) = Self::places(unit, j, 16);
                    nibbles::<S>(a, b)
                }
                2 => Self::two_bits::<S>(unit, j),
                _ => {
                    let third = unit.add(HEADER + BLOCK / 4 + 8 * j);
                    let bits = words(third, if BLOCK == 32 { Self::BLOCK_BYTES } else { 4 });
                    S::or_b(Self::two_bits::<S>(unit, j), S::where_bits(bits, 4))
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scales<S: Lanes>(unit: *const u8) -> (S::F, S::F) {
        // SAFETY: within the unit.
        unsafe {
            if BLOCK == 32 {
                let scales = S::pair(halves(unit, Self::BLOCK_BYTES));
                let zeros = words(unit.add(2), Self::BLOCK_BYTES);
                // Zero points are at most 256: two bytes each.
                let low = S::unsigned([zeros & 255 | zeros >> 24 & 0xff00, 0]);
                let high = S::unsigned([zeros >> 8 & 255 | zeros >> 32 & 0xff00, 0]);
                return (scales, S::mul(scales, S::fma(high, S::splat(256.0), low)));
            }
            let scales = S::first(S::half(u16_at(unit)), BLOCK / 32);
            (scales, S::mul(scales, S::splat(f32::from(u16_at(unit.add(2))))))
        }
    }
}
