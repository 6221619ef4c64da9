//! Plain Rust: arrays, for every target. The twin that the other instruction sets are compared with.

use super::Lanes;
use std::array::from_fn;

/// No instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

// The only unsafe operations are reads and writes of whole arrays, which `Lanes` asks the caller to own.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Plain {
    const TILE: (usize, usize) = (2, 1);
    type B = [u8; 64];
    type I = [i32; 16];
    type F = [f32; 16];

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn word(p: *const u8) -> [u8; 64] {
        let word = unsafe { p.cast::<[u8; 4]>().read_unaligned() };
        from_fn(|i| word[i % 4])
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> [i32; 16] {
        unsafe { p.cast::<[i32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sub_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    unsafe fn mul_i(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(always)]
    unsafe fn sum_i(x: [i32; 16]) -> i32 {
        x.iter().fold(0, |a, &b| a.wrapping_add(b))
    }
    #[inline(always)]
    unsafe fn dot(acc: [i32; 16], u: [u8; 64], s: [u8; 64]) -> [i32; 16] {
        let product = |i: usize| i32::from(u[i]) * i32::from(s[i] as i8);
        from_fn(|i| acc[i].wrapping_add((4 * i..4 * i + 4).map(product).sum()))
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
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn float(x: [i32; 16]) -> [f32; 16] {
        x.map(|x| x as f32)
    }
}
