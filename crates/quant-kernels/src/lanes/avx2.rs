//! AVX2: two registers of 32 bytes. Products go through 16 bits, in a way that cannot saturate.

use super::Lanes;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Lanes;

type Pair = [__m256i; 2];

/// `vpmaddubsw` would saturate at 16 bits with codes of 8. Even and odd bytes by themselves fit 16 bits, and `vpmaddwd` adds in 32.
#[inline(always)]
unsafe fn dot(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (u0, u1) = (_mm256_and_si256(u, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(u));
        let (s0, s1) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(s)), _mm256_srai_epi16::<8>(s));
        let even = _mm256_madd_epi16(u0, s0);
        _mm256_add_epi32(acc, _mm256_add_epi32(even, _mm256_madd_epi16(u1, s1)))
    }
}

#[inline(always)]
fn both<T: Copy, R>(a: [T; 2], b: [T; 2], f: impl Fn(T, T) -> R) -> [R; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

// Each function is the instruction it names, twice; the caller has the instruction set, and memory as `Lanes` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2Lanes {
    const TILE: (usize, usize) = (4, 1);
    type B = Pair;
    type I = Pair;
    type F = [__m256; 2];

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Pair {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn word(p: *const u8) -> Pair {
        unsafe { [_mm256_set1_epi32(p.cast::<i32>().read_unaligned()); 2] }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Pair {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Pair {
        unsafe { Self::bytes(p.cast()) }
    }
    #[inline(always)]
    unsafe fn add_i(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_add_epi32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub_i(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_sub_epi32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul_i(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_mullo_epi32(a, b) })
    }
    #[inline(always)]
    unsafe fn sum_i(x: Pair) -> i32 {
        unsafe {
            let x = _mm256_add_epi32(x[0], x[1]);
            let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
        }
    }
    #[inline(always)]
    unsafe fn dot(acc: Pair, u: Pair, s: Pair) -> Pair {
        unsafe { [dot(acc[0], u[0], s[0]), dot(acc[1], u[1], s[1])] }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Self::F) {
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn float(x: Pair) -> Self::F {
        x.map(|x| unsafe { _mm256_cvtepi32_ps(x) })
    }
}
