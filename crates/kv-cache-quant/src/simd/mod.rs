//! The vector operations of [`attend`](crate::attend), once for every instruction set, and the one place that chooses it.
//!
//! Vectors have 16 lanes everywhere (AVX2 uses two registers), so that sums are made in the same order. The integer sums are exact: every
//! instruction set gives the same; the f32 operations may fuse products and sums.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::grids::{CELLS, Grid};
use crate::layout::Float8;
use std::sync::OnceLock;

/// The largest magnitude of a whole number that a factor is rounded to: `127 * 256`, so that it is two signed bytes, `256 * high + low`.
///
/// Sums may pass through numbers that do not fit in i32, for they wrap; the results fit, with 512 factors at most: `512 * 128 * 32512 < 2^31`.
pub(crate) const FACTOR_MAX: f32 = 32512.0;

/// Operations on 16 lanes.
///
/// # Safety
/// Every function needs the instruction set of its implementor, and readable (writable) memory of the size it says, at any alignment.
pub(crate) trait Simd: Copy + 'static {
    /// Most rows of queries that a kernel takes at once, as registers allow.
    const ROWS: usize;
    /// The largest weight: a factor without sign.
    const WEIGHT_MAX: f32;
    /// What [`Simd::centered`] takes from codes: 0, or 128 where both factors of a product have signs.
    const OFF: i32;
    /// Its name at run time.
    fn isa() -> Isa;
    /// 64 codes, bytes.
    type C: Copy;
    /// 16 sums of whole numbers.
    type A: Copy;
    /// 16 f32.
    type F: Copy;
    /// 32 bytes, to be looked up.
    type T: Copy;

    /// Asks for the cache line at `p`, which may be anywhere, to be fetched into the second-level cache.
    unsafe fn prefetch(p: *const u8);
    /// The same into the first-level cache.
    unsafe fn prefetch_near(p: *const u8);
    /// 64 bytes.
    unsafe fn codes(p: *const u8) -> Self::C;
    /// The same four bytes in each lane.
    unsafe fn splat_quad(x: u32) -> Self::C;
    unsafe fn or(a: Self::C, b: Self::C) -> Self::C;
    /// The `bits` bits of each byte from `from` on, moved to bit `to`.
    unsafe fn field(c: Self::C, from: u32, bits: u32, to: u32) -> Self::C;
    /// 32 bytes.
    unsafe fn table(p: *const u8) -> Self::T;
    /// The entry of each code below 32.
    unsafe fn lookup(t: Self::T, c: Self::C) -> Self::C;

    /// All sums `x`.
    unsafe fn sums(x: i32) -> Self::A;
    /// Codes without sign as [`Simd::dot`] takes them: less `OFF`.
    unsafe fn centered(c: Self::C) -> Self::C;
    /// Adds to each lane the product of its four codes ([`Simd::centered`]) with the four factors that [`Simd::quads`] wrote at `p`.
    unsafe fn dot(a: Self::A, c: Self::C, p: *const u64) -> Self::A;
    /// The four bytes as numbers with a sign: less 128.
    unsafe fn signed(c: Self::C) -> Self::C;
    /// As [`Simd::dot`] with codes that have a sign, and the factors that [`Simd::weights`] wrote.
    unsafe fn dot_signed(a: Self::A, c: Self::C, p: *const u64) -> Self::A;
    /// Rounds 16 values from 0 to [`Simd::WEIGHT_MAX`] to factors, four quads at `p`.
    unsafe fn weights(x: Self::F, p: *mut u64);
    /// The sums; they fit in i32.
    unsafe fn totals(a: Self::A) -> Self::F;
    /// Rounds 16 values within `FACTOR_MAX` to factors, four quads at `p`; their sum.
    unsafe fn quads(x: Self::F, p: *mut u64) -> i32;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; the second where one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; the second where one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Without sign.
    unsafe fn abs(x: Self::F) -> Self::F;
    /// `to + by` where `t > border`, else `to`.
    unsafe fn add_above(to: Self::F, t: Self::F, border: f32, by: f32) -> Self::F;
    /// The entry of the whole part of each lane, which is from 0 to 31.
    unsafe fn lookup_floats(table: &[f32; CELLS], at: Self::F) -> Self::F;
    /// Codes of 16 values on a grid, whose magnitudes times `inverse` are in eighths of its unit: ascending from the lowest level.
    unsafe fn put_codes(grid: &Grid, x: Self::F, inverse: f32, p: *mut u8);
    /// Lane `i`: of all lanes of vector `i` the largest, or else the sum, by halves, in the same order everywhere.
    #[inline(always)]
    unsafe fn gather<const LARGEST: bool>(x: &[Self::F; 16]) -> Self::F {
        // SAFETY: the caller's.
        unsafe {
            let mut x = *x;
            macro_rules! halve {
                ($n:literal) => {
                    for i in 0..$n {
                        x[i] = match LARGEST {
                            true => Self::fold_largest::<$n>(x[2 * i], x[2 * i + 1]),
                            false => Self::fold::<$n>(x[2 * i], x[2 * i + 1]),
                        };
                    }
                };
            }
            halve!(8);
            halve!(4);
            halve!(2);
            halve!(1);
            x[0]
        }
    }
    /// As [`Simd::fold`]: the larger instead of the sum.
    unsafe fn fold_largest<const N: usize>(a: Self::F, b: Self::F) -> Self::F;
    /// The lanes of `a`, then those of `b`, in runs of `2 N`: the sums of lanes i and i + N of each run, 8 of `a` and 8 of `b`.
    unsafe fn fold<const N: usize>(a: Self::F, b: Self::F) -> Self::F;
    /// The last lane first.
    unsafe fn reversed(x: Self::F) -> Self::F;
    /// Of lanes i and i + 2^LOG: sum and difference.
    unsafe fn butterfly<const LOG: u32>(x: Self::F) -> Self::F;
    /// Rounds to whole numbers, ties to even, from 0 to 255, and writes 16 bytes.
    unsafe fn put_bytes(x: Self::F, p: *mut u8);
    /// `bits` bits of each of 16 codes, from bit `from` on, into bit `to` on of the little-endian numbers of four bytes at `p`, 64 bytes; all else there
    /// stays.
    unsafe fn put_fields(p: *mut u8, codes: *const u8, from: u32, bits: u32, to: u32);
    /// Writes 16 half-precision numbers, rounded to nearest even.
    unsafe fn put_halves(x: Self::F, p: *mut u8);
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Of all lanes.
    unsafe fn sum(x: Self::F) -> f32;
    /// Of all lanes.
    unsafe fn largest(x: Self::F) -> f32;
    /// `2^x` of whole numbers from -126 to 127.
    unsafe fn power_of_two(x: Self::F) -> Self::F;
    /// To the nearest whole number, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;

    /// 16 half-precision numbers.
    unsafe fn halves(p: *const u8) -> Self::F;
    /// The scales of the halves of a group of 16 tokens ([`grids`](crate::grids)), in its unit.
    unsafe fn paired(p: *const u8) -> [Self::F; 2];
    /// 16 in the four bytes of each lane where the 16 bits at `p` have this bit.
    unsafe fn grids<const BIT: u32>(p: *const u8) -> Self::C;
    /// 16 8-bit floats, to be multiplied by [`Float8::half_factor`].
    unsafe fn floats8(format: Float8, p: *const u8) -> Self::F;
    /// 16 bytes' `bits` bits from `from` on, as numbers.
    unsafe fn small(p: *const u8, from: u32, bits: u32) -> Self::F;
}

/// `e^x` within 2 ulp for x from -87 to 0, for smaller x at most `e^-87`.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its Taylor polynomial of degree 7, whose remainder is below 2^-26 there.
///
/// # Safety
/// As for every operation of [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let x = S::max(x, S::splat(-87.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first with so few bits that n times it is exact.
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        S::mul(p, S::power_of_two(n))
    }
}

/// An instruction set that the crate is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ, VL with VNNI and VBMI (Ice Lake, Zen 4 and later).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2, FMA, F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with dotprod (ARMv8.2 and later).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// The best that this machine has, detected once.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        let mut list = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            if avx2 && avx512 && has!("avx512vnni") && has!("avx512vbmi") {
                list.push(Self::Avx512);
            }
            if avx2 {
                list.push(Self::Avx2);
            }
        }
        // The kernels read numbers as they lie in blocks: little endian.
        #[cfg(target_arch = "aarch64")]
        if cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon") {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                list.push(Self::NeonDot);
            }
            list.push(Self::Neon);
        }
        list.push(Self::Portable);
        list
    }

    /// `avx512`, `avx2`, `neondot`, `neon`, `portable`.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "neondot",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Runs `op` with this instruction set; one that the machine lacks is replaced by plain Rust.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 if !has(self) => op.run::<portable::Portable>(),
            // SAFETY: `has` found the instruction set on this machine.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(op) },
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::Neon if !has(self) => op.run::<portable::Portable>(),
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => unsafe { run_neon_dot(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { run_neon(op) },
            Self::Portable => op.run::<portable::Portable>(),
        }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn has(isa: Isa) -> bool {
    static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
    AVAILABLE.get_or_init(Isa::available).contains(&isa)
}

/// Work to be compiled for each instruction set: `run` and all it calls are to be forced inline. Plain loops gain from it too.
pub(crate) trait Op {
    /// What it gives.
    type Output;
    /// Computes with the operations of `S`.
    fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn run_avx512<O: Op>(op: O) -> O::Output {
    op.run::<avx512::Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<O: Op>(op: O) -> O::Output {
    op.run::<avx2::Avx2>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn run_neon_dot<O: Op>(op: O) -> O::Output {
    op.run::<neon::Neon<neon::Sdot>>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn run_neon<O: Op>(op: O) -> O::Output {
    op.run::<neon::Neon<neon::Widened>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    /// Every operation, on numbers that reach its corners, as bits.
    struct All;

    impl Op for All {
        type Output = Vec<(&'static str, Vec<f32>)>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Self::Output {
            let bytes: Vec<u8> = (0..64u32).map(|i| (i * 89 + 7) as u8).collect();
            let values: Vec<f32> = (0..16).map(|i| (i as f32 - 7.3) * 4031.7).collect();
            let halves: Vec<u8> =
                (0..16).flat_map(|i| f16::from_f32((i as f32 - 6.0) * 0.37).to_bits().to_le_bytes()).collect();
            let table: Vec<u8> = (0..32).map(|i| 255 - 7 * i).collect();
            let mut out = Vec::new();
            // SAFETY: `Isa::run` has the instruction set; all memory is as long as the operations read.
            unsafe {
                let mut push = |name, x: S::F| {
                    let mut lanes = vec![0.0; 16];
                    S::store(lanes.as_mut_ptr(), x);
                    out.push((name, lanes));
                };
                let mut quads = [0; 4];
                let sum = S::quads(S::load(values.as_ptr()), quads.as_mut_ptr());
                push("sum of factors", S::splat(sum as f32));
                let codes = S::codes(bytes.as_ptr());
                // Of codes without sign, with a quad.
                let dot = |start: i32, codes, quad: usize| {
                    let sum: i32 = values[4 * quad..][..4].iter().map(|x| x.round_ties_even() as i32).sum();
                    S::totals(S::dot(S::sums(start + S::OFF * sum), S::centered(codes), &quads[quad]))
                };
                push("dot", dot(-17, codes, 2));
                let field = |from, bits, to| dot(3, S::field(codes, from, bits, to), 0);
                push("low nibbles", field(0, 4, 0));
                push("high nibbles", field(4, 4, 0));
                push("two bits", field(4, 2, 0));
                push("a bit up", field(1, 1, 4));
                push("a bit down", field(7, 1, 2));
                let low = S::field(codes, 0, 4, 0);
                let index = S::or(low, S::grids::<15>(halves.as_ptr()));
                let looked = S::lookup(S::table(table.as_ptr()), index);
                push("lookup", dot(0, looked, 3));
                let index = S::or(low, S::splat_quad(0x1000_1000));
                let looked = S::lookup(S::table(table.as_ptr()), index);
                push("lookup by quad", dot(0, looked, 1));
                push("halves", S::halves(halves.as_ptr()));
                let looked = S::lookup(S::table(table.as_ptr()), S::or(low, S::grids::<5>(halves.as_ptr())));
                push("lookup by another bit", dot(0, looked, 3));
                let [first, second] = S::paired(halves.as_ptr());
                push("first scale", first);
                push("second scale", second);
                let mut weights = [0; 4];
                S::weights(S::abs(S::mul(S::load(values.as_ptr()), S::splat(0.9))), weights.as_mut_ptr());
                push("dot with signs", S::totals(S::dot_signed(S::sums(5), S::signed(codes), &weights[2])));
                push("e4m3", S::floats8(Float8::E4M3, bytes.as_ptr()));
                push("e5m2", S::floats8(Float8::E5M2, bytes.as_ptr()));
                push("small", S::small(bytes.as_ptr(), 4, 2));
                push("round", S::round(S::mul(S::load(values.as_ptr()), S::splat(1.5 / 4031.7))));
                let x = S::mul(S::load(values.as_ptr()), S::splat(1e-3));
                push("min", S::min(x, S::splat(0.5)));
                push("abs", S::abs(x));
                push("add above", S::add_above(x, S::abs(x), 7.0, 3.0));
                let y = S::mul(S::load(values.as_ptr()), S::splat(0.7));
                push("by cells", S::lookup_floats(&crate::grids::grids(4)[0].cells, S::abs(x)));
                for (name, bits) in [("codes of 2", 2), ("codes of 3", 3), ("codes of 4", 4)] {
                    let mut codes = [0u8; 16];
                    S::put_codes(&crate::grids::grids(bits)[1], x, 0.7, codes.as_mut_ptr());
                    push(name, S::small(codes.as_ptr(), 0, 8));
                }
                push("larger 8", S::fold_largest::<8>(x, y));
                push("larger 1", S::fold_largest::<1>(x, y));
                push("folded 8", S::fold::<8>(x, y));
                push("folded 4", S::fold::<4>(x, y));
                push("folded 2", S::fold::<2>(x, y));
                push("folded 1", S::fold::<1>(x, y));
                push("reversed", S::reversed(x));
                push("apart 1", S::butterfly::<0>(x));
                push("apart 2", S::butterfly::<1>(x));
                push("apart 4", S::butterfly::<2>(x));
                push("apart 8", S::butterfly::<3>(x));
                let mut stored = [0u8; 32];
                S::put_bytes(S::mul(S::abs(x), S::splat(2.5)), stored.as_mut_ptr());
                push("bytes", S::small(stored.as_ptr(), 0, 8));
                let mut fields = bytes.clone();
                S::put_fields(fields.as_mut_ptr(), bytes[9..].as_ptr(), 1, 4, 20);
                push("fields", dot(0, S::codes(fields.as_ptr()), 0));
                S::put_halves(S::mul(x, S::splat(1.0 / 3.0)), stored.as_mut_ptr());
                push("stored halves", S::halves(stored.as_ptr()));
                push("largest", S::splat(S::largest(S::load(values.as_ptr()))));
                push("sum", S::splat(S::sum(S::load(values.as_ptr()))));
                push("exp", exp::<S>(S::mul(S::load(values.as_ptr()), S::splat(-5e-4))));
                push("exp of -inf", exp::<S>(S::splat(f32::NEG_INFINITY)));
            }
            out
        }
    }

    #[test]
    fn instruction_sets_agree() {
        let expected = Isa::Portable.run(All);
        for isa in Isa::available() {
            for ((name, found), (_, expected)) in isa.run(All).into_iter().zip(&expected) {
                for (a, b) in found.iter().zip(expected) {
                    let near = (a - b).abs() <= 4e-7 * b.abs() || a.is_nan() && b.is_nan();
                    let exact = !matches!(name, "exp" | "sum");
                    assert!(
                        a == b || near && !exact || a.is_nan() && b.is_nan(),
                        "{} {name}: {found:?}, {expected:?}",
                        isa.name()
                    );
                }
            }
        }
    }

    #[test]
    fn what_the_processor_has_is_found() {
        let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
        println!("instruction sets: {names:?}");
        assert_eq!((Isa::best().name(), names.last()), (names[0], Some(&"portable")));
        #[cfg(target_arch = "aarch64")]
        match std::arch::is_aarch64_feature_detected!("dotprod") {
            true => assert_eq!(names, ["neondot", "neon", "portable"]),
            false => assert_eq!(names, ["neon", "portable"]),
        }
    }

    /// Products of the largest factors with the smallest and the largest codes, each as a multiple of its factor.
    #[test]
    fn the_largest_factors() {
        struct Largest;
        impl Op for Largest {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<S: Simd>(self) -> Vec<f32> {
                let mut quads = [0; 4];
                let mut out = Vec::new();
                // SAFETY: `Isa::run` has the instruction set; four quads are there.
                unsafe {
                    for code in [0, u32::MAX] {
                        let codes = S::splat_quad(code);
                        S::weights(S::splat(S::WEIGHT_MAX), quads.as_mut_ptr());
                        let sum = S::totals(S::dot_signed(S::sums(0), S::signed(codes), &quads[3]));
                        out.push(S::largest(sum) / S::WEIGHT_MAX);
                        for factor in [FACTOR_MAX, -FACTOR_MAX] {
                            let sum = S::quads(S::splat(factor), quads.as_mut_ptr());
                            assert_eq!(sum, 16 * factor as i32);
                            let start = S::sums(sum / 4 * S::OFF);
                            out.push(S::largest(S::totals(S::dot(start, S::centered(codes), &quads[2]))) / factor);
                        }
                    }
                }
                out
            }
        }
        for isa in Isa::available() {
            assert_eq!(isa.run(Largest), [-512.0, 0.0, 0.0, 508.0, 1020.0, 1020.0], "{}", isa.name());
        }
    }

    #[test]
    fn exp_is_the_exponential() {
        struct Exp(f32);
        impl Op for Exp {
            type Output = f32;
            #[inline(always)]
            fn run<S: Simd>(self) -> f32 {
                // SAFETY: `Isa::run` has the instruction set.
                unsafe { S::largest(exp::<S>(S::splat(self.0))) }
            }
        }
        for i in 0..8700 {
            let x = -i as f32 * 0.01;
            let exact = f64::from(x).exp();
            for isa in Isa::available() {
                let found = f64::from(isa.run(Exp(x)));
                assert!((found / exact - 1.0).abs() < 3e-7, "{} e^{x}: {found}, {exact}", isa.name());
            }
        }
    }
}
