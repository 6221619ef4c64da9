//! NEON: a vector is four registers. Codes meet factors as signed bytes by `sdot` where the processor has it (the extension dotprod), else as words.

use super::{Isa, Simd};
use crate::grids::{BASE, BOTH, CELLS, FIRST, Grid, RATIO, STEP};
use crate::layout::Float8;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;
use std::marker::PhantomData;

/// The instruction set as a type, with one of the ways to multiply codes.
#[derive(Clone, Copy)]
pub(crate) struct Neon<D>(PhantomData<D>);

type C4 = [uint8x16_t; 4];
type I4 = [int32x4_t; 4];
type F4 = [float32x4_t; 4];

/// How codes, signed bytes, are multiplied with factors.
///
/// # Safety
/// Every function needs the instruction set; `put` writes and `dot` reads as [`Simd`] says.
pub(crate) trait Dot: Copy + 'static {
    const ISA: Isa;
    /// 16 sums.
    type A: Copy;
    unsafe fn sums(x: i32) -> Self::A;
    unsafe fn totals(a: Self::A) -> I4;
    /// Factors, four quads.
    unsafe fn put(x: I4, p: *mut u64);
    unsafe fn dot(a: Self::A, c: C4, p: *const u64) -> Self::A;
}

/// The low or the high half of a quad in every lane.
#[inline(always)]
unsafe fn half_quad(p: *const u64, half: usize) -> uint8x16_t {
    // SAFETY: the caller has a quad and NEON.
    unsafe { vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().add(half).read_unaligned())) }
}

/// Bytes of codes become words.
#[derive(Clone, Copy)]
pub(crate) struct Widened;

// The caller has NEON, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dot for Widened {
    const ISA: Isa = Isa::Neon;
    type A = I4;

    #[inline(always)]
    unsafe fn sums(x: i32) -> I4 {
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    unsafe fn totals(a: I4) -> I4 {
        a
    }
    /// Words; in each quad factors 0 2 1 3.
    #[inline(always)]
    unsafe fn put(x: I4, p: *mut u64) {
        const ORDER: [u8; 16] = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
        unsafe {
            let order = vld1q_u8(ORDER.as_ptr());
            for (i, x) in [[x[0], x[1]], [x[2], x[3]]].into_iter().enumerate() {
                let words = vcombine_s16(vqmovn_s32(x[0]), vqmovn_s32(x[1]));
                vst1q_u8(p.add(2 * i).cast(), vqtbl1q_u8(vreinterpretq_u8_s16(words), order));
            }
        }
    }
    #[inline(always)]
    unsafe fn dot(a: I4, c: C4, p: *const u64) -> I4 {
        unsafe {
            // Bytes 0 and 2 of a lane meet the first two factors, bytes 1 and 3 the others.
            let (x, y) = (vreinterpretq_s16_u8(half_quad(p, 0)), vreinterpretq_s16_u8(half_quad(p, 1)));
            from_fn(|i| {
                let c = vreinterpretq_s16_u8(c[i]);
                let (even, odd) = (vshrq_n_s16::<8>(vshlq_n_s16::<8>(c)), vshrq_n_s16::<8>(c));
                let low = vmlal_s16(vmull_s16(vget_low_s16(even), vget_low_s16(x)), vget_low_s16(odd), vget_low_s16(y));
                let high = vmlal_high_s16(vmull_high_s16(even, x), odd, y);
                vaddq_s32(a[i], vpaddq_s32(low, high))
            })
        }
    }
}

/// `sdot`.
#[derive(Clone, Copy)]
pub(crate) struct Sdot;

/// Four products of signed bytes added to each lane. The intrinsic is not stable. The directive is for builds that do not inline everything: the
/// assembler then takes the instruction anywhere.
///
/// # Safety
/// dotprod.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, c: uint8x16_t, x: uint8x16_t) -> int32x4_t {
    // SAFETY: the caller has the instruction; it touches registers alone.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) c, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

// The caller has NEON and dotprod, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dot for Sdot {
    const ISA: Isa = Isa::NeonDot;
    /// Sums with the high and with the low bytes of the factors.
    type A = (I4, I4);

    #[inline(always)]
    unsafe fn sums(x: i32) -> Self::A {
        unsafe { ([vdupq_n_s32(0); 4], [vdupq_n_s32(x); 4]) }
    }
    #[inline(always)]
    unsafe fn totals(a: Self::A) -> I4 {
        from_fn(|i| unsafe { vaddq_s32(vshlq_n_s32::<8>(a.0[i]), a.1[i]) })
    }
    /// `256 high + low`, the four high bytes of a quad first. The low byte is that of the number; the high one lies above it once 128 is added.
    #[inline(always)]
    unsafe fn put(x: I4, p: *mut u64) {
        const ORDER: [u8; 16] = [1, 5, 9, 13, 16, 20, 24, 28, 33, 37, 41, 45, 48, 52, 56, 60];
        unsafe {
            let order = vld1q_u8(ORDER.as_ptr());
            for (i, [a, b]) in [[x[0], x[1]], [x[2], x[3]]].into_iter().enumerate() {
                let more = |x: int32x4_t| vreinterpretq_u8_s32(vaddq_s32(x, vdupq_n_s32(128)));
                let bytes = uint8x16x4_t(more(a), vreinterpretq_u8_s32(a), more(b), vreinterpretq_u8_s32(b));
                vst1q_u8(p.add(2 * i).cast(), vqtbl4q_u8(bytes, order));
            }
        }
    }
    #[inline(always)]
    unsafe fn dot(a: Self::A, c: C4, p: *const u64) -> Self::A {
        unsafe {
            let (high, low) = (half_quad(p, 0), half_quad(p, 1));
            let [c0, c1, c2, c3] = c;
            let sums = |a: I4, x| [sdot(a[0], c0, x), sdot(a[1], c1, x), sdot(a[2], c2, x), sdot(a[3], c3, x)];
            (sums(a.0, high), sums(a.1, low))
        }
    }
}

#[inline(always)]
fn each<T: Copy, R>(a: [T; 4], b: [T; 4], f: impl Fn(T, T) -> R) -> [R; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// The larger; the second where one is NaN. `fmax` would give NaN.
#[inline(always)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller has NEON.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// Half of [`Simd::fold`], or of [`Simd::fold_largest`].
#[inline(always)]
unsafe fn fold<const N: usize, const LARGEST: bool>(x: F4) -> [float32x4_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        // Lanes 0 and 1, and lanes 2 and 3, of two registers.
        let halves = |x, y| {
            let (x, y) = (vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y));
            [vreinterpretq_f32_f64(vtrn1q_f64(x, y)), vreinterpretq_f32_f64(vtrn2q_f64(x, y))]
        };
        let pairs = match N {
            8 => [[x[0], x[2]], [x[1], x[3]]],
            4 => [[x[0], x[1]], [x[2], x[3]]],
            2 => [halves(x[0], x[1]), halves(x[2], x[3])],
            _ => [[vuzp1q_f32(x[0], x[1]), vuzp2q_f32(x[0], x[1])], [vuzp1q_f32(x[2], x[3]), vuzp2q_f32(x[2], x[3])]],
        };
        pairs.map(|[a, b]| if LARGEST { larger(a, b) } else { vaddq_f32(a, b) })
    }
}

/// 16 unsigned bytes as whole numbers.
#[inline(always)]
unsafe fn widened(x: uint8x16_t) -> [uint32x4_t; 4] {
    // SAFETY: the caller has NEON.
    unsafe {
        let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x));
        [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)]
    }
}

/// Writes 16 whole numbers from 0 to 255 as bytes.
#[inline(always)]
unsafe fn put_whole(x: [uint32x4_t; 4], p: *mut u8) {
    // SAFETY: the caller has NEON and 16 bytes.
    unsafe {
        let low = vcombine_u16(vmovn_u32(x[0]), vmovn_u32(x[1]));
        let high = vcombine_u16(vmovn_u32(x[2]), vmovn_u32(x[3]));
        vst1q_u8(p, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
    }
}

/// Half-precision numbers. The intrinsics for it are younger than the compiler that this crate asks for; every NEON has the instructions.
#[inline(always)]
unsafe fn floats(bits: [uint16x8_t; 2]) -> F4 {
    // SAFETY: the caller has NEON; the instructions touch registers alone.
    unsafe {
        let mut x = [vdupq_n_f32(0.0); 4];
        for (i, bits) in bits.into_iter().enumerate() {
            let (low, high);
            asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) low, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
            asm!("fcvtl2 {0:v}.4s, {1:v}.8h", lateout(vreg) high, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
            (x[2 * i], x[2 * i + 1]) = (low, high);
        }
        x
    }
}

/// 16 words of 16 bits.
#[inline(always)]
unsafe fn words(p: *const u8) -> [uint16x8_t; 2] {
    // SAFETY: the caller has NEON and 32 bytes.
    unsafe { [vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16)))] }
}

// Each function is the instructions it names; the caller has the instruction set, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Dot> Simd for Neon<D> {
    const ROWS: usize = 2;
    const OFF: i32 = 128;
    /// 127 and 127: with codes that have a sign both bytes of a factor have one.
    const WEIGHT_MAX: f32 = 32639.0;
    fn isa() -> Isa {
        D::ISA
    }
    type C = C4;
    type A = D::A;
    type F = F4;
    type T = uint8x16x2_t;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) p, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn prefetch_near(p: *const u8) {
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) p, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn codes(p: *const u8) -> C4 {
        from_fn(|i| unsafe { vld1q_u8(p.add(16 * i)) })
    }
    #[inline(always)]
    unsafe fn splat_quad(x: u32) -> C4 {
        unsafe { [vreinterpretq_u8_u32(vdupq_n_u32(x)); 4] }
    }
    #[inline(always)]
    unsafe fn or(a: C4, b: C4) -> C4 {
        each(a, b, |a, b| unsafe { vorrq_u8(a, b) })
    }
    #[inline(always)]
    unsafe fn field(c: C4, from: u32, bits: u32, to: u32) -> C4 {
        unsafe {
            let by = vdupq_n_s8((to as i32 - from as i32) as i8);
            let mask = vdupq_n_u8((((1u32 << bits) - 1) << to) as u8);
            c.map(|c| vandq_u8(vshlq_u8(c, by), mask))
        }
    }
    #[inline(always)]
    unsafe fn table(p: *const u8) -> uint8x16x2_t {
        unsafe { uint8x16x2_t(vld1q_u8(p), vld1q_u8(p.add(16))) }
    }
    #[inline(always)]
    unsafe fn lookup(t: uint8x16x2_t, c: C4) -> C4 {
        c.map(|c| unsafe { vqtbl2q_u8(t, c) })
    }

    #[inline(always)]
    unsafe fn sums(x: i32) -> D::A {
        unsafe { D::sums(x) }
    }
    #[inline(always)]
    unsafe fn centered(c: C4) -> C4 {
        unsafe { Self::signed(c) }
    }
    #[inline(always)]
    unsafe fn dot(a: D::A, c: C4, p: *const u64) -> D::A {
        unsafe { D::dot(a, c, p) }
    }
    #[inline(always)]
    unsafe fn signed(c: C4) -> C4 {
        c.map(|c| unsafe { veorq_u8(c, vdupq_n_u8(0x80)) })
    }
    #[inline(always)]
    unsafe fn dot_signed(a: D::A, c: C4, p: *const u64) -> D::A {
        unsafe { D::dot(a, c, p) }
    }
    #[inline(always)]
    unsafe fn weights(x: F4, p: *mut u64) {
        unsafe { D::put(x.map(|x| vcvtnq_s32_f32(x)), p) }
    }
    #[inline(always)]
    unsafe fn totals(a: D::A) -> F4 {
        unsafe { D::totals(a).map(|x| vcvtq_f32_s32(x)) }
    }
    #[inline(always)]
    unsafe fn quads(x: F4, p: *mut u64) -> i32 {
        unsafe {
            let x = x.map(|x| vcvtnq_s32_f32(x));
            D::put(x, p);
            vaddvq_s32(vaddq_s32(vaddq_s32(x[0], x[1]), vaddq_s32(x[2], x[3])))
        }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> F4 {
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F4 {
        from_fn(|i| unsafe { vld1q_f32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F4) {
        for (i, x) in x.into_iter().enumerate() {
            unsafe { vst1q_f32(p.add(4 * i), x) };
        }
    }
    #[inline(always)]
    unsafe fn add(a: F4, b: F4) -> F4 {
        each(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: F4, b: F4) -> F4 {
        each(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(a: F4, b: F4) -> F4 {
        each(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn max(a: F4, b: F4) -> F4 {
        each(a, b, |a, b| unsafe { larger(a, b) })
    }
    #[inline(always)]
    unsafe fn min(a: F4, b: F4) -> F4 {
        each(a, b, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn abs(x: F4) -> F4 {
        x.map(|x| unsafe { vabsq_f32(x) })
    }
    #[inline(always)]
    unsafe fn add_above(to: F4, t: F4, border: f32, by: f32) -> F4 {
        each(to, t, |to, t| unsafe { vbslq_f32(vcgtq_f32(t, vdupq_n_f32(border)), vaddq_f32(to, vdupq_n_f32(by)), to) })
    }
    #[inline(always)]
    unsafe fn fold<const N: usize>(a: F4, b: F4) -> F4 {
        unsafe {
            let ([x, y], [z, w]) = (fold::<N, false>(a), fold::<N, false>(b));
            [x, y, z, w]
        }
    }
    #[inline(always)]
    unsafe fn fold_largest<const N: usize>(a: F4, b: F4) -> F4 {
        unsafe {
            let ([x, y], [z, w]) = (fold::<N, true>(a), fold::<N, true>(b));
            [x, y, z, w]
        }
    }
    #[inline(always)]
    unsafe fn lookup_floats(table: &[f32; CELLS], at: F4) -> F4 {
        let mut places = [0u32; 16];
        unsafe {
            for (i, at) in at.into_iter().enumerate() {
                vst1q_u32(places.as_mut_ptr().add(4 * i), vcvtq_u32_f32(at));
            }
            Self::load(places.map(|at| table[at as usize % CELLS]).as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn put_codes(grid: &Grid, x: F4, inverse: f32, p: *mut u8) {
        unsafe {
            let t = Self::mul(Self::abs(x), Self::splat(inverse));
            let mut index = Self::splat(0.0);
            for border in &grid.borders[1..grid.count] {
                index = Self::add_above(index, t, *border, 1.0);
            }
            let codes = each(index, x, |index, x| {
                let sign = vshrq_n_s32::<31>(vreinterpretq_s32_f32(x));
                let index = veorq_s32(vcvtnq_s32_f32(index), sign);
                vreinterpretq_u32_s32(vaddq_s32(index, vdupq_n_s32(grid.count as i32)))
            });
            put_whole(codes, p);
        }
    }
    #[inline(always)]
    unsafe fn reversed(x: F4) -> F4 {
        let one = |x| unsafe {
            let swapped = vrev64q_f32(x);
            vextq_f32::<2>(swapped, swapped)
        };
        [one(x[3]), one(x[2]), one(x[1]), one(x[0])]
    }
    #[inline(always)]
    unsafe fn butterfly<const LOG: u32>(x: F4) -> F4 {
        unsafe {
            let [a, b, c, d] = x;
            match LOG {
                0 => x.map(|x| {
                    let y = vrev64q_f32(x);
                    vtrn1q_f32(vaddq_f32(x, y), vsubq_f32(x, y))
                }),
                1 => x.map(|x| {
                    let y = vextq_f32::<2>(x, x);
                    vcombine_f32(vget_low_f32(vaddq_f32(x, y)), vget_low_f32(vsubq_f32(x, y)))
                }),
                2 => [vaddq_f32(a, b), vsubq_f32(a, b), vaddq_f32(c, d), vsubq_f32(c, d)],
                _ => [vaddq_f32(a, c), vaddq_f32(b, d), vsubq_f32(a, c), vsubq_f32(b, d)],
            }
        }
    }
    #[inline(always)]
    unsafe fn put_bytes(x: F4, p: *mut u8) {
        unsafe { put_whole(x.map(|x| vcvtnq_u32_f32(x)), p) }
    }
    #[inline(always)]
    unsafe fn put_fields(p: *mut u8, codes: *const u8, from: u32, bits: u32, to: u32) {
        unsafe {
            let (from, to_here) = (vdupq_n_s32(-(from as i32)), vdupq_n_s32(to as i32));
            let mask = vdupq_n_u32(((1u32 << bits) - 1) << to);
            for (i, code) in widened(vld1q_u8(codes)).into_iter().enumerate() {
                let (p, field) = (p.add(16 * i), vshlq_u32(vshlq_u32(code, from), to_here));
                let all = vbslq_u32(mask, field, vreinterpretq_u32_u8(vld1q_u8(p)));
                vst1q_u8(p, vreinterpretq_u8_u32(all));
            }
        }
    }
    #[inline(always)]
    unsafe fn put_halves(x: F4, p: *mut u8) {
        unsafe {
            for (i, [a, b]) in [[x[0], x[1]], [x[2], x[3]]].into_iter().enumerate() {
                let halves: uint16x8_t;
                asm!(
                    "fcvtn {0:v}.4h, {1:v}.4s", "fcvtn2 {0:v}.8h, {2:v}.4s",
                    out(vreg) halves, in(vreg) a, in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
                vst1q_u8(p.add(16 * i), vreinterpretq_u8_u16(halves));
            }
        }
    }
    #[inline(always)]
    unsafe fn fma(a: F4, b: F4, c: F4) -> F4 {
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn sum(x: F4) -> f32 {
        unsafe {
            let x = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }
    }
    #[inline(always)]
    unsafe fn largest(x: F4) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[1]), vmaxq_f32(x[2], x[3]))) }
    }
    #[inline(always)]
    unsafe fn power_of_two(x: F4) -> F4 {
        x.map(|x| unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(x), vdupq_n_s32(127)))) })
    }
    #[inline(always)]
    unsafe fn round(x: F4) -> F4 {
        x.map(|x| unsafe { vrndnq_f32(x) })
    }

    #[inline(always)]
    unsafe fn halves(p: *const u8) -> F4 {
        unsafe { floats(words(p)) }
    }
    #[inline(always)]
    unsafe fn paired(p: *const u8) -> [F4; 2] {
        unsafe {
            let bits = words(p);
            let base = floats(bits.map(|x| vandq_u16(x, vdupq_n_u16(BASE))));
            let [a, b] = bits.map(|x| {
                let parts = vmlaq_n_u16(vdupq_n_u16(FIRST as u16), vandq_u16(x, vdupq_n_u16(RATIO)), STEP as u16);
                [vmovl_u16(vget_low_u16(parts)), vmovl_high_u16(parts)].map(|x| vcvtq_f32_u32(x))
            });
            let first = Self::mul(base, [a[0], a[1], b[0], b[1]]);
            [first, Self::sub(Self::mul(base, Self::splat(BOTH as f32)), first)]
        }
    }
    #[inline(always)]
    unsafe fn grids<const BIT: u32>(p: *const u8) -> C4 {
        unsafe {
            let [a, b] = words(p).map(|x| {
                let set = vreinterpretq_s16_u16(vtstq_u16(x, vdupq_n_u16(1 << BIT)));
                [vmovl_s16(vget_low_s16(set)), vmovl_high_s16(set)]
            });
            [a[0], a[1], b[0], b[1]].map(|x| vandq_u8(vreinterpretq_u8_s32(x), vdupq_n_u8(16)))
        }
    }
    #[inline(always)]
    unsafe fn floats8(format: Float8, p: *const u8) -> F4 {
        unsafe {
            let x = vld1q_u8(p);
            let halves = [vshll_n_u8::<8>(vget_low_u8(x)), vshll_high_n_u8::<8>(x)];
            floats(match format {
                // The sign goes to the top with the code, which is then moved down behind it.
                Float8::E4M3 => halves.map(|x| {
                    let moved = vreinterpretq_u16_s16(vshrq_n_s16::<1>(vreinterpretq_s16_u16(x)));
                    vandq_u16(moved, vdupq_n_u16(0xbf80))
                }),
                Float8::E5M2 => halves,
            })
        }
    }
    #[inline(always)]
    unsafe fn small(p: *const u8, from: u32, bits: u32) -> F4 {
        unsafe {
            let x = vshlq_u8(vld1q_u8(p), vdupq_n_s8(-(from as i8)));
            widened(vandq_u8(x, vdupq_n_u8(((1u32 << bits) - 1) as u8))).map(|x| vcvtq_f32_u32(x))
        }
    }
}
