//! Types in super-blocks of 256: Q2_K to Q6_K, IQ4_XS.

use super::small_blocks::{GRID, IOTA, nibbles};
use super::{Block, Sink, u16_at, u32_at};
use crate::simd::Simd;

/// The 6-bit scales and minimums of Q4_K and Q5_K, from their 12 bytes: all eight of each with a few operations on whole words.
#[inline(always)]
unsafe fn scales_and_mins(p: *const u8) -> ([u8; 8], [u8; 8]) {
    // SAFETY: 12 bytes of the block.
    let [a, b, c] = unsafe { [u32_at(p), u32_at(p.add(4)), u32_at(p.add(8))] };
    let join = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let scales = join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4);
    let mins = join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4);
    (scales, mins)
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
            let (d, dmin) = (S::half(u16_at(block.add(80))), S::half(u16_at(block.add(82))));
            for half in 0..2 {
                for l in 0..32 / S::LANES {
                    let l = l * S::LANES;
                    let q = S::bytes(block.add(16 + 32 * half + l));
                    for s in 0..4 {
                        let scales = *block.add(8 * half + 2 * s + l / 16);
                        let dl = S::splat(d * f32::from(scales & 15));
                        let ml = S::splat(dmin * f32::from(scales >> 4));
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
            let d = S::half(u16_at(block.add(108)));
            let mut scales = [0.0f32; 16];
            for (j, scale) in scales.iter_mut().enumerate() {
                let low = *block.add(96 + j % 8) >> (4 * (j / 8)) & 15;
                let high = *block.add(104 + j % 4) >> (2 * (j / 4)) & 3;
                *scale = d * (i32::from(low | high << 4) - 32) as f32;
            }
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
            let (d, dmin) = (S::half(u16_at(block)), S::half(u16_at(block.add(2))));
            let (scales, mins) = scales_and_mins(block.add(4));
            let iota = S::table(IOTA.as_ptr());
            for i in 0..4 {
                let table = |j: usize| {
                    let scaled = S::table_mul(iota, d * f32::from(scales[j]));
                    S::table_sub(scaled, dmin * f32::from(mins[j]))
                };
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
            let (d, dmin) = (S::half(u16_at(block)), S::half(u16_at(block.add(2))));
            let (scales, mins) = scales_and_mins(block.add(4));
            for i in 0..4 {
                let pair = |j: usize| (S::splat(d * f32::from(scales[j])), S::splat(dmin * f32::from(mins[j])));
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
            let d = S::half(u16_at(block.add(208)));
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
                        let scale = *block.add(192 + 8 * half + 2 * s + l / 16) as i8;
                        let dl = S::splat(d * f32::from(scale));
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
            let d = S::half(u16_at(block));
            let (high, low) = (u16_at(block.add(2)), u32_at(block.add(4)));
            let grid = S::table(GRID.as_ptr());
            for j in 0..8 {
                let scale = (low >> (4 * j) & 15) as i32 | (i32::from(high) >> (2 * j) & 3) << 4;
                let table = S::table_mul(grid, d * (scale - 32) as f32);
                nibbles::<S>(block.add(8 + 16 * j), table, at + 32 * j, sink);
            }
        }
    }
}
