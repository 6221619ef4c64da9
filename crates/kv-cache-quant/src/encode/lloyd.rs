//! 2, 3 and 4 bits: the levels of a normal variable or an even grid, and a fitted scale.
//!
//! For given codes the scale of least squared error is `sum x y / sum y^2` with the levels y, and it leaves the error `sum x^2 - (sum x y)^2 / sum y^2`.
//! So a few scales are tried on both grids, the codes that each gives are judged by what the best scale for *them* would leave, and the best scale of
//! the best codes is kept, in half precision; then the codes nearest to the values with that scale are written. An even grid is better for rows
//! that rotation left far from normal: those with few large values.

use super::{largest_finite, totals};
use crate::layout::even_step;
use crate::simd::{Simd, Steps};
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
const fn tries<const BITS: usize, const TRIES: usize>() -> [Try; TRIES] {
    let all: &[Try] = match BITS {
        4 => &[Try::Largest(0.9), Try::Largest(1.0), Try::Even(0.0), Try::Even(0.7)],
        3 => &[Try::Largest(0.8), Try::Largest(0.9), Try::MeanSquare(1.0), Try::Even(0.0), Try::Even(0.7)],
        _ => &[Try::MeanSquare(0.9), Try::MeanSquare(1.0), Try::MeanSquare(1.1), Try::Even(0.0), Try::Even(0.8)],
    };
    match all.first_chunk() {
        Some(tries) if all.len() == TRIES => *tries,
        _ => panic!("4 bits have 4 tries, others 5"),
    }
}

/// The two grids, above zero.
struct Levels<const BITS: usize>;

impl<const BITS: usize> Levels<BITS> {
    const HALF: usize = 1 << (BITS - 1);
    const SIGMA: f32 = match lloyd_max_sigma(BITS as u8) {
        Some(sigma) => sigma,
        None => panic!("2 to 4 bits"),
    };
    /// Half a step of the even grid: a power of two.
    const STEP: f32 = even_step(BITS as u8) as f32;
    /// The level nearest to a magnitude, and its index.
    const NEAREST: Steps = Self::steps(false);
    const INDEX: Steps = Self::steps(true);

    const fn steps(indices: bool) -> Steps {
        let Some(levels) = lloyd_max_levels(BITS as u8) else { panic!("2 to 4 bits") };
        let (mut values, mut borders) = ([0.0; 8], [0.0; 8]);
        let mut i = 0;
        while i < Self::HALF {
            values[i] = if indices { i as f32 } else { levels[i] as f32 };
            if i > 0 {
                borders[i] = (levels[i - 1] as f32 + levels[i] as f32) / 2.0;
            }
            i += 1;
        }
        Steps::new(values, borders, Self::HALF)
    }

    /// The index on the even grid of each magnitude, given in its steps.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    unsafe fn even_index<S: Simd>(t: S::F) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::round(S::min(S::sub(t, S::splat(0.5)), S::splat((Self::HALF - 1) as f32))) }
    }
}

/// Codes of whole 16s of finite values; gives the scale's bits, whose sign says that the grid is the even one. Zeros have the scale zero.
///
/// # Safety
/// The instruction set of S; as many codes as values.
#[inline(always)]
pub(super) unsafe fn encode<S: Simd, const BITS: usize, const TRIES: usize>(x: &[f32], codes: &mut [u8]) -> u16 {
    // SAFETY: the caller's.
    unsafe {
        let largest = largest_finite::<S>(x);
        let (mut best, mut scale, mut even) = (0.0, 0.0, false);
        let root = if BITS < 4 { root_mean_square::<S>(x) } else { 0.0 };
        let top = (Levels::<BITS>::HALF * 2 - 1) as f32;
        // Loops, not closures: only what is inlined is compiled for the caller's instruction set.
        let mut inverse = [0.0; TRIES];
        for (inverse, t) in inverse.iter_mut().zip(const { tries::<BITS, TRIES>() }) {
            *inverse = match t {
                Try::Largest(f) => 127.0 / (largest * f),
                Try::MeanSquare(f) => Levels::<BITS>::SIGMA / (root * f),
                // In whole steps.
                Try::Even(steps) => (top + steps) * 0.5 / largest,
            };
        }
        let sums = sums::<S, BITS, TRIES>(x, &inverse);
        for (i, t) in const { tries::<BITS, TRIES>() }.iter().enumerate() {
            let (xy, yy) = (sums[i], sums[i + 8]);
            let gain = xy * (xy / yy);
            if gain > best {
                let on_even = matches!(t, Try::Even(_));
                let unit = if on_even { 2.0 * Levels::<BITS>::STEP } else { 1.0 };
                (best, scale, even) = (gain, xy / yy / unit, on_even);
            }
        }
        let scale = f16::from_f32(scale);
        let inverse = if scale.to_bits() == 0 { 0.0 } else { 1.0 / scale.to_f32() };
        write::<S, BITS>(x, inverse, codes, even);
        scale.to_bits() | u16::from(even && scale.to_bits() != 0) << 15
    }
}

/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn root_mean_square<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        let mut squares = S::splat(0.0);
        for v in x.as_chunks::<16>().0 {
            let v = S::load(v.as_ptr());
            squares = S::add(squares, S::mul(v, v));
        }
        (totals::<S, 1>(&[squares], &[squares])[0] / x.len() as f32).sqrt()
    }
}

/// For each try, whose factor is `inverse`: `sum |x| y` with the levels y of the values times that, on the even grid in its steps; from the eighth
/// on, `sum y^2`.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn sums<S: Simd, const BITS: usize, const TRIES: usize>(x: &[f32], inverse: &[f32; TRIES]) -> [f32; 16] {
    // SAFETY: the caller's; 16 values each.
    unsafe {
        let (mut xy, mut yy) = ([S::splat(0.0); TRIES], [S::splat(0.0); TRIES]);
        for i in 0..TRIES {
            for x in x.as_chunks::<16>().0 {
                let v = S::abs(S::load(x.as_ptr()));
                let t = S::mul(v, S::splat(inverse[i]));
                let y = match (const { tries::<BITS, TRIES>() })[i] {
                    Try::Even(_) => S::add(Levels::<BITS>::even_index::<S>(t), S::splat(0.5)),
                    _ => S::steps(const { &Levels::<BITS>::NEAREST }, t),
                };
                xy[i] = S::add(xy[i], S::mul(v, y));
                yy[i] = S::add(yy[i], S::mul(y, y));
            }
        }
        totals::<S, TRIES>(&xy, &yy)
    }
}

/// Codes, ascending from the lowest level: `half + index` for positive values, `half - 1 - index` for negative ones.
///
/// # Safety
/// The instruction set of S; as many codes as values.
#[inline(always)]
unsafe fn write<S: Simd, const BITS: usize>(x: &[f32], inverse: f32, codes: &mut [u8], even: bool) {
    let middle = (1 << (BITS - 1)) as f32 - 0.5;
    let inverse = if even { inverse * (0.5 / Levels::<BITS>::STEP) } else { inverse };
    for (x, codes) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0) {
        // SAFETY: the caller's; 16 values and 16 codes.
        unsafe {
            let x = S::load(x.as_ptr());
            let t = S::mul(S::abs(x), S::splat(inverse));
            let index = match even {
                true => Levels::<BITS>::even_index::<S>(t),
                false => S::steps(const { &Levels::<BITS>::INDEX }, t),
            };
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
            unsafe {
                match BITS {
                    4 => encode::<S, 4, 4>(self.0, self.1),
                    3 => encode::<S, 3, 5>(self.0, self.1),
                    _ => encode::<S, 2, 5>(self.0, self.1),
                }
            }
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
