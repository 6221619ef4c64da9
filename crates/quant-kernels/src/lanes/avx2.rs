//! AVX2: two registers of 32 bytes. Products go through 16 bits, in a way that cannot saturate, or are `vpdpbusd` where the processor has it for these
//! registers: AVX-VNNI, or AVX-512 with VNNI and VL.

use super::Lanes;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// AVX2 with one of the ways to multiply bytes.
#[derive(Clone, Copy)]
pub(crate) struct Lanes256<D>(PhantomData<D>);

/// AVX2 alone.
pub(crate) type Avx2Lanes = Lanes256<Widened>;
/// With AVX-VNNI.
pub(crate) type AvxVnniLanes = Lanes256<Vex>;
/// With the same operation of AVX-512.
pub(crate) type EvexVnniLanes = Lanes256<Evex>;

type Pair = [__m256i; 2];

/// How bytes are multiplied: see the functions of [`Lanes`] of the same names, of which these are half.
///
/// # Safety
/// Every function needs the instruction set.
pub(crate) trait Dot: Copy + 'static {
    unsafe fn dot(acc: __m256i, u: __m256i, s: __m256i) -> __m256i;
    unsafe fn dot_7(acc: __m256i, u: __m256i, s: __m256i) -> __m256i;
    /// With the two parts of the words.
    unsafe fn dot_words(acc: [__m256i; 2], u: __m256i, x: [__m256i; 2]) -> [__m256i; 2];
    unsafe fn join(acc: [__m256i; 2]) -> __m256i;
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: Pair);
}

/// Bytes are made words first.
#[derive(Clone, Copy)]
pub(crate) struct Widened;

impl Dot for Widened {
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
    /// With codes below 128 `vpmaddubsw` does not saturate: 2 · 127 · 128 fits 16 bits.
    #[inline(always)]
    unsafe fn dot_7(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
        // SAFETY: the caller has the instruction set.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1))) }
    }
    #[inline(always)]
    unsafe fn dot_words(acc: [__m256i; 2], u: __m256i, [even, odd]: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller has the instruction set.
        unsafe {
            let low = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), even);
            let high = _mm256_madd_epi16(_mm256_srli_epi16::<8>(u), odd);
            [_mm256_add_epi32(acc[0], low), _mm256_add_epi32(acc[1], high)]
        }
    }
    #[inline(always)]
    unsafe fn join(acc: [__m256i; 2]) -> __m256i {
        // SAFETY: the caller has the instruction set.
        unsafe { _mm256_add_epi32(acc[0], acc[1]) }
    }
    /// Words, even and odd.
    #[inline(always)]
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: Pair) {
        // SAFETY: the caller has the instruction set and the memory.
        unsafe {
            let pairs = words(codes);
            let (even, odd) = (_mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(pairs)), _mm256_srai_epi32::<16>(pairs));
            let both = words([even, odd]);
            _mm_storeu_si128(first.cast(), _mm256_castsi256_si128(both));
            _mm_storeu_si128(second.cast(), _mm256_extracti128_si256::<1>(both));
        }
    }
}

/// `vpdpbusd`, in one of its two encodings.
macro_rules! by_vpdpbusd {
    ($(#[$doc:meta])* $name:ident, $operation:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Dot for $name {
            #[inline(always)]
            unsafe fn dot(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
                // SAFETY: the caller has the instruction set.
                unsafe { $operation(acc, u, s) }
            }
            #[inline(always)]
            unsafe fn dot_7(acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
                // SAFETY: the caller has the instruction set.
                unsafe { $operation(acc, u, s) }
            }
            #[inline(always)]
            unsafe fn dot_words(acc: [__m256i; 2], u: __m256i, [low, high]: [__m256i; 2]) -> [__m256i; 2] {
                // SAFETY: the caller has the instruction set.
                unsafe { [$operation(acc[0], u, low), $operation(acc[1], u, high)] }
            }
            #[inline(always)]
            unsafe fn join(acc: [__m256i; 2]) -> __m256i {
                // SAFETY: the caller has the instruction set.
                unsafe { _mm256_add_epi32(acc[0], _mm256_slli_epi32::<7>(acc[1])) }
            }
            /// Parts.
            #[inline(always)]
            unsafe fn put_words(first: *mut u8, second: *mut u8, [a, b]: Pair) {
                // SAFETY: the caller has the instruction set and the memory.
                unsafe {
                    let high = |x| _mm256_srai_epi32::<7>(_mm256_add_epi32(x, _mm256_set1_epi32(64)));
                    let low = |x, high| _mm256_sub_epi32(x, _mm256_slli_epi32::<7>(high));
                    let (high_a, high_b) = (high(a), high(b));
                    _mm_storeu_si128(first.cast(), bytes([low(a, high_a), low(b, high_b)]));
                    _mm_storeu_si128(second.cast(), bytes([high_a, high_b]));
                }
            }
        }
    };
}

by_vpdpbusd!(
    /// AVX-VNNI.
    Vex,
    _mm256_dpbusd_avx_epi32
);
by_vpdpbusd!(
    /// AVX-512 VNNI and VL.
    Evex,
    _mm256_dpbusd_epi32
);

#[inline(always)]
fn both<T: Copy, R>(a: [T; 2], b: [T; 2], f: impl Fn(T, T) -> R) -> [R; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// 16 integers that fit, as words.
#[inline(always)]
unsafe fn words(x: Pair) -> __m256i {
    // SAFETY: the caller has the instruction set. Packed are quarters: of the first, of the second, of the first, of the second.
    unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1])) }
}

/// 16 integers that fit, as bytes.
#[inline(always)]
unsafe fn bytes(x: Pair) -> __m128i {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let words = words(x);
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }
}

// Each function is the instruction it names, twice; the caller has the instruction set, and memory as `Lanes` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Dot> Lanes for Lanes256<D> {
    const TILE: (usize, usize) = (4, 1);
    const MANY_REGISTERS: bool = false;
    const WIDTHS: (usize, usize) = (2, 2);
    const OFF: i32 = 0;
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
    unsafe fn twice(p: *const u8) -> Pair {
        unsafe { [_mm256_loadu_si256(p.cast()); 2] }
    }
    #[inline(always)]
    unsafe fn two(a: *const u8, b: *const u8) -> Pair {
        unsafe { [_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast())] }
    }
    #[inline(always)]
    unsafe fn quarters(a: *const u8, b: *const u8) -> Pair {
        [a, b].map(|p| unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast())) })
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: Pair) {
        unsafe {
            _mm256_storeu_si256(p.cast(), x[0]);
            _mm256_storeu_si256(p.add(32).cast(), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> Pair {
        unsafe { [_mm256_set1_epi8(x as i8); 2] }
    }
    #[inline(always)]
    unsafe fn and_b(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_and_si256(a, b) })
    }
    #[inline(always)]
    unsafe fn or_b(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_or_si256(a, b) })
    }
    #[inline(always)]
    unsafe fn xor_b(a: Pair, b: Pair) -> Pair {
        both(a, b, |a, b| unsafe { _mm256_xor_si256(a, b) })
    }
    #[inline(always)]
    unsafe fn shr_b(x: Pair, by: [u32; 4]) -> Pair {
        let [a, b, c, d] = by.map(|n| n as i32);
        let by = unsafe { [_mm256_setr_epi32(a, a, a, a, b, b, b, b), _mm256_setr_epi32(c, c, c, c, d, d, d, d)] };
        both(x, by, |x, by| unsafe { _mm256_srlv_epi32(x, by) })
    }
    #[inline(always)]
    unsafe fn shl_b(x: Pair, by: u32) -> Pair {
        let by = unsafe { _mm256_set1_epi32(by as i32) };
        unsafe { [_mm256_sllv_epi32(x[0], by), _mm256_sllv_epi32(x[1], by)] }
    }
    #[inline(always)]
    unsafe fn where_bits(bits: u64, value: u8) -> Pair {
        // Each byte of the bits eight times, and one bit of each looked at.
        [bits as i32, (bits >> 32) as i32].map(|bits| unsafe {
            let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let one = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), one);
            _mm256_and_si256(_mm256_cmpeq_epi8(bits, one), _mm256_set1_epi8(value as i8))
        })
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], codes: Pair) -> Pair {
        let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        codes.map(|codes| unsafe { _mm256_shuffle_epi8(table, codes) })
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
    unsafe fn store_i(p: *mut i32, x: Pair) {
        unsafe { Self::store_bytes(p.cast(), x) }
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
    unsafe fn shl_i(x: Pair, by: u32) -> Pair {
        let by = unsafe { _mm256_set1_epi32(by as i32) };
        unsafe { [_mm256_sllv_epi32(x[0], by), _mm256_sllv_epi32(x[1], by)] }
    }
    #[inline(always)]
    unsafe fn shr_i(x: Pair, by: u32) -> Pair {
        let by = unsafe { _mm256_set1_epi32(by as i32) };
        unsafe { [_mm256_srav_epi32(x[0], by), _mm256_srav_epi32(x[1], by)] }
    }
    #[inline(always)]
    unsafe fn centered(u: Pair) -> Pair {
        u
    }
    #[inline(always)]
    unsafe fn dot_7(acc: Pair, u: Pair, s: Pair) -> Pair {
        unsafe { [D::dot_7(acc[0], u[0], s[0]), D::dot_7(acc[1], u[1], s[1])] }
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
        unsafe { [D::dot(acc[0], u[0], s[0]), D::dot(acc[1], u[1], s[1])] }
    }
    #[inline(always)]
    unsafe fn dot_16(acc: Pair, u: Pair, x: *const u8) -> Pair {
        unsafe {
            let (first, second) = (Self::bytes(x), Self::bytes(x.add(64)));
            let zero = _mm256_setzero_si256();
            [
                D::join(D::dot_words([acc[0], zero], u[0], [first[0], second[0]])),
                D::join(D::dot_words([acc[1], zero], u[1], [first[1], second[1]])),
            ]
        }
    }
    #[inline(always)]
    unsafe fn dot_words(acc: [Pair; 2], u: Pair, x: *const u8) -> [Pair; 2] {
        unsafe {
            let x = [Self::word(x)[0], Self::word(x.add(64))[0]];
            let [a, b] = [D::dot_words([acc[0][0], acc[1][0]], u[0], x), D::dot_words([acc[0][1], acc[1][1]], u[1], x)];
            [[a[0], b[0]], [a[1], b[1]]]
        }
    }
    #[inline(always)]
    unsafe fn join(acc: [Pair; 2]) -> Pair {
        unsafe { [D::join([acc[0][0], acc[1][0]]), D::join([acc[0][1], acc[1][1]])] }
    }

    #[inline(always)]
    unsafe fn put_bytes(p: *mut u8, codes: Pair) {
        unsafe { _mm_storeu_si128(p.cast(), bytes(codes)) }
    }
    #[inline(always)]
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: Pair) {
        unsafe { D::put_words(first, second, codes) }
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
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn fnma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        unsafe {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> Self::F {
        unsafe { [_mm256_cvtph_ps(_mm_set1_epi16(bits as i16)); 2] }
    }
    #[inline(always)]
    unsafe fn pair(bits: u32) -> Self::F {
        unsafe { [_mm256_cvtph_ps(_mm_cvtsi32_si128(bits as i32)), _mm256_setzero_ps()] }
    }
    #[inline(always)]
    unsafe fn first(x: Self::F, n: usize) -> Self::F {
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = |from: i32| _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32 - from), lane));
            [_mm256_and_ps(x[0], mask(0)), _mm256_and_ps(x[1], mask(8))]
        }
    }
    #[inline(always)]
    unsafe fn unsigned(words: [u64; 2]) -> Self::F {
        words.map(|w| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(w as i64))) })
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> Self::F {
        [0, 16].map(|at| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.add(at).cast())) })
    }
    #[inline(always)]
    unsafe fn unsigned_at(p: *const u8) -> Self::F {
        [0, 8].map(|at| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(at).cast()))) })
    }
    #[inline(always)]
    unsafe fn nibbles_at(p: *const u8) -> (Self::F, Self::F) {
        unsafe {
            let both = [0, 8].map(|at| _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(at).cast())));
            let low = both.map(|x| _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15))));
            (low, both.map(|x| _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(x))))
        }
    }
    #[inline(always)]
    unsafe fn signed(p: *const u8) -> Self::F {
        [0, 8].map(|at| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(at).cast()))) })
    }
    #[inline(always)]
    unsafe fn eights(x: Self::F, j: usize) -> Self::F {
        [2 * j, 2 * j + 1].map(|i| unsafe { _mm256_permutevar8x32_ps(x[0], _mm256_set1_epi32(i as i32)) })
    }
    #[inline(always)]
    unsafe fn fours(x: Self::F, j: usize) -> Self::F {
        [0, 2].map(|at| unsafe {
            let (a, b) = ((4 * j % 8 + at) as i32, (4 * j % 8 + at + 1) as i32);
            _mm256_permutevar8x32_ps(x[j / 2], _mm256_setr_epi32(a, a, a, a, b, b, b, b))
        })
    }
    #[inline(always)]
    unsafe fn float(x: Pair) -> Self::F {
        unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
    }
    #[inline(always)]
    unsafe fn round(x: Self::F) -> Pair {
        unsafe { [_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1])] }
    }
    #[inline(always)]
    unsafe fn largest_bits(a: Self::F, b: Self::F) -> u32 {
        unsafe {
            let bits = |x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff));
            let x =
                _mm256_max_epu32(_mm256_max_epu32(bits(a[0]), bits(a[1])), _mm256_max_epu32(bits(b[0]), bits(b[1])));
            let x = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let x = _mm_max_epu32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
            _mm_cvtsi128_si32(_mm_max_epu32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x))) as u32
        }
    }
}
