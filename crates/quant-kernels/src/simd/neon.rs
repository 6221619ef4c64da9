//! NEON: 8 lanes in two registers.

use super::Simd;
use crate::half_float;
use std::arch::aarch64::*;
use std::array::from_fn;

/// The instruction set as a type.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

type F = [float32x4_t; 2];
type I = [int32x4_t; 2];

/// A bit for each lane.
const BITS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

#[inline(always)]
fn both<A: Copy, B: Copy, R>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> R) -> [R; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// Zero-extended.
#[inline(always)]
unsafe fn widened(x: uint8x8_t) -> I {
    // SAFETY: the caller has NEON.
    unsafe {
        let x = vmovl_u8(x);
        [vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x))), vreinterpretq_s32_u32(vmovl_high_u16(x))]
    }
}

/// Of signed shift counts: those below 0 shift to the right, and bring zeros.
#[inline(always)]
unsafe fn shifted(x: I, by: i32) -> I {
    // SAFETY: the caller has NEON.
    x.map(|x| unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(by))) })
}

// Each function is the instruction it names, twice; the caller has NEON, and memory as `Simd` asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    const LANES: usize = 8;
    type F = F;
    type I = I;
    type Table = [float32x4_t; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe {
            vst1q_f32(p, x[0]);
            vst1q_f32(p.add(4), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    // Not `fmax` and `fmin`: these give NaN where either is.
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        both(a, b, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sum(x: F) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(x[0], x[1])) }
    }
    #[inline(always)]
    unsafe fn largest(x: F) -> f32 {
        unsafe { vmaxvq_f32(vmaxq_f32(x[0], x[1])) }
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        unsafe { vgetq_lane_f32::<0>(Self::splat_half(bits)[0]) }
    }
    #[inline(always)]
    unsafe fn splat_half(bits: u16) -> F {
        unsafe { [half_float::floats(vdup_n_u16(bits)); 2] }
    }
    #[inline(always)]
    unsafe fn floats(p: *const u8) -> F {
        unsafe { Self::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u8) -> F {
        unsafe { half_float::floats_at(p) }
    }
    #[inline(always)]
    unsafe fn bfloats(p: *const u8) -> F {
        unsafe {
            let x = vreinterpretq_u16_u8(vld1q_u8(p));
            [vshll_n_u16::<16>(vget_low_u16(x)), vshll_high_n_u16::<16>(x)].map(|x| vreinterpretq_f32_u32(x))
        }
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> I {
        unsafe { [vdupq_n_s32(x); 2] }
    }
    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> I {
        unsafe { widened(vld1_u8(p)) }
    }
    #[inline(always)]
    unsafe fn bytes_of(words: [u64; 2], at: usize) -> I {
        unsafe { widened(vcreate_u8(words[at / 8])) }
    }
    #[inline(always)]
    unsafe fn signed_bytes(p: *const u8) -> I {
        unsafe {
            let x = vmovl_s8(vld1_s8(p.cast()));
            [vmovl_s16(vget_low_s16(x)), vmovl_high_s16(x)]
        }
    }
    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        both(a, b, |a, b| unsafe { vandq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        both(a, b, |a, b| unsafe { vorrq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn add_i(a: I, b: I) -> I {
        both(a, b, |a, b| unsafe { vaddq_s32(a, b) })
    }
    #[inline(always)]
    unsafe fn shr(a: I, by: u32) -> I {
        unsafe { shifted(a, -(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shl(a: I, by: u32) -> I {
        unsafe { shifted(a, by as i32) }
    }
    #[inline(always)]
    unsafe fn where_bit(bits: u32, x: i32) -> I {
        [0, 4].map(|at| unsafe {
            let set = vtstq_u32(vdupq_n_u32(bits), vld1q_u32(BITS.as_ptr().add(at)));
            vandq_s32(vreinterpretq_s32_u32(set), vdupq_n_s32(x))
        })
    }
    #[inline(always)]
    unsafe fn float(a: I) -> F {
        a.map(|a| unsafe { vcvtq_f32_s32(a) })
    }
    #[inline(always)]
    unsafe fn round(a: F) -> I {
        a.map(|a| unsafe { vcvtnq_s32_f32(a) })
    }
    #[inline(always)]
    unsafe fn from_bits(a: I) -> F {
        a.map(|a| unsafe { vreinterpretq_f32_s32(a) })
    }

    #[inline(always)]
    unsafe fn table(p: *const f32) -> Self::Table {
        from_fn(|i| unsafe { vld1q_f32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn table_mul(t: Self::Table, x: f32) -> Self::Table {
        t.map(|t| unsafe { vmulq_f32(t, vdupq_n_f32(x)) })
    }
    #[inline(always)]
    unsafe fn table_add(t: Self::Table, x: f32) -> Self::Table {
        t.map(|t| unsafe { vaddq_f32(t, vdupq_n_f32(x)) })
    }
    #[inline(always)]
    unsafe fn table_sub(t: Self::Table, x: f32) -> Self::Table {
        t.map(|t| unsafe { vsubq_f32(t, vdupq_n_f32(x)) })
    }
    #[inline(always)]
    unsafe fn lookup(t: Self::Table, codes: I) -> F {
        // Byte b of a value is byte 4 code + b of the table.
        unsafe {
            let [a, b, c, d] = t.map(|t| vreinterpretq_u8_f32(t));
            codes.map(|code| {
                let code = vandq_u32(vreinterpretq_u32_s32(code), vdupq_n_u32(15));
                let places = vmlaq_u32(vdupq_n_u32(0x0302_0100), code, vdupq_n_u32(0x0404_0404));
                vreinterpretq_f32_u8(vqtbl4q_u8(uint8x16x4_t(a, b, c, d), vreinterpretq_u8_u32(places)))
            })
        }
    }
    #[inline(always)]
    unsafe fn lookup_5(low: Self::Table, high: Self::Table, codes: I, bits: u32) -> F {
        unsafe {
            let (low, high) = (Self::lookup(low, codes), Self::lookup(high, codes));
            let set = Self::where_bit(bits, -1).map(|set| vreinterpretq_u32_s32(set));
            from_fn(|i| vbslq_f32(set[i], high[i], low[i]))
        }
    }
    #[inline(always)]
    unsafe fn test(a: I, mask: i32) -> u32 {
        let set: [uint32x4_t; 2] =
            from_fn(|i| unsafe { vandq_u32(vtstq_s32(a[i], vdupq_n_s32(mask)), vld1q_u32(BITS.as_ptr().add(4 * i))) });
        unsafe { vaddvq_u32(vorrq_u32(set[0], set[1])) }
    }
}
