//! AVX-512 (F, BW, DQ, VL): 16 lanes.

use super::Simd;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// Each function is the instruction it names; the caller has the instruction set, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;
    type F = __m512;
    type I = __m512i;
    type Table = __m512;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    unsafe fn largest(x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        // In all lanes: inserted in one, LLVM would keep the others of some register in use, and wait for it.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_set1_epi16(bits as i16))) }
    }
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    unsafe fn floats(p: *const u8) -> __m512 {
        unsafe { Self::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn bfloats(p: *const u8) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn bytes_of(words: [u64; 2], _: usize) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_set_epi64x(words[1] as i64, words[0] as i64)) }
    }
    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shr(a: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_srlv_epi32(a, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shl(a: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(a, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn where_bit(bits: u32, x: i32) -> __m512i {
        unsafe { _mm512_maskz_set1_epi32(bits as __mmask16, x) }
    }
    #[inline(always)]
    unsafe fn float(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn from_bits(a: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(a) }
    }

    #[inline(always)]
    unsafe fn table(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn table_mul(t: __m512, x: f32) -> __m512 {
        unsafe { _mm512_mul_ps(t, _mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn table_add(t: __m512, x: f32) -> __m512 {
        unsafe { _mm512_add_ps(t, _mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn table_sub(t: __m512, x: f32) -> __m512 {
        unsafe { _mm512_sub_ps(t, _mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn lookup(t: __m512, codes: __m512i) -> __m512 {
        // The instruction reads the low 4 bits of each index.
        unsafe { _mm512_permutexvar_ps(codes, t) }
    }
    #[inline(always)]
    unsafe fn lookup_5(low: __m512, high: __m512, codes: __m512i, bits: u32) -> __m512 {
        unsafe { _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(codes, low), bits as __mmask16, codes, high) }
    }
    #[inline(always)]
    unsafe fn test(a: __m512i, mask: i32) -> u32 {
        unsafe { u32::from(_mm512_test_epi32_mask(a, _mm512_set1_epi32(mask))) }
    }
}
