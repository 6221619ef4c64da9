//! AVX2 with FMA and F16C: a vector is two registers.

use super::{Isa, Simd};
use crate::grids::{BASE, BOTH, CELLS, FIRST, Grid, RATIO, STEP};
use crate::layout::Float8;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

type I2 = [__m256i; 2];
type F2 = [__m256; 2];

/// The same for both registers.
macro_rules! both {
    ($f:ident, $($x:ident),+) => {
        [$f($($x[0]),+), $f($($x[1]),+)]
    };
}

/// One half of [`Simd::fold`], or of [`Simd::fold_largest`].
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn fold<const N: usize, const LARGEST: bool>([x, y]: F2) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let (first, second) = match N {
            8 => (x, y),
            4 => (_mm256_permute2f128_ps::<0x20>(x, y), _mm256_permute2f128_ps::<0x31>(x, y)),
            2 => (_mm256_shuffle_ps::<0b01_00_01_00>(x, y), _mm256_shuffle_ps::<0b11_10_11_10>(x, y)),
            _ => (_mm256_shuffle_ps::<0b10_00_10_00>(x, y), _mm256_shuffle_ps::<0b11_01_11_01>(x, y)),
        };
        let both = if LARGEST { _mm256_max_ps(first, second) } else { _mm256_add_ps(first, second) };
        if N >= 4 {
            return both;
        }
        // Pairs are in the order x, y, x, y.
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(both)))
    }
}

/// Writes factors as [`Simd::dot`] takes them.
///
/// # Safety
/// AVX2; 32 bytes.
#[inline(always)]
unsafe fn put_factors(x: I2, p: *mut u64) {
    // SAFETY: the caller's.
    unsafe {
        // Quads 0, 2 | 1, 3 after packing; in each, factors 0 2 1 3.
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1]));
        let order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        _mm256_storeu_si256(p.cast(), _mm256_shuffle_epi8(packed, _mm256_broadcastsi128_si256(order)));
    }
}

/// Writes 16 whole numbers from 0 to 255 as bytes.
///
/// # Safety
/// AVX2; 16 bytes.
#[inline(always)]
unsafe fn put_whole(x: I2, p: *mut u8) {
    // SAFETY: the caller's.
    unsafe {
        let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1]));
        let (low, high) = (_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
        _mm_storeu_si128(p.cast(), _mm_packus_epi16(low, high));
    }
}

// Each function is the instructions it names; the caller has the instruction set, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const ROWS: usize = 4;
    const WEIGHT_MAX: f32 = 32767.0;
    const OFF: i32 = 0;
    fn isa() -> Isa {
        Isa::Avx2
    }
    type C = I2;
    type A = I2;
    type F = F2;
    /// Entries 0 to 15 and 16 to 31, each in both halves.
    type T = I2;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_near(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn codes(p: *const u8) -> I2 {
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn splat_quad(x: u32) -> I2 {
        unsafe { [_mm256_set1_epi32(x as i32); 2] }
    }
    #[inline(always)]
    unsafe fn or(a: I2, b: I2) -> I2 {
        unsafe { both!(_mm256_or_si256, a, b) }
    }
    #[inline(always)]
    unsafe fn field(c: I2, from: u32, bits: u32, to: u32) -> I2 {
        unsafe {
            let count = |n: u32| _mm_cvtsi32_si128(n as i32);
            let moved = match from.checked_sub(to) {
                Some(right) => [_mm256_srl_epi16(c[0], count(right)), _mm256_srl_epi16(c[1], count(right))],
                None => [_mm256_sll_epi16(c[0], count(to - from)), _mm256_sll_epi16(c[1], count(to - from))],
            };
            let mask = [_mm256_set1_epi8((((1u32 << bits) - 1) << to) as i8); 2];
            both!(_mm256_and_si256, moved, mask)
        }
    }
    #[inline(always)]
    unsafe fn table(p: *const u8) -> I2 {
        unsafe {
            let half = |p: *const u8| _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            [half(p), half(p.add(16))]
        }
    }
    #[inline(always)]
    unsafe fn lookup(t: I2, c: I2) -> I2 {
        unsafe {
            // The shuffle reads the low 4 bits (bit 7 is clear), the blend bit 7, to which bit 4 is moved.
            let one = |c: __m256i| {
                let upper = _mm256_slli_epi16::<3>(c);
                _mm256_blendv_epi8(_mm256_shuffle_epi8(t[0], c), _mm256_shuffle_epi8(t[1], c), upper)
            };
            [one(c[0]), one(c[1])]
        }
    }

    #[inline(always)]
    unsafe fn sums(x: i32) -> I2 {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    unsafe fn centered(c: I2) -> I2 {
        c
    }
    #[inline(always)]
    unsafe fn dot(a: I2, c: I2, p: *const u64) -> I2 {
        unsafe {
            // Bytes 0 and 2 of a lane meet the first two factors, bytes 1 and 3 the others. Sums of two products fit: 2 * 255 * 32512.
            let p = p.cast::<i32>();
            let (even, odd) = (_mm256_set1_epi32(p.read_unaligned()), _mm256_set1_epi32(p.add(1).read_unaligned()));
            let low = _mm256_set1_epi16(0xff);
            let one = |a: __m256i, c: __m256i| {
                let a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_and_si256(c, low), even));
                _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_srli_epi16::<8>(c), odd))
            };
            [one(a[0], c[0]), one(a[1], c[1])]
        }
    }
    #[inline(always)]
    unsafe fn signed(c: I2) -> I2 {
        unsafe {
            let sign = [_mm256_set1_epi8(-128); 2];
            both!(_mm256_xor_si256, c, sign)
        }
    }
    #[inline(always)]
    unsafe fn dot_signed(a: I2, c: I2, p: *const u64) -> I2 {
        unsafe {
            // As above.
            let p = p.cast::<i32>();
            let (even, odd) = (_mm256_set1_epi32(p.read_unaligned()), _mm256_set1_epi32(p.add(1).read_unaligned()));
            let one = |a: __m256i, c: __m256i| {
                let low = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(c));
                let a = _mm256_add_epi32(a, _mm256_madd_epi16(low, even));
                _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_srai_epi16::<8>(c), odd))
            };
            [one(a[0], c[0]), one(a[1], c[1])]
        }
    }
    #[inline(always)]
    unsafe fn weights(x: F2, p: *mut u64) {
        unsafe { put_factors(both!(_mm256_cvtps_epi32, x), p) }
    }
    #[inline(always)]
    unsafe fn totals(a: I2) -> F2 {
        unsafe { both!(_mm256_cvtepi32_ps, a) }
    }
    #[inline(always)]
    unsafe fn quads(x: F2, p: *mut u64) -> i32 {
        unsafe {
            let x = both!(_mm256_cvtps_epi32, x);
            put_factors(x, p);
            let sum = _mm256_add_epi32(x[0], x[1]);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
            _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum)))
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F2 {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F2 {
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F2) {
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: F2, b: F2) -> F2 {
        unsafe { both!(_mm256_add_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: F2, b: F2) -> F2 {
        unsafe { both!(_mm256_sub_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: F2, b: F2) -> F2 {
        unsafe { both!(_mm256_mul_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: F2, b: F2) -> F2 {
        unsafe { both!(_mm256_max_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: F2, b: F2) -> F2 {
        unsafe { both!(_mm256_min_ps, a, b) }
    }
    #[inline(always)]
    unsafe fn abs(x: F2) -> F2 {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, x[0]), _mm256_andnot_ps(sign, x[1])]
        }
    }
    #[inline(always)]
    unsafe fn add_above(to: F2, t: F2, border: f32, by: f32) -> F2 {
        unsafe {
            let (border, by) = (_mm256_set1_ps(border), _mm256_set1_ps(by));
            let one = |to: __m256, t: __m256| {
                _mm256_blendv_ps(to, _mm256_add_ps(to, by), _mm256_cmp_ps::<_CMP_GT_OQ>(t, border))
            };
            [one(to[0], t[0]), one(to[1], t[1])]
        }
    }
    #[inline(always)]
    unsafe fn fold<const N: usize>(a: F2, b: F2) -> F2 {
        unsafe { [fold::<N, false>(a), fold::<N, false>(b)] }
    }
    #[inline(always)]
    unsafe fn fold_largest<const N: usize>(a: F2, b: F2) -> F2 {
        unsafe { [fold::<N, true>(a), fold::<N, true>(b)] }
    }
    #[inline(always)]
    unsafe fn lookup_floats(table: &[f32; CELLS], at: F2) -> F2 {
        unsafe {
            let one = |at: __m256| {
                let at = _mm256_and_si256(_mm256_cvttps_epi32(at), _mm256_set1_epi32(CELLS as i32 - 1));
                _mm256_i32gather_ps::<4>(table.as_ptr(), at)
            };
            [one(at[0]), one(at[1])]
        }
    }
    #[inline(always)]
    unsafe fn put_codes(grid: &Grid, x: F2, inverse: f32, p: *mut u8) {
        unsafe {
            let t = Self::mul(Self::abs(x), Self::splat(inverse));
            let mut index = Self::splat(0.0);
            for border in &grid.borders[1..grid.count] {
                index = Self::add_above(index, t, *border, 1.0);
            }
            let one = |index: __m256, x: __m256| {
                let sign = _mm256_srai_epi32::<31>(_mm256_castps_si256(x));
                let index = _mm256_xor_si256(_mm256_cvtps_epi32(index), sign);
                _mm256_add_epi32(index, _mm256_set1_epi32(grid.count as i32))
            };
            put_whole([one(index[0], x[0]), one(index[1], x[1])], p);
        }
    }
    #[inline(always)]
    unsafe fn reversed(x: F2) -> F2 {
        unsafe {
            let order = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
            [_mm256_permutevar8x32_ps(x[1], order), _mm256_permutevar8x32_ps(x[0], order)]
        }
    }
    #[inline(always)]
    unsafe fn butterfly<const LOG: u32>(x: F2) -> F2 {
        unsafe {
            let one = |x: __m256| match LOG {
                0 => {
                    let y = _mm256_permute_ps::<0b10_11_00_01>(x);
                    _mm256_blend_ps::<0xaa>(_mm256_add_ps(x, y), _mm256_sub_ps(y, x))
                }
                1 => {
                    let y = _mm256_permute_ps::<0b01_00_11_10>(x);
                    _mm256_blend_ps::<0xcc>(_mm256_add_ps(x, y), _mm256_sub_ps(y, x))
                }
                _ => {
                    let y = _mm256_permute2f128_ps::<1>(x, x);
                    _mm256_blend_ps::<0xf0>(_mm256_add_ps(x, y), _mm256_sub_ps(y, x))
                }
            };
            match LOG {
                3 => [_mm256_add_ps(x[0], x[1]), _mm256_sub_ps(x[0], x[1])],
                _ => [one(x[0]), one(x[1])],
            }
        }
    }
    #[inline(always)]
    unsafe fn put_bytes(x: F2, p: *mut u8) {
        unsafe {
            put_whole(both!(_mm256_cvtps_epi32, x), p);
        }
    }
    #[inline(always)]
    unsafe fn put_fields(p: *mut u8, codes: *const u8, from: u32, bits: u32, to: u32) {
        unsafe {
            let count = |n: u32| _mm_cvtsi32_si128(n as i32);
            let mask = _mm256_set1_epi32((((1u32 << bits) - 1) << to) as i32);
            let one = |p: *mut u8, codes: *const u8| {
                let code = _mm256_srl_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast())), count(from));
                let field = _mm256_and_si256(_mm256_sll_epi32(code, count(to)), mask);
                let rest = _mm256_andnot_si256(mask, _mm256_loadu_si256(p.cast()));
                _mm256_storeu_si256(p.cast(), _mm256_or_si256(rest, field));
            };
            one(p, codes);
            one(p.add(32), codes.add(8));
        }
    }
    #[inline(always)]
    unsafe fn put_halves(x: F2, p: *mut u8) {
        unsafe {
            let one = |x: __m256, p: *mut u8| {
                _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
            };
            one(x[0], p);
            one(x[1], p.add(16));
        }
    }
    #[inline(always)]
    unsafe fn fma(a: F2, b: F2, c: F2) -> F2 {
        unsafe { both!(_mm256_fmadd_ps, a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(x: F2) -> f32 {
        unsafe {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn largest(x: F2) -> f32 {
        unsafe {
            let x = _mm256_max_ps(x[0], x[1]);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    unsafe fn power_of_two(x: F2) -> F2 {
        unsafe {
            let one = |x: __m256| {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
            };
            [one(x[0]), one(x[1])]
        }
    }
    #[inline(always)]
    unsafe fn round(x: F2) -> F2 {
        unsafe {
            let one = |x: __m256| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            [one(x[0]), one(x[1])]
        }
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> F2 {
        unsafe {
            let one = |p: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
            [one(p), one(p.add(16))]
        }
    }
    #[inline(always)]
    unsafe fn paired(p: *const u8) -> [F2; 2] {
        unsafe {
            let one = |p: *const u8| {
                let bits = _mm_loadu_si128(p.cast());
                let base = _mm256_cvtph_ps(_mm_and_si128(bits, _mm_set1_epi16(BASE as i16)));
                let ratio = _mm256_cvtepu16_epi32(_mm_and_si128(bits, _mm_set1_epi16(RATIO as i16)));
                let (step, from) = (_mm256_set1_ps(STEP as f32), _mm256_set1_ps(FIRST as f32));
                let first = _mm256_mul_ps(base, _mm256_fmadd_ps(_mm256_cvtepi32_ps(ratio), step, from));
                (first, _mm256_fmsub_ps(base, _mm256_set1_ps(BOTH as f32), first))
            };
            let (a, b) = (one(p), one(p.add(16)));
            [[a.0, b.0], [a.1, b.1]]
        }
    }
    #[inline(always)]
    unsafe fn grids<const BIT: u32>(p: *const u8) -> I2 {
        unsafe {
            let one = |p: *const u8| {
                let top = _mm_sll_epi16(_mm_loadu_si128(p.cast()), _mm_cvtsi32_si128(15 - BIT as i32));
                let signs = _mm256_srai_epi32::<31>(_mm256_cvtepi16_epi32(top));
                _mm256_and_si256(signs, _mm256_set1_epi32(0x1010_1010))
            };
            [one(p), one(p.add(16))]
        }
    }
    #[inline(always)]
    unsafe fn floats8(format: Float8, p: *const u8) -> F2 {
        unsafe {
            let x = _mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast())));
            let halves = match format {
                // The sign goes to the top with the code, which is then moved down behind it.
                Float8::E4M3 => _mm256_and_si256(_mm256_srai_epi16::<1>(x), _mm256_set1_epi16(0xbf80_u16 as i16)),
                Float8::E5M2 => x,
            };
            [_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves))]
        }
    }
    #[inline(always)]
    unsafe fn small(p: *const u8, from: u32, bits: u32) -> F2 {
        unsafe {
            let one = |p: *const u8| {
                let x = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
                let x = _mm256_srl_epi32(x, _mm_cvtsi32_si128(from as i32));
                _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32((1 << bits) - 1)))
            };
            [one(p), one(p.add(8))]
        }
    }
}
