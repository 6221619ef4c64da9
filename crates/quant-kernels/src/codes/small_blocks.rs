//! Types in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.

use super::{Block, Sink, u16_at, u32_at};
use crate::simd::Simd;

/// 0, 1, ..., 15.
pub(super) const IOTA: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// The grid of IQ4_NL and IQ4_XS (`kvalues_iq4nl` in ggml-common.h).
pub(super) const GRID: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// 32 values looked up by nibbles: 16 bytes, low nibbles first.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(qs: *const u8, table: S::Table, at: usize, sink: &mut impl Sink<S>) {
    // SAFETY: the caller owns 16 bytes at `qs` and 32 places in the sink.
    unsafe {
        for v in 0..16 / S::LANES {
            let q = S::bytes(qs.add(v * S::LANES));
            sink.put(at + v * S::LANES, S::lookup(table, q));
            sink.put(at + 16 + v * S::LANES, S::lookup(table, S::shr(q, 4)));
        }
    }
}

/// Q5_0 and Q5_1: nibbles at `qs`, fifth bits `qh`; the value of a code is `d (q + offset)`, plus `add`.
///
/// With 16 lanes a table is one register, and looking up in two is the quickest; with 8 the arithmetic is.
#[inline(always)]
unsafe fn five_bits<S: Simd>(
    qs: *const u8,
    qh: u32,
    d: u16,
    offset: i32,
    add: Option<f32>,
    at: usize,
    sink: &mut impl Sink<S>,
) {
    // SAFETY: the caller owns 16 bytes at `qs` and 32 places in the sink.
    unsafe {
        let scale = S::splat_half(d);
        if S::LANES == 16 {
            let table = |first: f32| {
                let scaled = S::table_mul(S::table_add(S::table(IOTA.as_ptr()), first), S::half(d));
                match add {
                    Some(m) => S::table_add(scaled, m),
                    None => scaled,
                }
            };
            let (low, high) = (table(offset as f32), table((offset + 16) as f32));
            let q = S::bytes(qs);
            sink.put(at, S::lookup_5(low, high, q, qh));
            sink.put(at + 16, S::lookup_5(low, high, S::shr(q, 4), qh >> 16));
            return;
        }
        let value = |code: S::I| {
            let x = S::mul(S::float(S::add_i(code, S::splat_i(offset))), scale);
            match add {
                Some(m) => S::add(x, S::splat(m)),
                None => x,
            }
        };
        for v in 0..16 / S::LANES {
            let l = v * S::LANES;
            let q = S::bytes(qs.add(l));
            let low = S::or(S::and(q, S::splat_i(15)), S::where_bit(qh >> l, 16));
            let high = S::or(S::shr(q, 4), S::where_bit(qh >> (l + 16), 16));
            sink.put(at + l, value(low));
            sink.put(at + 16 + l, value(high));
        }
    }
}

/// `d (q - 8)`.
pub(crate) struct Q4_0;

impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 16;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let d = S::half(u16_at(block));
            let table = S::table_mul(S::table_sub(S::table(IOTA.as_ptr()), 8.0), d);
            nibbles::<S>(block.add(2), table, at, sink);
        }
    }
}

/// `d q + m`.
pub(crate) struct Q4_1;

impl Block for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 2 + 16;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (d, m) = (S::half(u16_at(block)), S::half(u16_at(block.add(2))));
            let table = S::table_add(S::table_mul(S::table(IOTA.as_ptr()), d), m);
            nibbles::<S>(block.add(4), table, at, sink);
        }
    }
}

/// `d (q - 16)`.
pub(crate) struct Q5_0;

impl Block for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 4 + 16;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe { five_bits::<S>(block.add(6), u32_at(block.add(2)), u16_at(block), -16, None, at, sink) }
    }
}

/// `d q + m`.
pub(crate) struct Q5_1;

impl Block for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 2 + 4 + 16;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let (d, m) = (u16_at(block), S::half(u16_at(block.add(2))));
            five_bits::<S>(block.add(8), u32_at(block.add(4)), d, 0, Some(m), at, sink);
        }
    }
}

/// `d q`.
pub(crate) struct Q8_0;

impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 32;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let d = S::splat_half(u16_at(block));
            for v in 0..32 / S::LANES {
                let q = S::signed_bytes(block.add(2 + v * S::LANES));
                sink.put(at + v * S::LANES, S::mul(S::float(q), d));
            }
        }
    }
}

/// `d GRID[q]`.
pub(crate) struct Iq4Nl;

impl Block for Iq4Nl {
    const LEN: usize = 32;
    const BYTES: usize = 2 + 16;

    #[inline(always)]
    unsafe fn decode<S: Simd>(block: *const u8, at: usize, sink: &mut impl Sink<S>) {
        // SAFETY: all offsets are within the block.
        unsafe {
            let table = S::table_mul(S::table(GRID.as_ptr()), S::half(u16_at(block)));
            nibbles::<S>(block.add(2), table, at, sink);
        }
    }
}
