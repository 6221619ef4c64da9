//! AVX2 with FMA and F16C: 8 lanes.

use super::Simd;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// Each function is the instruction it names; the caller has the instruction set, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const LANES: usize = 8;
    type F = __m256;
    type I = __m256i;
    /// Codes 0 to 7, codes 8 to 15.
    type Table = (__m256, __m256);

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m256) -> f32 {
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: __m256) -> f32 {
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        // In all lanes: inserted in one, LLVM would keep the others of some register in use, and wait for it.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_set1_epi16(bits as i16))) }
    }
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    unsafe fn floats(p: *const u8) -> __m256 {
        unsafe { Self::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn bfloats(p: *const u8) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))) }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn bytes_of(words: [u64; 2], at: usize) -> __m256i {
        unsafe { _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(words[at / 8] as i64)) }
    }
    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shr(a: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_srlv_epi32(a, _mm256_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shl(a: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_sllv_epi32(a, _mm256_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn where_bit(bits: u32, x: i32) -> __m256i {
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), lane), lane);
            _mm256_and_si256(set, _mm256_set1_epi32(x))
        }
    }
    #[inline(always)]
    unsafe fn float(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(a) }
    }
    #[inline(always)]
    unsafe fn from_bits(a: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(a) }
    }

    #[inline(always)]
    unsafe fn table(p: *const f32) -> Self::Table {
        unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn table_mul(t: Self::Table, x: f32) -> Self::Table {
        unsafe { (_mm256_mul_ps(t.0, _mm256_set1_ps(x)), _mm256_mul_ps(t.1, _mm256_set1_ps(x))) }
    }
    #[inline(always)]
    unsafe fn table_add(t: Self::Table, x: f32) -> Self::Table {
        unsafe { (_mm256_add_ps(t.0, _mm256_set1_ps(x)), _mm256_add_ps(t.1, _mm256_set1_ps(x))) }
    }
    #[inline(always)]
    unsafe fn table_sub(t: Self::Table, x: f32) -> Self::Table {
        unsafe { (_mm256_sub_ps(t.0, _mm256_set1_ps(x)), _mm256_sub_ps(t.1, _mm256_set1_ps(x))) }
    }
    #[inline(always)]
    unsafe fn lookup(t: Self::Table, codes: __m256i) -> __m256 {
        // The permutation reads the low 3 bits of each index, the blend the sign: bit 3 moved there.
        unsafe {
            let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
            _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.0, codes), _mm256_permutevar8x32_ps(t.1, codes), upper)
        }
    }
    #[inline(always)]
    unsafe fn lookup_5(low: Self::Table, high: Self::Table, codes: __m256i, bits: u32) -> __m256 {
        unsafe {
            let set = _mm256_castsi256_ps(Self::where_bit(bits, -1));
            _mm256_blendv_ps(Self::lookup(low, codes), Self::lookup(high, codes), set)
        }
    }
    #[inline(always)]
    unsafe fn test(a: __m256i, mask: i32) -> u32 {
        unsafe {
            let clear = _mm256_cmpeq_epi32(_mm256_and_si256(a, _mm256_set1_epi32(mask)), _mm256_setzero_si256());
            !(_mm256_movemask_ps(_mm256_castsi256_ps(clear)) as u32) & 0xff
        }
    }
}
