//! The vector operations that the kernels are written in, once for every instruction set.
//!
//! A kernel is a function generic over [`Simd`], forced inline into a small wrapper that enables the instruction set ([`crate::dispatch`]), so
//! that each operation becomes its instruction. [`Portable`] spells the same operations in plain Rust: it runs on every target and is the twin
//! that the tests compare the others with.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// `LANES` values of f32 or i32 at a time. No operation fuses a product and a sum but `fma`.
///
/// # Safety
/// Every function needs the instruction set of its implementor; those with a pointer need `LANES` elements there (of their element type), at any
/// alignment.
pub(crate) trait Simd: Copy + 'static {
    /// Values in a vector: 8 or 16.
    const LANES: usize;
    /// `LANES` f32.
    type F: Copy;
    /// `LANES` i32.
    type I: Copy;
    /// 16 f32, to be looked up by a 4-bit code.
    type Table: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; the second where one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; the second where one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of the lanes.
    unsafe fn sum(x: Self::F) -> f32;
    /// The largest lane.
    unsafe fn largest(x: Self::F) -> f32;

    /// A binary16 number.
    unsafe fn half(bits: u16) -> f32;
    /// A binary16 number in every lane.
    unsafe fn splat_half(bits: u16) -> Self::F;
    /// Binary32 numbers, little endian.
    unsafe fn floats(p: *const u8) -> Self::F;
    /// Binary16 numbers, little endian.
    unsafe fn halves(p: *const u8) -> Self::F;
    /// bfloat16 numbers, little endian.
    unsafe fn bfloats(p: *const u8) -> Self::F;

    unsafe fn splat_i(x: i32) -> Self::I;
    /// Bytes, zero-extended.
    unsafe fn bytes(p: *const u8) -> Self::I;
    /// Bytes `at..` of 16, zero-extended; `at` is 0, or 8 with 8 lanes. From registers: bytes stored one by one would have to reach the cache first.
    unsafe fn bytes_of(words: [u64; 2], at: usize) -> Self::I;
    /// Bytes, sign-extended.
    unsafe fn signed_bytes(p: *const u8) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift to the right.
    unsafe fn shr(a: Self::I, by: u32) -> Self::I;
    unsafe fn shl(a: Self::I, by: u32) -> Self::I;
    /// `x` in lane i where bit i of `bits` is set, else 0.
    unsafe fn where_bit(bits: u32, x: i32) -> Self::I;
    /// To f32.
    unsafe fn float(a: Self::I) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::I;
    /// The same bits as f32.
    unsafe fn from_bits(a: Self::I) -> Self::F;

    /// 16 values.
    unsafe fn table(p: *const f32) -> Self::Table;
    /// Each `t * x`.
    unsafe fn table_mul(t: Self::Table, x: f32) -> Self::Table;
    /// Each `t + x`.
    unsafe fn table_add(t: Self::Table, x: f32) -> Self::Table;
    /// Each `t - x`.
    unsafe fn table_sub(t: Self::Table, x: f32) -> Self::Table;
    /// The value of the code in the low 4 bits of each lane; higher bits do not matter.
    unsafe fn lookup(t: Self::Table, codes: Self::I) -> Self::F;
    /// As `lookup`, in `high` in lane i where bit i of `bits` is set, else in `low`.
    unsafe fn lookup_5(low: Self::Table, high: Self::Table, codes: Self::I, bits: u32) -> Self::F;
    /// Bit i is set where lane i has a bit of `mask`.
    unsafe fn test(a: Self::I, mask: i32) -> u32;
}

/// `e^x`, within 2 ulp for -87.3 <= x <= 88; x is clamped to that range, NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose remainder is below 2^-26 there.
///
/// # Safety
/// As for every operation of [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let x = S::min(S::splat(88.0), S::max(S::splat(-87.3), x));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let nf = S::float(n);
        // ln 2 in two parts: the first has few enough bits for n times it to be exact.
        let r = S::fma(nf, S::splat(-0.693_359_4), x);
        let r = S::fma(nf, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        // 2^n by its exponent field: -126 <= n <= 127.
        S::mul(p, S::from_bits(S::shl(S::add_i(n, S::splat_i(127)), 23)))
    }
}
