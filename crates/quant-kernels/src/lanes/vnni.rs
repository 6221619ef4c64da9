//! AVX-512 with VNNI: one register holds all 64 bytes, and `vpdpbusd` is the whole of `dot`.

use super::Lanes;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct VnniLanes;

// Each function is the instruction it names; the caller has the instruction set, and memory as `Lanes` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for VnniLanes {
    const TILE: (usize, usize) = (8, 3);
    const MANY_REGISTERS: bool = true;
    const WIDTHS: (usize, usize) = (4, 6);
    const OFF: i32 = 0;
    type B = __m512i;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn word(p: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn twice(p: *const u8) -> __m512i {
        unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn two(a: *const u8, b: *const u8) -> __m512i {
        unsafe {
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(_mm256_loadu_si256(a.cast())), _mm256_loadu_si256(b.cast()))
        }
    }
    #[inline(always)]
    unsafe fn quarters(a: *const u8, b: *const u8) -> __m512i {
        unsafe {
            let (a, b) = (_mm_loadu_si128(a.cast()), _mm_loadu_si128(b.cast()));
            _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_broadcastsi128_si256(a)),
                _mm256_broadcastsi128_si256(b),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> __m512i {
        unsafe { _mm512_set1_epi8(x as i8) }
    }
    #[inline(always)]
    unsafe fn and_b(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or_b(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn xor_b(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shr_b(x: __m512i, by: [u32; 4]) -> __m512i {
        unsafe {
            let [a, b, c, d] = by.map(|n| n as i32);
            _mm512_srlv_epi32(x, _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d))
        }
    }
    #[inline(always)]
    unsafe fn shl_b(x: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(x, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn where_bits(bits: u64, value: u8) -> __m512i {
        unsafe { _mm512_maskz_set1_epi8(bits, value as i8) }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], codes: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), codes) }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_i(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shl_i(x: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(x, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shr_i(x: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_srav_epi32(x, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    unsafe fn centered(u: __m512i) -> __m512i {
        u
    }
    #[inline(always)]
    unsafe fn dot_7(acc: __m512i, u: __m512i, s: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, u, s) }
    }
    #[inline(always)]
    unsafe fn sum_i(x: __m512i) -> i32 {
        unsafe { _mm512_reduce_add_epi32(x) }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512i, u: __m512i, s: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, u, s) }
    }
    #[inline(always)]
    unsafe fn dot_16(acc: __m512i, u: __m512i, x: *const u8) -> __m512i {
        unsafe {
            let high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), u, Self::bytes(x.add(64)));
            _mm512_add_epi32(_mm512_dpbusd_epi32(acc, u, Self::bytes(x)), _mm512_slli_epi32::<7>(high))
        }
    }

    #[inline(always)]
    unsafe fn dot_words(acc: [__m512i; 2], u: __m512i, x: *const u8) -> [__m512i; 2] {
        unsafe {
            [_mm512_dpbusd_epi32(acc[0], u, Self::word(x)), _mm512_dpbusd_epi32(acc[1], u, Self::word(x.add(64)))]
        }
    }
    #[inline(always)]
    unsafe fn join(acc: [__m512i; 2]) -> __m512i {
        unsafe { _mm512_add_epi32(acc[0], _mm512_slli_epi32::<7>(acc[1])) }
    }

    #[inline(always)]
    unsafe fn put_bytes(p: *mut u8, codes: __m512i) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(codes)) }
    }
    #[inline(always)]
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: __m512i) {
        unsafe {
            let high = _mm512_srai_epi32::<7>(_mm512_add_epi32(codes, _mm512_set1_epi32(64)));
            Self::put_bytes(first, _mm512_sub_epi32(codes, _mm512_slli_epi32::<7>(high)));
            Self::put_bytes(second, high);
        }
    }

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
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    unsafe fn pair(bits: u32) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_zextsi128_si256(_mm_cvtsi32_si128(bits as i32))) }
    }
    #[inline(always)]
    unsafe fn first(x: __m512, n: usize) -> __m512 {
        unsafe { _mm512_maskz_mov_ps(((1u32 << n) - 1) as __mmask16, x) }
    }
    #[inline(always)]
    unsafe fn unsigned(words: [u64; 2]) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(words[1] as i64, words[0] as i64))) }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn unsigned_at(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn nibbles_at(p: *const u8) -> (__m512, __m512) {
        unsafe {
            let both = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let low = _mm512_and_si512(both, _mm512_set1_epi32(15));
            (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both)))
        }
    }
    #[inline(always)]
    unsafe fn signed(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn eights(x: __m512, j: usize) -> __m512 {
        unsafe {
            let (a, b) = (2 * j as i32, 2 * j as i32 + 1);
            _mm512_permutexvar_ps(_mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b), x)
        }
    }
    #[inline(always)]
    unsafe fn fours(x: __m512, j: usize) -> __m512 {
        unsafe {
            let a = 4 * j as i32;
            let [b, c, d] = [a + 1, a + 2, a + 3];
            _mm512_permutexvar_ps(_mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d), x)
        }
    }
    #[inline(always)]
    unsafe fn float(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(x) }
    }
    #[inline(always)]
    unsafe fn largest_bits(a: __m512, b: __m512) -> u32 {
        unsafe {
            let bits = |x| _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
            _mm512_reduce_max_epu32(_mm512_max_epu32(bits(a), bits(b)))
        }
    }
}
