//! The vector operations of the integer products: 64 bytes or 16 values at a time on every instruction set.
//!
//! As with [`crate::simd`], a kernel is written once over [`Lanes`] and compiled for each instruction set. [`Plain`] is the twin of the others.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2Lanes, AvxVnniLanes, EvexVnniLanes};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{NeonDotLanes, NeonLanes};
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
    /// True if there are registers for tiles of 12 vectors and as many sums.
    const MANY_REGISTERS: bool;
    /// How many tokens with rounded activations lie side by side in a tile: a few, or as many as the registers hold.
    const WIDTHS: (usize, usize);
    /// 64 bytes.
    type B: Copy;
    /// 16 i32.
    type I: Copy;
    /// 16 f32.
    type F: Copy;

    unsafe fn bytes(p: *const u8) -> Self::B;
    /// Four bytes, 16 times.
    unsafe fn word(p: *const u8) -> Self::B;

    /// 32 bytes, twice.
    unsafe fn twice(p: *const u8) -> Self::B;
    /// 32 bytes and other 32.
    unsafe fn two(a: *const u8, b: *const u8) -> Self::B;
    /// 16 bytes twice, and other 16 twice.
    unsafe fn quarters(a: *const u8, b: *const u8) -> Self::B;
    unsafe fn store_bytes(p: *mut u8, x: Self::B);
    unsafe fn splat_b(x: u8) -> Self::B;
    unsafe fn and_b(a: Self::B, b: Self::B) -> Self::B;
    unsafe fn or_b(a: Self::B, b: Self::B) -> Self::B;
    unsafe fn xor_b(a: Self::B, b: Self::B) -> Self::B;
    /// Each byte of quarter i shifted right by `by[i]`, at most 7. What comes in above is zeros or bits of the next byte: who calls masks it.
    unsafe fn shr_b(x: Self::B, by: [u32; 4]) -> Self::B;
    /// As `shr_b`, to the left.
    unsafe fn shl_b(x: Self::B, by: u32) -> Self::B;
    /// `value` in byte i where bit i is set, else 0.
    unsafe fn where_bits(bits: u64, value: u8) -> Self::B;
    /// The byte of the table of 16 that each code names; codes below 16.
    unsafe fn lookup(table: &[u8; 16], codes: Self::B) -> Self::B;

    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn load_i(p: *const i32) -> Self::I;
    unsafe fn store_i(p: *mut i32, x: Self::I);
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn mul_i(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn shl_i(x: Self::I, by: u32) -> Self::I;
    /// Of signed values.
    unsafe fn shr_i(x: Self::I, by: u32) -> Self::I;
    unsafe fn sum_i(x: Self::I) -> i32;
    /// What [`Lanes::centered`] takes from codes: 0, or 128 where both factors of a product are signed.
    const OFF: i32;
    /// Unsigned bytes as the products of codes of any size take them: less `OFF`.
    unsafe fn centered(u: Self::B) -> Self::B;
    /// Lane i of `acc`, plus the products of bytes `4 i .. 4 i + 4` of `u` ([`Lanes::centered`], any) and of `s` (signed, any). Exact.
    unsafe fn dot(acc: Self::I, u: Self::B, s: Self::B) -> Self::I;
    /// As `dot`, for `u` below 128, not centered.
    unsafe fn dot_7(acc: Self::I, u: Self::B, s: Self::B) -> Self::I;
    /// As `dot`, with 64 codes of 16 bits, -16256 to 16256, at `x` ([`Lanes::put_words`]); `u` is centered, or below 128 and not.
    unsafe fn dot_16(acc: Self::I, u: Self::B, x: *const u8) -> Self::I;
    /// As `dot_16`, with the same four codes for each lane: those at `x` in such an array of 64. The two sums are put together by `join`.
    unsafe fn dot_words(acc: [Self::I; 2], u: Self::B, x: *const u8) -> [Self::I; 2];
    /// The sums of `dot_words` as one; the start of the first counts.
    unsafe fn join(acc: [Self::I; 2]) -> Self::I;

    /// Writes 16 codes of 8 bits.
    unsafe fn put_bytes(p: *mut u8, codes: Self::I);
    /// Writes 16 of 64 codes of 16 bits, -16256 to 16256, as [`Lanes::dot_16`] wants them: 16 of the first 64 bytes and 16 of the other 64. Either a code is
    /// `128 high + low` with low in -64 ..= 63, low parts first, or there are words, those of the even columns first.
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: Self::I);

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once where the machine can.
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn sum(x: Self::F) -> f32;
    /// A binary16 number.
    unsafe fn half(bits: u16) -> Self::F;
    /// Two binary16 numbers in the first lanes, the first in the low bits, and 0 in the others.
    unsafe fn pair(bits: u32) -> Self::F;
    /// `x` in the first `n` lanes, 0 in the others.
    unsafe fn first(x: Self::F, n: usize) -> Self::F;
    /// Unsigned bytes of two words.
    unsafe fn unsigned(words: [u64; 2]) -> Self::F;
    /// 16 binary16 numbers.
    unsafe fn halves(p: *const u8) -> Self::F;
    /// 16 unsigned bytes.
    unsafe fn unsigned_at(p: *const u8) -> Self::F;
    /// The low and the high nibbles of 16 bytes.
    unsafe fn nibbles_at(p: *const u8) -> (Self::F, Self::F);
    /// 16 signed bytes.
    unsafe fn signed(p: *const u8) -> Self::F;
    /// Lanes `2 j` and `2 j + 1` of the first eight, eight times each.
    unsafe fn eights(x: Self::F, j: usize) -> Self::F;
    /// Lanes `4 j .. 4 j + 4`, four times each.
    unsafe fn fours(x: Self::F, j: usize) -> Self::F;
    /// To f32, ties to even.
    unsafe fn float(x: Self::I) -> Self::F;
    /// To the nearest integers, ties to even; magnitudes below 2^22.
    unsafe fn round(x: Self::F) -> Self::I;
    /// The largest magnitude, as bits: those of a NaN are beyond infinity's.
    unsafe fn largest_bits(a: Self::F, b: Self::F) -> u32;
}
