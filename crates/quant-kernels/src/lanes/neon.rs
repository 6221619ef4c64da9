//! NEON: four registers of 16 bytes. Bytes are multiplied as signed ones ([`Lanes::centered`]): by `sdot` where the processor has it (the extension
//! dotprod), else by way of 16 bits.

use super::Lanes;
use crate::half_float;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;
use std::marker::PhantomData;

/// NEON with one of the ways to multiply bytes.
#[derive(Clone, Copy)]
pub(crate) struct Lanes128<D>(PhantomData<D>);

/// NEON alone.
pub(crate) type NeonLanes = Lanes128<Widened>;
/// With dotprod.
pub(crate) type NeonDotLanes = Lanes128<Sdot>;

type Quad = [uint8x16_t; 4];
type Ints = [int32x4_t; 4];
type Floats = [float32x4_t; 4];

/// How bytes are multiplied: a lane of `acc`, plus the products of four signed bytes of both factors. Exact.
///
/// # Safety
/// Every function needs the instruction set.
pub(crate) trait Dot: Copy + 'static {
    unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t;
    /// As `dot`, where one of the factors has no -128.
    unsafe fn dot_above_min(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t;
}

/// Products become words first.
#[derive(Clone, Copy)]
pub(crate) struct Widened;

/// 16 products.
#[inline(always)]
unsafe fn products(w: uint8x16_t, x: uint8x16_t) -> (int16x8_t, int16x8_t) {
    // SAFETY: the caller has NEON.
    unsafe {
        let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
        (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x))
    }
}

impl Dot for Widened {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        // SAFETY: the caller has NEON.
        unsafe {
            let (low, high) = products(w, x);
            vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
        }
    }
    /// Two products fit 16 bits: 2 · 127 · 128 does, 2 · 128 · 128 would not.
    #[inline(always)]
    unsafe fn dot_above_min(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        // SAFETY: the caller has NEON.
        unsafe {
            let (low, high) = products(w, x);
            vpadalq_s16(acc, vpaddq_s16(low, high))
        }
    }
}

/// `sdot`.
#[derive(Clone, Copy)]
pub(crate) struct Sdot;

impl Dot for Sdot {
    /// Its intrinsic is not stable. The directive is for builds that do not inline everything: the assembler then takes the instruction anywhere.
    #[inline(always)]
    unsafe fn dot(mut acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        // SAFETY: the caller has the instruction; it touches registers alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) acc, in(vreg) w, in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
    #[inline(always)]
    unsafe fn dot_above_min(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        // SAFETY: the caller has the instruction.
        unsafe { Self::dot(acc, w, x) }
    }
}

#[inline(always)]
fn each<T: Copy, R>(a: [T; 4], b: [T; 4], f: impl Fn(T, T) -> R) -> [R; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// Places `first ..` of a table.
#[inline(always)]
unsafe fn places(first: usize) -> uint8x16_t {
    const PLACES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    // SAFETY: the caller has NEON.
    unsafe { vaddq_u8(vdupq_n_u8(first as u8), vld1q_u8(PLACES.as_ptr())) }
}

/// 16 unsigned bytes.
#[inline(always)]
unsafe fn floats_of(x: uint8x16_t) -> Floats {
    // SAFETY: the caller has NEON.
    unsafe {
        let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x));
        let words =
            [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)];
        words.map(|x| vcvtq_f32_u32(x))
    }
}

// Each function is the instruction it names, four times; the caller has the instruction set, and memory as `Lanes` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Dot> Lanes for Lanes128<D> {
    const TILE: (usize, usize) = (4, 1);
    const MANY_REGISTERS: bool = false;
    /// Sums in f32 wait in memory while four tokens are multiplied with a sub-block.
    const WIDTHS: (usize, usize) = (2, 4);
    const OFF: i32 = 128;
    type B = Quad;
    type I = Ints;
    type F = Floats;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Quad {
        from_fn(|i| unsafe { vld1q_u8(p.add(16 * i)) })
    }
    #[inline(always)]
    unsafe fn word(p: *const u8) -> Quad {
        unsafe { [vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())); 4] }
    }

    #[inline(always)]
    unsafe fn twice(p: *const u8) -> Quad {
        unsafe { Self::two(p, p) }
    }
    #[inline(always)]
    unsafe fn two(a: *const u8, b: *const u8) -> Quad {
        unsafe { [vld1q_u8(a), vld1q_u8(a.add(16)), vld1q_u8(b), vld1q_u8(b.add(16))] }
    }
    #[inline(always)]
    unsafe fn quarters(a: *const u8, b: *const u8) -> Quad {
        unsafe {
            let (a, b) = (vld1q_u8(a), vld1q_u8(b));
            [a, a, b, b]
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, x: Quad) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_u8(p.add(16 * i), x) };
        }
    }
    #[inline(always)]
    unsafe fn splat_b(x: u8) -> Quad {
        unsafe { [vdupq_n_u8(x); 4] }
    }
    #[inline(always)]
    unsafe fn and_b(a: Quad, b: Quad) -> Quad {
        each(a, b, |a, b| unsafe { vandq_u8(a, b) })
    }
    #[inline(always)]
    unsafe fn or_b(a: Quad, b: Quad) -> Quad {
        each(a, b, |a, b| unsafe { vorrq_u8(a, b) })
    }
    #[inline(always)]
    unsafe fn xor_b(a: Quad, b: Quad) -> Quad {
        each(a, b, |a, b| unsafe { veorq_u8(a, b) })
    }
    /// Of bytes: a mask that keeps what does not come from above is then nothing to do.
    #[inline(always)]
    unsafe fn shr_b(x: Quad, by: [u32; 4]) -> Quad {
        from_fn(|i| unsafe { vshlq_u8(x[i], vdupq_n_s8(-(by[i] as i8))) })
    }
    #[inline(always)]
    unsafe fn shl_b(x: Quad, by: u32) -> Quad {
        x.map(|x| unsafe { vshlq_u8(x, vdupq_n_s8(by as i8)) })
    }
    #[inline(always)]
    unsafe fn where_bits(bits: u64, value: u8) -> Quad {
        // Each byte of the bits eight times, and one bit of each looked at.
        const PLACES: [[u8; 16]; 4] = [
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
            [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3],
            [4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5],
            [6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7],
        ];
        from_fn(|i| unsafe {
            let bits = vreinterpretq_u8_u64(vdupq_n_u64(bits));
            let one = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let set = vtstq_u8(vqtbl1q_u8(bits, vld1q_u8(PLACES[i].as_ptr())), one);
            vandq_u8(set, vdupq_n_u8(value))
        })
    }
    #[inline(always)]
    unsafe fn lookup(table: &[u8; 16], codes: Quad) -> Quad {
        let table = unsafe { vld1q_u8(table.as_ptr()) };
        codes.map(|codes| unsafe { vqtbl1q_u8(table, codes) })
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Ints {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Ints {
        from_fn(|i| unsafe { vld1q_s32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, x: Ints) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_s32(p.add(4 * i), x) }
        }
    }
    #[inline(always)]
    unsafe fn add_i(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| unsafe { vaddq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub_i(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| unsafe { vsubq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul_i(a: Ints, b: Ints) -> Ints {
        each(a, b, |a, b| unsafe { vmulq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn shl_i(x: Ints, by: u32) -> Ints {
        x.map(|x| unsafe { vshlq_s32(x, vdupq_n_s32(by as i32)) })
    }
    #[inline(always)]
    unsafe fn shr_i(x: Ints, by: u32) -> Ints {
        x.map(|x| unsafe { vshlq_s32(x, vdupq_n_s32(-(by as i32))) })
    }
    #[inline(always)]
    unsafe fn sum_i(x: Ints) -> i32 {
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(x[0], x[1]), vaddq_s32(x[2], x[3]))) }
    }
    #[inline(always)]
    unsafe fn centered(u: Quad) -> Quad {
        unsafe { Self::xor_b(u, Self::splat_b(128)) }
    }
    #[inline(always)]
    unsafe fn dot(acc: Ints, u: Quad, s: Quad) -> Ints {
        from_fn(|i| unsafe { D::dot(acc[i], u[i], s[i]) })
    }
    #[inline(always)]
    unsafe fn dot_7(acc: Ints, u: Quad, s: Quad) -> Ints {
        from_fn(|i| unsafe { D::dot_above_min(acc[i], u[i], s[i]) })
    }
    #[inline(always)]
    unsafe fn dot_16(acc: Ints, u: Quad, x: *const u8) -> Ints {
        unsafe {
            // Neither part is -128.
            let high = Self::dot_7(Self::splat_i(0), u, Self::bytes(x.add(64)));
            Self::join([Self::dot_7(acc, u, Self::bytes(x)), high])
        }
    }
    #[inline(always)]
    unsafe fn dot_words(acc: [Ints; 2], u: Quad, x: *const u8) -> [Ints; 2] {
        unsafe { [Self::dot_7(acc[0], u, Self::word(x)), Self::dot_7(acc[1], u, Self::word(x.add(64)))] }
    }
    #[inline(always)]
    unsafe fn join(acc: [Ints; 2]) -> Ints {
        each(acc[0], acc[1], |low, high| unsafe { vaddq_s32(low, vshlq_n_s32::<7>(high)) })
    }

    #[inline(always)]
    unsafe fn put_bytes(p: *mut u8, codes: Ints) {
        unsafe {
            let words = [0, 2].map(|i| vcombine_s16(vmovn_s32(codes[i]), vmovn_s32(codes[i + 1])));
            vst1q_s8(p.cast(), vcombine_s8(vmovn_s16(words[0]), vmovn_s16(words[1])));
        }
    }
    #[inline(always)]
    unsafe fn put_words(first: *mut u8, second: *mut u8, codes: Ints) {
        unsafe {
            let high = codes.map(|x| vshrq_n_s32::<7>(vaddq_s32(x, vdupq_n_s32(64))));
            Self::put_bytes(first, each(codes, high, |code, high| vsubq_s32(code, vshlq_n_s32::<7>(high))));
            Self::put_bytes(second, high);
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Floats {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Floats {
        from_fn(|i| unsafe { vld1q_f32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: Floats) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_f32(p.add(4 * i), x) };
        }
    }
    #[inline(always)]
    unsafe fn mul(a: Floats, b: Floats) -> Floats {
        each(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: Floats, b: Floats) -> Floats {
        each(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn fma(a: Floats, b: Floats, c: Floats) -> Floats {
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn fnma(a: Floats, b: Floats, c: Floats) -> Floats {
        from_fn(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn sum(x: Floats) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(vaddq_f32(x[0], x[1]), vaddq_f32(x[2], x[3]))) }
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> Floats {
        unsafe { [half_float::floats(vdup_n_u16(bits)); 4] }
    }
    #[inline(always)]
    unsafe fn pair(bits: u32) -> Floats {
        unsafe {
            let zero = vdupq_n_f32(0.0);
            [half_float::floats(vcreate_u16(u64::from(bits))), zero, zero, zero]
        }
    }
    #[inline(always)]
    unsafe fn first(x: Floats, n: usize) -> Floats {
        const LANES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        from_fn(|i| unsafe {
            let here = vcltq_u32(vld1q_u32(LANES.as_ptr().add(4 * i)), vdupq_n_u32(n as u32));
            vreinterpretq_f32_u32(vandq_u32(here, vreinterpretq_u32_f32(x[i])))
        })
    }
    #[inline(always)]
    unsafe fn unsigned(words: [u64; 2]) -> Floats {
        unsafe { floats_of(vcombine_u8(vcreate_u8(words[0]), vcreate_u8(words[1]))) }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> Floats {
        unsafe {
            let ([a, b], [c, d]) = (half_float::floats_at(p), half_float::floats_at(p.add(16)));
            [a, b, c, d]
        }
    }
    #[inline(always)]
    unsafe fn unsigned_at(p: *const u8) -> Floats {
        unsafe { floats_of(vld1q_u8(p)) }
    }
    #[inline(always)]
    unsafe fn nibbles_at(p: *const u8) -> (Floats, Floats) {
        unsafe {
            let both = vld1q_u8(p);
            (floats_of(vandq_u8(both, vdupq_n_u8(15))), floats_of(vshrq_n_u8::<4>(both)))
        }
    }
    #[inline(always)]
    unsafe fn signed(p: *const u8) -> Floats {
        unsafe {
            let x = vld1q_s8(p.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
            let words = [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ];
            words.map(|x| vcvtq_f32_s32(x))
        }
    }
    #[inline(always)]
    unsafe fn eights(x: Floats, j: usize) -> Floats {
        // By a table and not by lanes of `x`, for `j` may count a loop.
        unsafe {
            let [a, b, _, _] = x.map(|x| vreinterpretq_u8_f32(x));
            let x = vreinterpretq_f32_u8(vqtbl2q_u8(uint8x16x2_t(a, b), places(8 * j)));
            let (a, b) = (vdupq_laneq_f32::<0>(x), vdupq_laneq_f32::<1>(x));
            [a, a, b, b]
        }
    }
    #[inline(always)]
    unsafe fn fours(x: Floats, j: usize) -> Floats {
        unsafe {
            let [a, b, c, d] = x.map(|x| vreinterpretq_u8_f32(x));
            let x = vreinterpretq_f32_u8(vqtbl4q_u8(uint8x16x4_t(a, b, c, d), places(16 * j)));
            [vdupq_laneq_f32::<0>(x), vdupq_laneq_f32::<1>(x), vdupq_laneq_f32::<2>(x), vdupq_laneq_f32::<3>(x)]
        }
    }
    #[inline(always)]
    unsafe fn float(x: Ints) -> Floats {
        x.map(|x| unsafe { vcvtq_f32_s32(x) })
    }
    #[inline(always)]
    unsafe fn round(x: Floats) -> Ints {
        x.map(|x| unsafe { vcvtnq_s32_f32(x) })
    }
    #[inline(always)]
    unsafe fn largest_bits(a: Floats, b: Floats) -> u32 {
        unsafe {
            let bits = |x| vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fff_ffff));
            let most = each(a, b, |a, b| vmaxq_u32(bits(a), bits(b)));
            vmaxvq_u32(vmaxq_u32(vmaxq_u32(most[0], most[1]), vmaxq_u32(most[2], most[3])))
        }
    }
}
