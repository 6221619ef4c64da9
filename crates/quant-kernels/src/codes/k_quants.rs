//! Types in super-blocks of 256: Q2_K to Q6_K, IQ4_XS.

use super::small_blocks::{GRID, IOTA, nibbles};
use super::{Block, Sink, u16_at, u32_at};
use crate::simd::Simd;

/// `d` times each of 16 small numbers.
#[inline(always)]
unsafe fn factors<S: Simd>(numbers: impl Fn(usize) -> S::I, d: S::F) -> [f32; 16] {
    let mut factors = [0.0; 16];
    for v in 0..16 / S::LANES {
        let at = v * S::LANES;
        // SAFETY: `LANES` divides 16.
        unsafe { S::store(factors.as_mut_ptr().add(at), S::mul(S::float(numbers(at)), d)) };
    }
    factors
}

/// Eight bytes of two words.
#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// `d` times the eight 6-bit scales and `dmin` times the eight 6-bit minimums of Q4_K and Q5_K: bytes 0 to 15 of the block. The bits are gathered with a
/// few operations on whole words.
#[inline(always)]
unsafe fn scales_and_mins<S: Simd>(block: *const u8) -> ([f32; 16], [f32; 16]) {
    // SAFETY: 16 bytes of the block, and 16 of the array.
    unsafe {
        let [a, b, c] = [u32_at(block.add(4)), u32_at(block.add(8)), u32_at(block.add(12))];
        let scales = pair(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4);
        let mins = pair(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4);
        // Of 16 factors the first eight count.
        let scales = factors::<S>(|at| S::bytes_of([scales, 0], at), S::splat_half(u16_at(block)));
        let mins = factors::<S>(|at| S::bytes_of([mins, 0], at), S::splat_half(u16_at(block.add(2))));
        (scales, mins)
    }
}

/// `d sc q - dmin m`, sub-blocks of 16, 2-bit codes.
pub(crate) struct Q2K;

impl Block for Q2K {
    const LEN: usize = 256;
    const BYTES: usize = 16 + 64 + 2 + 2;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (d, dmin) = (S::splat_half(u16_at(block.add(80))), S::splat_half(u16_at(block.add(82))));
            let scales = factors::<S>(|at| S::and(S::bytes(block.add(at)), S::splat_i(15)), d);
            let mins = factors::<S>(|at| S::shr(S::bytes(block.add(at)), 4), dmin);
            for half in 0..2 {
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let q = S::bytes(block.add(16 + 32 * half + l));
                    for s in 0..4 {
                        let j = 8 * half + 2 * s + l / 16;
                        let (dl, ml) = (S::splat(scales[j]), S::splat(mins[j]));
                        let code = S::and(S::shr(q, 2 * s as u32), S::splat_i(3));
                        sink.put(at + 128 * half + 32 * s + l, S::sub(S::mul(S::float(code), dl), ml));
                    }
                }
            }
        }
    }
}

/// `d (sc - 32) (q - 4)`, sub-blocks of 16, 3-bit codes.
pub(crate) struct Q3K;

impl Block for Q3K {
    const LEN: usize = 256;
    const BYTES: usize = 32 + 64 + 12 + 2;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            // Four scales a word: low nibbles of bytes 96 to 103, then their high ones; two more bits each from bytes 104 to 107.
            let [a, b, c] = [u32_at(block.add(96)), u32_at(block.add(100)), u32_at(block.add(104))];
            let (nibble, two) = (0x0f0f_0f0f, 0x0303_0303);
            let words = [
                pair(a & nibble | (c & two) << 4, b & nibble | (c >> 2 & two) << 4),
                pair(a >> 4 & nibble | (c >> 4 & two) << 4, b >> 4 & nibble | (c >> 6 & two) << 4),
            ];
            let d = S::splat_half(u16_at(block.add(108)));
            let scales = factors::<S>(|at| S::add_i(S::bytes_of(words, at), S::splat_i(-32)), d);
            for half in 0..2 {
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let h = S::bytes(block.add(l));
                    let q = S::bytes(block.add(32 + 32 * half + l));
                    for s in 0..4 {
                        let dl = S::splat(scales[8 * half + 2 * s + l / 16]);
                        let low = S::and(S::shr(q, 2 * s as u32), S::splat_i(3));
                        let high = S::and(S::shl(S::shr(h, (4 * half + s) as u32), 2), S::splat_i(4));
                        let code = S::add_i(S::or(low, high), S::splat_i(-4));
                        sink.put(at + 128 * half + 32 * s + l, S::mul(S::float(code), dl));
                    }
                }
            }
        }
    }
}

/// `d sc q - dmin m`, sub-blocks of 32, 4-bit codes.
pub(crate) struct Q4K;

impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 12 + 128;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (scales, mins) = scales_and_mins::<S>(block);
            let iota = S::table(IOTA.as_ptr());
            for i in 0..4 {
                let table = |j: usize| S::table_sub(S::table_mul(iota, scales[j]), mins[j]);
                let (low, high) = (table(2 * i), table(2 * i + 1));
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let q = S::bytes(block.add(16 + 32 * i + l));
                    sink.put(at + 64 * i + l, S::lookup(low, q));
                    sink.put(at + 64 * i + 32 + l, S::lookup(high, S::shr(q, 4)));
                }
            }
        }
    }
}

/// `d sc q - dmin m`, sub-blocks of 32, 5-bit codes.
pub(crate) struct Q5K;

impl Block for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 12 + 32 + 128;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (scales, mins) = scales_and_mins::<S>(block);
            for i in 0..4 {
                if S::LANES == 16 {
                    // As in Q5_0: two tables a sub-block, of codes below and from 16 on.
                    let iota = S::table(IOTA.as_ptr());
                    let tables = |j: usize| {
                        let table =
                            |first: f32| S::table_sub(S::table_mul(S::table_add(iota, first), scales[j]), mins[j]);
                        (table(0.0), table(16.0))
                    };
                    let ((a0, a1), (b0, b1)) = (tables(2 * i), tables(2 * i + 1));
                    for l in [0, 16] {
                        let h = S::bytes(block.add(16 + l));
                        let q = S::bytes(block.add(48 + 32 * i + l));
                        sink.put(at + 64 * i + l, S::lookup_5(a0, a1, q, S::test(h, 1 << (2 * i))));
                        sink.put(at + 64 * i + 32 + l, S::lookup_5(b0, b1, S::shr(q, 4), S::test(h, 2 << (2 * i))));
                    }
                    continue;
                }
                let pair = |j: usize| (S::splat(scales[j]), S::splat(mins[j]));
                let ((d0, m0), (d1, m1)) = (pair(2 * i), pair(2 * i + 1));
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let h = S::shl(S::shr(S::bytes(block.add(16 + l)), 2 * i as u32), 4);
                    let q = S::bytes(block.add(48 + 32 * i + l));
                    let low = S::or(S::and(q, S::splat_i(15)), S::and(h, S::splat_i(16)));
                    let high = S::or(S::shr(q, 4), S::and(S::shr(h, 1), S::splat_i(16)));
                    sink.put(at + 64 * i + l, S::sub(S::mul(S::float(low), d0), m0));
                    sink.put(at + 64 * i + 32 + l, S::sub(S::mul(S::float(high), d1), m1));
                }
            }
        }
    }
}

/// `d sc (q - 32)`, sub-blocks of 16, 6-bit codes.
pub(crate) struct Q6K;

impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 128 + 64 + 16 + 2;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let scales = factors::<S>(|at| S::signed_bytes(block.add(192 + at)), S::splat_half(u16_at(block.add(208))));
            for half in 0..2 {
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let a = S::bytes(block.add(64 * half + l));
                    let b = S::bytes(block.add(64 * half + 32 + l));
                    let h = S::bytes(block.add(128 + 32 * half + l));
                    let (nibble, top) = (S::splat_i(15), S::splat_i(0x30));
                    let codes = [
                        S::or(S::and(a, nibble), S::and(S::shl(h, 4), top)),
                        S::or(S::and(b, nibble), S::and(S::shl(h, 2), top)),
                        S::or(S::shr(a, 4), S::and(h, top)),
                        S::or(S::shr(b, 4), S::and(S::shr(h, 2), top)),
                    ];
                    for (s, code) in codes.into_iter().enumerate() {
                        let dl = S::splat(scales[8 * half + 2 * s + l / 16]);
                        let x = S::mul(S::float(S::add_i(code, S::splat_i(-32))), dl);
                        sink.put(at + 128 * half + 32 * s + l, x);
                    }
                }
            }
        }
    }
}

/// `d (sc - 32) GRID[q]`, sub-blocks of 32, 4-bit codes.
pub(crate) struct Iq4Xs;

impl Block for Iq4Xs {
    const LEN: usize = 256;
    const BYTES: usize = 2 + 2 + 4 + 128;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (high, low) = (u16_at(block.add(2)), u32_at(block.add(4)));
            let d = S::half(u16_at(block));
            let grid = S::table(GRID.as_ptr());
            for j in 0..8 {
                let scale = (low >> (4 * j) & 15) as i32 | (i32::from(high) >> (2 * j) & 3) << 4;
                let table = S::table_mul(grid, d * (scale - 32) as f32);
                nibbles::<S>(block.add(8 + 16 * j), table, at + 32 * j, sink);
            }
        }
    }
}
