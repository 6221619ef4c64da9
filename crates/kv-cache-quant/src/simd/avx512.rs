//! AVX-512 with VNNI and VBMI: a vector is a register.

use super::{Isa, Simd};
use crate::grids::{BASE, BOTH, CELLS, FIRST, Grid, RATIO, STEP};
use crate::layout::Float8;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// What [`Simd::fold`] adds.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn apart<const N: usize>(a: __m512, b: __m512) -> (__m512, __m512) {
    /// The lanes of a, and from 16 on of b, that are the first of each sum.
    const fn first(n: usize) -> [i32; 16] {
        let mut lanes = [0; 16];
        let mut i = 0;
        while i < 16 {
            let of = i % 8;
            lanes[i] = (i / 8 * 16 + of / n * 2 * n + of % n) as i32;
            i += 1;
        }
        lanes
    }
    // SAFETY: the caller's; 16 numbers.
    unsafe {
        let first = _mm512_loadu_si512(const { &first(N) }.as_ptr().cast());
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(N as i32));
        (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
    }
}

// Each function is the instructions it names; the caller has the instruction set, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const ROWS: usize = 8;
    const WEIGHT_MAX: f32 = 32767.0;
    const OFF: i32 = 0;
    fn isa() -> Isa {
        Isa::Avx512
    }
    type C = __m512i;
    /// Sums with the high and with the low bytes of the factors.
    type A = (__m512i, __m512i);
    type F = __m512;
    type T = __m512i;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_near(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn codes(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_quad(x: u32) -> __m512i {
        unsafe { _mm512_set1_epi32(x as i32) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn field(c: __m512i, from: u32, bits: u32, to: u32) -> __m512i {
        unsafe {
            let count = |n: u32| _mm_cvtsi32_si128(n as i32);
            let moved = match from.checked_sub(to) {
                Some(right) => _mm512_srl_epi16(c, count(right)),
                None => _mm512_sll_epi16(c, count(to - from)),
            };
            _mm512_and_si512(moved, _mm512_set1_epi8((((1u32 << bits) - 1) << to) as i8))
        }
    }
    #[inline(always)]
    unsafe fn table(p: *const u8) -> __m512i {
        unsafe { _mm512_castsi256_si512(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn lookup(t: __m512i, c: __m512i) -> __m512i {
        unsafe { _mm512_permutexvar_epi8(c, t) }
    }

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::A {
        unsafe { (_mm512_setzero_si512(), _mm512_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn centered(c: __m512i) -> __m512i {
        c
    }
    #[inline(always)]
    unsafe fn dot(a: Self::A, c: __m512i, p: *const u64) -> Self::A {
        unsafe {
            let p = p.cast::<i32>();
            let (high, low) = (_mm512_set1_epi32(p.read_unaligned()), _mm512_set1_epi32(p.add(1).read_unaligned()));
            (_mm512_dpbusd_epi32(a.0, c, high), _mm512_dpbusd_epi32(a.1, c, low))
        }
    }
    #[inline(always)]
    unsafe fn signed(c: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(c, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn dot_signed(a: Self::A, c: __m512i, p: *const u64) -> Self::A {
        unsafe {
            let p = p.cast::<i32>();
            let (high, low) = (_mm512_set1_epi32(p.read_unaligned()), _mm512_set1_epi32(p.add(1).read_unaligned()));
            (_mm512_dpbusd_epi32(a.0, high, c), _mm512_dpbusd_epi32(a.1, low, c))
        }
    }
    #[inline(always)]
    unsafe fn weights(x: __m512, p: *mut u64) {
        /// The second and the first bytes of the four lanes of each quad.
        const ORDER: [u8; 32] = {
            let mut order = [0; 32];
            let mut i = 0;
            while i < 32 {
                order[i] = (i / 8 * 16 + i % 4 * 4 + if i % 8 < 4 { 1 } else { 0 }) as u8;
                i += 1;
            }
            order
        };
        unsafe {
            let order = _mm512_castsi256_si512(_mm256_loadu_si256(ORDER.as_ptr().cast()));
            let bytes = _mm512_permutexvar_epi8(order, _mm512_cvtps_epi32(x));
            _mm256_storeu_si256(p.cast(), _mm512_castsi512_si256(bytes));
        }
    }
    #[inline(always)]
    unsafe fn totals(a: Self::A) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<8>(a.0), a.1)) }
    }
    #[inline(always)]
    unsafe fn quads(x: __m512, p: *mut u64) -> i32 {
        unsafe {
            let x = _mm512_cvtps_epi32(x);
            let high = _mm512_srai_epi32::<8>(_mm512_add_epi32(x, _mm512_set1_epi32(128)));
            let low = _mm512_sub_epi32(x, _mm512_slli_epi32::<8>(high));
            let (high, low) = (_mm512_cvtepi32_epi8(high), _mm512_cvtepi32_epi8(low));
            _mm_storeu_si128(p.cast(), _mm_unpacklo_epi32(high, low));
            _mm_storeu_si128(p.add(2).cast(), _mm_unpackhi_epi32(high, low));
            _mm512_reduce_add_epi32(x)
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
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(x) }
    }
    #[inline(always)]
    unsafe fn add_above(to: __m512, t: __m512, border: f32, by: f32) -> __m512 {
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(t, _mm512_set1_ps(border));
            _mm512_mask_add_ps(to, above, to, _mm512_set1_ps(by))
        }
    }
    #[inline(always)]
    unsafe fn lookup_floats(table: &[f32; CELLS], at: __m512) -> __m512 {
        unsafe {
            let (low, high) = (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(16)));
            _mm512_permutex2var_ps(low, _mm512_cvttps_epi32(at), high)
        }
    }
    #[inline(always)]
    unsafe fn put_codes(grid: &Grid, x: __m512, inverse: f32, p: *mut u8) {
        unsafe {
            let t = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(inverse));
            let run = _mm512_cvttps_epi32(_mm512_min_ps(t, _mm512_set1_ps(15.0)));
            let near = _mm512_permutexvar_ps(run, _mm512_loadu_ps(grid.near.as_ptr()));
            let below = _mm512_permutexvar_epi32(run, _mm512_loadu_si512(grid.below.as_ptr().cast()));
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(t, near);
            let index = _mm512_mask_add_epi32(below, above, below, _mm512_set1_epi32(1));
            let index = _mm512_xor_si512(index, _mm512_srai_epi32::<31>(_mm512_castps_si512(x)));
            let code = _mm512_add_epi32(index, _mm512_set1_epi32(grid.count as i32));
            _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(code));
        }
    }
    #[inline(always)]
    unsafe fn fold<const N: usize>(a: __m512, b: __m512) -> __m512 {
        unsafe {
            let (first, second) = apart::<N>(a, b);
            _mm512_add_ps(first, second)
        }
    }
    #[inline(always)]
    unsafe fn fold_largest<const N: usize>(a: __m512, b: __m512) -> __m512 {
        unsafe {
            let (first, second) = apart::<N>(a, b);
            _mm512_max_ps(first, second)
        }
    }
    #[inline(always)]
    unsafe fn reversed(x: __m512) -> __m512 {
        unsafe {
            let order = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            _mm512_permutexvar_ps(order, x)
        }
    }
    #[inline(always)]
    unsafe fn butterfly<const LOG: u32>(x: __m512) -> __m512 {
        unsafe {
            let (y, upper) = match LOG {
                0 => (_mm512_permute_ps::<0b10_11_00_01>(x), 0xaaaa),
                1 => (_mm512_permute_ps::<0b01_00_11_10>(x), 0xcccc),
                2 => (_mm512_shuffle_f32x4::<0b10_11_00_01>(x, x), 0xf0f0),
                _ => (_mm512_shuffle_f32x4::<0b01_00_11_10>(x, x), 0xff00),
            };
            _mm512_mask_sub_ps(_mm512_add_ps(x, y), upper, y, x)
        }
    }
    #[inline(always)]
    unsafe fn put_bytes(x: __m512, p: *mut u8) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))) }
    }
    #[inline(always)]
    unsafe fn put_fields(p: *mut u8, codes: *const u8, from: u32, bits: u32, to: u32) {
        unsafe {
            let count = |n: u32| _mm_cvtsi32_si128(n as i32);
            let code = _mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast())), count(from));
            let mask = _mm512_set1_epi32((((1u32 << bits) - 1) << to) as i32);
            let field = _mm512_and_si512(_mm512_sll_epi32(code, count(to)), mask);
            let rest = _mm512_andnot_si512(mask, _mm512_loadu_si512(p.cast()));
            _mm512_storeu_si512(p.cast(), _mm512_or_si512(rest, field));
        }
    }
    #[inline(always)]
    unsafe fn put_halves(x: __m512, p: *mut u8) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
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
    unsafe fn power_of_two(x: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), x) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn paired(p: *const u8) -> [__m512; 2] {
        unsafe {
            let bits = _mm256_loadu_si256(p.cast());
            let base = _mm512_cvtph_ps(_mm256_and_si256(bits, _mm256_set1_epi16(BASE as i16)));
            let ratio = _mm256_and_si256(bits, _mm256_set1_epi16(RATIO as i16));
            let ratio = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(ratio));
            let part = _mm512_fmadd_ps(ratio, _mm512_set1_ps(STEP as f32), _mm512_set1_ps(FIRST as f32));
            let first = _mm512_mul_ps(base, part);
            [first, _mm512_fmsub_ps(base, _mm512_set1_ps(BOTH as f32), first)]
        }
    }
    #[inline(always)]
    unsafe fn grids<const BIT: u32>(p: *const u8) -> __m512i {
        unsafe {
            let bit = _mm256_test_epi16_mask(_mm256_loadu_si256(p.cast()), _mm256_set1_epi16((1u16 << BIT) as i16));
            _mm512_maskz_set1_epi32(bit, 0x1010_1010)
        }
    }
    #[inline(always)]
    unsafe fn floats8(format: Float8, p: *const u8) -> __m512 {
        unsafe {
            let x = _mm_loadu_si128(p.cast());
            let halves = match format {
                // The sign goes to the top with the code, which is then moved down behind it.
                Float8::E4M3 => _mm256_and_si256(
                    _mm256_srai_epi16::<1>(_mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(x))),
                    _mm256_set1_epi16(0xbf80_u16 as i16),
                ),
                Float8::E5M2 => _mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(x)),
            };
            _mm512_cvtph_ps(halves)
        }
    }
    #[inline(always)]
    unsafe fn small(p: *const u8, from: u32, bits: u32) -> __m512 {
        unsafe {
            let x = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let x = _mm512_srl_epi32(x, _mm_cvtsi32_si128(from as i32));
            _mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32((1 << bits) - 1)))
        }
    }
}
