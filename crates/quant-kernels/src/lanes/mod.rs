//! The vector operations of the integer products: 64 bytes or 16 values at a time on every instruction set.
//!
//! As with [`crate::simd`], a kernel is written once over [`Lanes`] and compiled for each instruction set. [`Plain`] is the twin of the others.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2Lanes;
pub(crate) use plain::Plain;
#[cfg(target_arch = "x86_64")]
pub(crate) use vnni::VnniLanes;

/// Operations on 64 bytes, 16 i32 and 16 f32. Integer sums wrap.
///
/// # Safety
/// Every function needs the instruction set of its implementor; those with a pointer need what they read or write there, at any alignment.
pub(crate) trait Lanes: Copy + 'static {
    /// Rows of weights and vectors of 16 tokens in the tile of a product of many tokens with one scale a row: as many as the registers hold.
    const TILE: (usize, usize);
    /// 64 bytes.
    type B: Copy;
    /// 16 i32.
    type I: Copy;
    /// 16 f32.
    type F: Copy;

    unsafe fn bytes(p: *const u8) -> Self::B;
    /// Four bytes, 16 times.
    unsafe fn word(p: *const u8) -> Self::B;

    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn load_i(p: *const i32) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sum_i(x: Self::I) -> i32;
    /// Lane i of `acc`, plus the products of bytes `4 i .. 4 i + 4` of `u` (unsigned, any) and of `s` (signed, any). Exact.
    unsafe fn dot(acc: Self::I, u: Self::B, s: Self::B) -> Self::I;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// To f32, ties to even.
    unsafe fn float(x: Self::I) -> Self::F;
}
