//! Plain Rust: runs everywhere, and is the twin that the others are tested against.

use super::{Isa, Simd};
use crate::grids::{BASE, BOTH, CELLS, FIRST, Grid, RATIO, STEP};
use crate::layout::Float8;
use half::f16;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map<A: Copy, B>(a: [A; 16], f: impl Fn(A) -> B) -> [B; 16] {
    a.map(f)
}

#[inline(always)]
fn zip(a: [f32; 16], b: [f32; 16], f: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// 16 half-precision numbers' bits.
///
/// # Safety
/// 32 readable bytes.
#[inline(always)]
unsafe fn half_bits(p: *const u8) -> [u16; 16] {
    // SAFETY: the caller's.
    unsafe { map(p.cast::<[[u8; 2]; 16]>().read_unaligned(), u16::from_le_bytes) }
}

// Memory as `Simd` asks; no instruction set is needed.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    const ROWS: usize = 1;
    const WEIGHT_MAX: f32 = 32767.0;
    const OFF: i32 = 0;
    fn isa() -> Isa {
        Isa::Portable
    }
    type C = [u8; 64];
    type A = [i32; 16];
    type F = [f32; 16];
    type T = [u8; 32];

    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn prefetch_near(_: *const u8) {}
    #[inline(always)]
    unsafe fn codes(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_quad(x: u32) -> [u8; 64] {
        let x = x.to_le_bytes();
        std::array::from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn field(c: [u8; 64], from: u32, bits: u32, to: u32) -> [u8; 64] {
        let mask = (1u32 << bits) - 1;
        c.map(|x| (((u32::from(x) >> from) & mask) << to) as u8)
    }
    #[inline(always)]
    unsafe fn table(p: *const u8) -> [u8; 32] {
        unsafe { p.cast::<[u8; 32]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn lookup(t: [u8; 32], c: [u8; 64]) -> [u8; 64] {
        c.map(|x| t[usize::from(x & 31)])
    }

    #[inline(always)]
    unsafe fn sums(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn centered(c: [u8; 64]) -> [u8; 64] {
        c
    }
    #[inline(always)]
    unsafe fn dot(mut a: [i32; 16], c: [u8; 64], p: *const u64) -> [i32; 16] {
        let q = unsafe { p.cast::<[i16; 4]>().read_unaligned() }.map(i32::from);
        for (sum, c) in a.iter_mut().zip(c.as_chunks::<4>().0) {
            for j in 0..4 {
                *sum = sum.wrapping_add(i32::from(c[j]) * q[j]);
            }
        }
        a
    }
    #[inline(always)]
    unsafe fn signed(c: [u8; 64]) -> [u8; 64] {
        c.map(|x| x ^ 0x80)
    }
    #[inline(always)]
    unsafe fn dot_signed(mut a: [i32; 16], c: [u8; 64], p: *const u64) -> [i32; 16] {
        let q = unsafe { p.cast::<[i16; 4]>().read_unaligned() }.map(i32::from);
        for (sum, c) in a.iter_mut().zip(c.as_chunks::<4>().0) {
            for j in 0..4 {
                *sum = sum.wrapping_add(i32::from(c[j] as i8) * q[j]);
            }
        }
        a
    }
    #[inline(always)]
    unsafe fn weights(x: [f32; 16], p: *mut u64) {
        unsafe { p.cast::<[i16; 16]>().write_unaligned(map(x, |x| x.round_ties_even() as i16)) };
    }
    #[inline(always)]
    unsafe fn totals(a: [i32; 16]) -> [f32; 16] {
        map(a, |x| x as f32)
    }
    #[inline(always)]
    unsafe fn quads(x: [f32; 16], p: *mut u64) -> i32 {
        let rounded = map(x, |x| x.round_ties_even() as i16);
        unsafe { p.cast::<[i16; 16]>().write_unaligned(rounded) };
        rounded.iter().map(|&x| i32::from(x)).sum()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: [f32; 16]) {
        unsafe { p.cast::<[f32; 16]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(x: [f32; 16]) -> [f32; 16] {
        map(x, f32::abs)
    }
    #[inline(always)]
    unsafe fn add_above(to: [f32; 16], t: [f32; 16], border: f32, by: f32) -> [f32; 16] {
        zip(to, t, |to, t| if t > border { to + by } else { to })
    }
    #[inline(always)]
    unsafe fn fold<const N: usize>(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| {
            let (x, i) = if i < 8 { (&a, i) } else { (&b, i - 8) };
            let at = i / N * 2 * N + i % N;
            x[at] + x[at + N]
        })
    }
    #[inline(always)]
    unsafe fn fold_largest<const N: usize>(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| {
            let (x, i) = if i < 8 { (&a, i) } else { (&b, i - 8) };
            let at = i / N * 2 * N + i % N;
            if x[at] > x[at + N] { x[at] } else { x[at + N] }
        })
    }
    #[inline(always)]
    unsafe fn lookup_floats(table: &[f32; CELLS], at: [f32; 16]) -> [f32; 16] {
        map(at, |at| table[at as usize % CELLS])
    }
    #[inline(always)]
    unsafe fn put_codes(grid: &Grid, x: [f32; 16], inverse: f32, p: *mut u8) {
        let code = |x: f32| {
            let t = x.abs() * inverse;
            let run = t.min(15.0) as usize;
            let index = grid.below[run] + i32::from(t > grid.near[run]);
            (grid.count as i32 + if x.is_sign_negative() { !index } else { index }) as u8
        };
        unsafe { p.cast::<[u8; 16]>().write_unaligned(map(x, code)) }
    }
    #[inline(always)]
    unsafe fn reversed(mut x: [f32; 16]) -> [f32; 16] {
        x.reverse();
        x
    }
    #[inline(always)]
    unsafe fn butterfly<const LOG: u32>(x: [f32; 16]) -> [f32; 16] {
        let bit = 1 << LOG;
        std::array::from_fn(|i| if i & bit == 0 { x[i] + x[i | bit] } else { x[i ^ bit] - x[i] })
    }
    #[inline(always)]
    unsafe fn put_bytes(x: [f32; 16], p: *mut u8) {
        unsafe { p.cast::<[u8; 16]>().write_unaligned(map(x, |x| x.round_ties_even() as u8)) }
    }
    #[inline(always)]
    unsafe fn put_fields(p: *mut u8, codes: *const u8, from: u32, bits: u32, to: u32) {
        let (mask, p) = ((1u32 << bits) - 1, p.cast::<[[u8; 4]; 16]>());
        unsafe {
            let (mut fours, codes) = (p.read_unaligned(), codes.cast::<[u8; 16]>().read_unaligned());
            for (four, code) in fours.iter_mut().zip(codes) {
                let field = (u32::from(code) >> from & mask) << to;
                *four = (u32::from_le_bytes(*four) & !(mask << to) | field).to_le_bytes();
            }
            p.write_unaligned(fours);
        }
    }
    #[inline(always)]
    unsafe fn put_halves(x: [f32; 16], p: *mut u8) {
        unsafe { p.cast::<[[u8; 2]; 16]>().write_unaligned(map(x, |x| f16::from_f32(x).to_le_bytes())) }
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(x: [f32; 16]) -> f32 {
        let x: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }
    #[inline(always)]
    unsafe fn largest(x: [f32; 16]) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn power_of_two(x: [f32; 16]) -> [f32; 16] {
        map(x, |x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn round(x: [f32; 16]) -> [f32; 16] {
        map(x, f32::round_ties_even)
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> [f32; 16] {
        unsafe { map(half_bits(p), |x| f16::from_bits(x).to_f32()) }
    }
    #[inline(always)]
    unsafe fn paired(p: *const u8) -> [[f32; 16]; 2] {
        let bits = unsafe { half_bits(p) };
        let first = map(bits, |x| f16::from_bits(x & BASE).to_f32() * (FIRST + STEP * u32::from(x & RATIO)) as f32);
        let both = map(bits, |x| f16::from_bits(x & BASE).to_f32() * BOTH as f32);
        [first, zip(both, first, |a, b| a - b)]
    }
    #[inline(always)]
    unsafe fn grids<const BIT: u32>(p: *const u8) -> [u8; 64] {
        let bits = unsafe { half_bits(p) };
        std::array::from_fn(|i| if bits[i / 4] >> BIT & 1 != 0 { 16 } else { 0 })
    }
    #[inline(always)]
    unsafe fn floats8(format: Float8, p: *const u8) -> [f32; 16] {
        let bytes = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        map(bytes, |x| f16::from_bits(format.half_bits(x)).to_f32())
    }
    #[inline(always)]
    unsafe fn small(p: *const u8, from: u32, bits: u32) -> [f32; 16] {
        let bytes = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        map(bytes, |x| ((u32::from(x) >> from) & ((1 << bits) - 1)) as f32)
    }
}
