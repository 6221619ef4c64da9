//! Codes of 2, 3, 4 and 8 bits with a scale and a zero point per block: weights of GPTQ and AWQ, repacked (see [`crate::AffineWeights`]).
//!
//! A block is of one group: scale (binary16), zero point (u16), codes. `w = (code - zero) * scale`, rounded once (never, in fact: the product fits an
//! f32), as `quant_core::affine` has it. Where the bits of code `i` stand, for vectors of 8 and of 16 values to find them in whole registers:
//!
//! | bits | block length | code i |
//! |---|---|---|
//! | 8 | any | byte i |
//! | 4 | from 32 on | of each 32: low nibbles of 16 bytes, then the high ones |
//! | 4 | 16 | low nibbles of 8 bytes, then the high ones |
//! | 2 | from 64 on | of each 64: bits 0-1 of 16 bytes, then bits 2-3, 4-5, 6-7 |
//! | 2 | 16, 32 | the same with 4 and 8 bytes |
//! | 3 | any | the low two bits as those of 2 bits; then the third ones, a bit each |

use super::small_blocks::{IOTA, nibbles};
use super::{Block, Sink, u16_at, u32_at};
use crate::simd::Simd;

/// Scale and zero point.
pub(crate) const HEADER: usize = 4;

/// A block of `LEN` codes of `BITS` bits.
pub(crate) struct Affine<const BITS: usize, const LEN: usize>;

impl<const BITS: usize, const LEN: usize> Block for Affine<BITS, LEN> {
    const LEN: usize = LEN;
    const BYTES: usize = HEADER + LEN * BITS / 8;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (d, zero) = (u16_at(block), u16_at(block.add(2)));
            let qs = block.add(HEADER);
            match BITS {
                8 => {
                    let (d, minus) = (S::splat_half(d), S::splat_i(-i32::from(zero)));
                    for v in 0..LEN / S::LANES {
                        let q = S::add_i(S::bytes(qs.add(v * S::LANES)), minus);
                        sink.put(at + v * S::LANES, S::mul(S::float(q), d));
                    }
                }
                4 => {
                    let table = values::<S>(&IOTA, zero, d);
                    if LEN == 16 {
                        let w = u64_at(qs);
                        for v in 0..LEN / S::LANES {
                            sink.put(at + v * S::LANES, S::lookup(table, S::bytes_of([w, w >> 4], v * S::LANES)));
                        }
                    } else {
                        for j in 0..LEN / 32 {
                            nibbles::<S>(qs.add(16 * j), table, at + 32 * j, sink);
                        }
                    }
                }
                2 => {
                    let table = values::<S>(&LOW, zero, d);
                    for v in 0..LEN / S::LANES {
                        let codes = two_bits::<S, LEN>(qs, v * S::LANES);
                        sink.put(at + v * S::LANES, S::lookup(table, codes));
                    }
                }
                _ => {
                    let (low, high) = (values::<S>(&LOW, zero, d), values::<S>(&HIGH, zero, d));
                    let third = qs.add(LEN / 4);
                    for v in 0..LEN / S::LANES {
                        let at_v = v * S::LANES;
                        // Of bits beyond the vector's lanes none is looked at.
                        let bits = u32::from(u16_at(third.add(at_v / 16 * 2))) >> (at_v % 16);
                        sink.put(at + at_v, S::lookup_5(low, high, two_bits::<S, LEN>(qs, at_v), bits));
                    }
                }
            }
        }
    }
}

/// The low two bits of an index, which are the code.
const LOW: [f32; 16] = [0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3.];
/// The same with the third bit set.
const HIGH: [f32; 16] = [4., 5., 6., 7., 4., 5., 6., 7., 4., 5., 6., 7., 4., 5., 6., 7.];

/// `(code - zero) * d` for the code of each index.
#[inline(always)]
unsafe fn values<S: Simd>(codes: &[f32; 16], zero: u16, d: u16) -> S::Table {
    // SAFETY: the caller has the instruction set; a table has 16 values.
    unsafe { S::table_mul(S::table_sub(S::table(codes.as_ptr()), f32::from(zero)), S::half(d)) }
}

/// Codes `at ..` of a block, in the low two bits of each lane; above them stands something else. `at` is a multiple of the lanes.
#[inline(always)]
unsafe fn two_bits<S: Simd, const LEN: usize>(qs: *const u8, at: usize) -> S::I {
    let sixteenth = (at / 16) as u32;
    // SAFETY: the caller owns `LEN / 4` bytes at `qs`, and `at + LANES <= LEN`.
    unsafe {
        match LEN {
            16 => {
                let w = u64::from(u32_at(qs));
                S::bytes_of([w | w >> 2 << 32, w >> 4 | w >> 6 << 32], at)
            }
            32 => {
                let w = u64_at(qs);
                S::shr(S::bytes_of([w, w >> 2], at % 16), 4 * sixteenth)
            }
            _ => S::shr(S::bytes(qs.add(at / 64 * 16 + at % 16)), 2 * (sixteenth % 4)),
        }
    }
}

/// A little-endian u64 at a pointer.
#[inline(always)]
unsafe fn u64_at(p: *const u8) -> u64 {
    // SAFETY: eight bytes of a block.
    u64::from_le(unsafe { p.cast::<u64>().read_unaligned() })
}
