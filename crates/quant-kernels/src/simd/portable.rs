//! Plain Rust: 8 lanes as arrays, for every target. The twin that the other instruction sets are compared with.

use super::Simd;
use half::{bf16, f16};
use std::array::from_fn;

/// No instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type F = [f32; 8];
type I = [i32; 8];

// The only unsafe operations are reads and writes of 8 elements, which `Simd` asks the caller to own.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    const LANES: usize = 8;
    type F = F;
    type I = I;
    type Table = [f32; 16];

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe { p.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // Not `mul_add`: without the instruction that is a slow library call.
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(x: F) -> f32 {
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }
    #[inline(always)]
    unsafe fn largest(x: F) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> F {
        [f16::from_bits(bits).to_f32(); 8]
    }
    #[inline(always)]
    unsafe fn floats(p: *const u8) -> F {
        let bytes = unsafe { p.cast::<[[u8; 4]; 8]>().read_unaligned() };
        bytes.map(f32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> F {
        let bytes = unsafe { p.cast::<[[u8; 2]; 8]>().read_unaligned() };
        bytes.map(|b| f16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn bfloats(p: *const u8) -> F {
        let bytes = unsafe { p.cast::<[[u8; 2]; 8]>().read_unaligned() };
        bytes.map(|b| bf16::from_le_bytes(b).to_f32())
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> I {
        unsafe { p.cast::<[u8; 8]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn bytes_of(words: [u64; 2], at: usize) -> I {
        words[at / 8].to_le_bytes().map(i32::from)
    }
    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> I {
        unsafe { p.cast::<[i8; 8]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn shr(a: I, by: u32) -> I {
        a.map(|x| (x as u32 >> by) as i32)
    }
    #[inline(always)]
    unsafe fn shl(a: I, by: u32) -> I {
        a.map(|x| x << by)
    }
    #[inline(always)]
    unsafe fn where_bit(bits: u32, x: i32) -> I {
        from_fn(|i| if bits >> i & 1 == 1 { x } else { 0 })
    }
    #[inline(always)]
    unsafe fn float(a: I) -> F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        // Adding 1.5 * 2^23 leaves no fraction bits; good for |x| < 2^22, which `exp` keeps to.
        a.map(|x| ((x + 12_582_912.0) - 12_582_912.0) as i32)
    }
    #[inline(always)]
    unsafe fn from_bits(a: I) -> F {
        a.map(|x| f32::from_bits(x as u32))
    }

    #[inline(always)]
    unsafe fn table(p: *const f32) -> [f32; 16] {
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn table_mul(t: [f32; 16], x: f32) -> [f32; 16] {
        t.map(|v| v * x)
    }
    #[inline(always)]
    unsafe fn table_add(t: [f32; 16], x: f32) -> [f32; 16] {
        t.map(|v| v + x)
    }
    #[inline(always)]
    unsafe fn table_sub(t: [f32; 16], x: f32) -> [f32; 16] {
        t.map(|v| v - x)
    }
    #[inline(always)]
    unsafe fn lookup(t: [f32; 16], codes: I) -> F {
        codes.map(|c| t[(c & 15) as usize])
    }
    #[inline(always)]
    unsafe fn lookup_5(low: [f32; 16], high: [f32; 16], codes: I, bits: u32) -> F {
        from_fn(|i| if bits >> i & 1 == 1 { high } else { low }[(codes[i] & 15) as usize])
    }
    #[inline(always)]
    unsafe fn test(a: I, mask: i32) -> u32 {
        (0..8).filter(|&i| a[i] & mask != 0).map(|i| 1 << i).sum()
    }
}
