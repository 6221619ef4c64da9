//! 2, 3 and 4 bits: the levels of a normal variable or an even grid, and a fitted scale.
//!
//! For given codes the scale of least squared error is `sum x y / sum y^2` with the levels y, and it leaves the error `sum x^2 - (sum x y)^2 / sum y^2`.
//! So a few scales are tried on both grids, the codes that each gives are judged by what the best scale for *them* would leave, and the best scale of
//! the best codes is kept, in half precision; then the codes nearest to the values with that scale are written. An even grid is better for rows
//! that rotation left far from normal: those with few large values.

use super::{largest_of, total};
use crate::layout::even_step;
use crate::simd::Simd;
use half::f16;
use quant_core::lloyd_max::{lloyd_max_levels, lloyd_max_sigma};

/// Where tried scales come from.
#[derive(Clone, Copy)]
enum Try {
    /// The largest magnitude times this is the highest level.
    Largest(f32),
    /// The root mean square times this is what a level of 1 sigma stands for.
    MeanSquare(f32),
    /// On the even grid, the largest magnitude lies so many half steps above the highest level.
    Even(f32),
}

/// What is tried, by bits: of many, those few that bring the error within 2 % of what all would.
const fn tries<const BITS: usize>() -> &'static [Try] {
    match BITS {
        4 => &[Try::Largest(0.9), Try::Largest(1.0), Try::Even(0.0), Try::Even(0.7)],
        3 => &[Try::Largest(0.8), Try::Largest(0.9), Try::MeanSquare(1.0), Try::Even(0.0), Try::Even(0.7)],
        _ => &[Try::MeanSquare(0.9), Try::MeanSquare(1.0), Try::MeanSquare(1.1), Try::Even(0.0), Try::Even(0.8)],
    }
}

/// Levels above zero, and the borders between them.
struct Levels<const BITS: usize> {
    levels: [f32; 8],
    borders: [f32; 8],
}

impl<const BITS: usize> Levels<BITS> {
    const HALF: usize = 1 << (BITS - 1);
    const SIGMA: f32 = match lloyd_max_sigma(BITS as u8) {
        Some(sigma) => sigma,
        None => panic!("2 to 4 bits"),
    };
    const STEP: f32 = even_step(BITS as u8) as f32;

    /// In constants, so that the compiler unrolls the comparisons.
    const TABLE: Self = {
        let Some(levels) = lloyd_max_levels(BITS as u8) else { panic!("2 to 4 bits") };
        let mut table = Self { levels: [0.0; 8], borders: [0.0; 8] };
        let mut i = 0;
        while i < Self::HALF {
            table.levels[i] = levels[i] as f32;
            if i > 0 {
                table.borders[i] = (levels[i - 1] as f32 + levels[i] as f32) / 2.0;
            }
            i += 1;
        }
        table
    };

    /// The level nearest to each magnitude.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    unsafe fn level<S: Simd>(t: S::F, even: bool) -> S::F {
        // SAFETY: the caller's.
        unsafe {
            if even {
                let odd = S::add(S::mul(Self::index::<S>(t, true), S::splat(2.0)), S::splat(1.0));
                return S::mul(odd, S::splat(Self::STEP));
            }
            let mut level = S::splat(Self::TABLE.levels[0]);
            for i in 1..Self::HALF {
                let by = Self::TABLE.levels[i] - Self::TABLE.levels[i - 1];
                level = S::add_above(level, t, Self::TABLE.borders[i], by);
            }
            level
        }
    }

    /// Its index.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    unsafe fn index<S: Simd>(t: S::F, even: bool) -> S::F {
        // SAFETY: the caller's.
        unsafe {
            if even {
                let i = S::sub(S::mul(t, S::splat(0.5 / Self::STEP)), S::splat(0.5));
                return S::round(S::min(S::max(i, S::splat(0.0)), S::splat((Self::HALF - 1) as f32)));
            }
            let mut index = S::splat(0.0);
            for i in 1..Self::HALF {
                index = S::add_above(index, t, Self::TABLE.borders[i], 1.0);
            }
            index
        }
    }
}

/// Codes of whole 16s of finite values; gives the scale's bits, whose sign says that the grid is the even one. Zeros have the scale zero.
///
/// # Safety
/// The instruction set of S; as many codes as values.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd, const BITS: usize>(x: &[f32], codes: &mut [u8]) -> u16 {
    // SAFETY: the caller's.
    unsafe {
        let largest = largest_of::<S>(x);
        let mut squares = S::splat(0.0);
        if BITS < 4 {
            for v in x.as_chunks::<16>().0 {
                let v = S::load(v.as_ptr());
                squares = S::add(squares, S::mul(v, v));
            }
        }
        let root = (total::<S>(squares) / x.len() as f32).sqrt();
        let (mut best, mut scale, mut even) = (0.0, 0.0, false);
        for t in tries::<BITS>() {
            let top = (Levels::<BITS>::HALF * 2 - 1) as f32;
            let (inverse, on_even) = match *t {
                Try::Largest(f) => (127.0 / (largest * f), false),
                Try::MeanSquare(f) => (Levels::<BITS>::SIGMA / (root * f), false),
                Try::Even(steps) => ((top + steps) * Levels::<BITS>::STEP / largest, true),
            };
            let (xy, yy) = sums::<S, BITS>(x, inverse, on_even);
            let gain = xy * (xy / yy);
            if gain > best {
                (best, scale, even) = (gain, xy / yy, on_even);
            }
        }
        let scale = f16::from_f32(scale);
        let inverse = if scale.to_bits() == 0 { 0.0 } else { 1.0 / scale.to_f32() };
        write::<S, BITS>(x, inverse, codes, even);
        scale.to_bits() | u16::from(even && scale.to_bits() != 0) << 15
    }
}

/// `sum |x| y` and `sum y^2` with the levels y of the values times `inverse`.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn sums<S: Simd, const BITS: usize>(x: &[f32], inverse: f32, even: bool) -> (f32, f32) {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        let (mut xy, mut yy) = (S::splat(0.0), S::splat(0.0));
        for x in x.as_chunks::<16>().0 {
            let v = S::abs(S::load(x.as_ptr()));
            let y = Levels::<BITS>::level::<S>(S::mul(v, S::splat(inverse)), even);
            xy = S::add(xy, S::mul(v, y));
            yy = S::add(yy, S::mul(y, y));
        }
        (total::<S>(xy), total::<S>(yy))
    }
}

/// Codes, ascending from the lowest level: `half + index` for positive values, `half - 1 - index` for negative ones.
///
/// # Safety
/// The instruction set of S; as many codes as values.
#[inline(always)]
unsafe fn write<S: Simd, const BITS: usize>(x: &[f32], inverse: f32, codes: &mut [u8], even: bool) {
    let middle = (1 << (BITS - 1)) as f32 - 0.5;
    for (x, codes) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
        // SAFETY: the caller's; 16 values and 16 codes.
        unsafe {
            let x = S::load(x.as_ptr());
            let index = Levels::<BITS>::index::<S>(S::mul(S::abs(x), S::splat(inverse)), even);
            let from_middle = S::copysign(S::add(index, S::splat(0.5)), x);
            S::put_bytes(S::add(from_middle, S::splat(middle)), codes.as_mut_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::largest;
    use crate::layout::IntCode;
    use crate::simd::{Isa, Op};

    struct Encode<'a, const BITS: usize>(&'a [f32], &'a mut [u8]);

    impl<const BITS: usize> Op for Encode<'_, BITS> {
        type Output = u16;
        #[inline(always)]
        fn run<S: Simd>(self) -> u16 {
            // SAFETY: `Isa::run` has the instruction set.
            unsafe { encode::<S, BITS>(self.0, self.1) }
        }
    }

    /// The same by all instruction sets.
    fn encoded<const BITS: usize>(x: &[f32], codes: &mut [u8]) -> u16 {
        let scale = Isa::Portable.run(Encode::<BITS>(x, codes));
        for isa in Isa::available() {
            let mut others = vec![0; x.len()];
            assert_eq!(isa.run(Encode::<BITS>(x, &mut others)), scale, "{}", isa.name());
            assert_eq!(others, codes, "{}", isa.name());
        }
        scale
    }

    /// The error of `encode`, and that of the best of 400 scales on either grid.
    fn errors<const BITS: usize>(x: &[f32]) -> (f64, f64) {
        let table = IntCode::lloyd(BITS as u8, 64);
        let mut codes = vec![0; x.len()];
        let scale = encoded::<BITS>(x, &mut codes);
        let (size, even) = (f16::from_bits(scale & 0x7fff).to_f64(), scale >> 15 != 0);
        let found =
            x.iter().zip(&codes).map(|(&x, &c)| (f64::from(x) - size * f64::from(table.number(c, even))).powi(2)).sum();
        let mut best = f64::INFINITY;
        for even in [false, true] {
            for i in 1..400 {
                let size = f64::from(i) * f64::from(largest(x)) / 100.0 / 127.0;
                let error = |x: f32| {
                    let levels =
                        (0..1 << BITS).map(|c| (f64::from(x) - size * f64::from(table.number(c, even))).powi(2));
                    levels.fold(f64::INFINITY, f64::min)
                };
                best = best.min(x.iter().map(|&x| error(x)).sum());
            }
        }
        (found, best)
    }

    #[test]
    fn near_the_best_scale_and_grid() {
        // Near normal: sums of sines; few large values; all of one size.
        let wave = |i: usize| (0..6).map(|k| ((i * (7 * k + 3) + k) as f32 * 0.37).sin()).sum::<f32>();
        let rows: [Vec<f32>; 3] = [
            (0..64).map(wave).collect(),
            (0..64).map(|i| if i % 16 == 3 { 5.0 + wave(i) * 0.1 } else { wave(i) * 0.3 }).collect(),
            (0..64).map(|i| if i % 3 == 0 { 1.5 } else { -1.5 }).collect(),
        ];
        for (name, x) in ["near normal", "few large", "two values"].iter().zip(&rows) {
            for (bits, (found, best)) in [(2, errors::<2>(x)), (3, errors::<3>(x)), (4, errors::<4>(x))] {
                let power: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
                assert!(found <= best * 1.15 + power * 1e-5, "{name}, {bits} bits: {found}, best {best}");
            }
        }
        let mut codes = [0; 16];
        assert_eq!(encoded::<4>(&[0.0; 16], &mut codes), 0);
        assert_eq!(encoded::<4>(&[1e-9; 16], &mut codes), 0);
    }
}
