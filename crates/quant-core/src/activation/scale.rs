//! The grids, and the scale and zero point of one.

use crate::float8::Float8;

/// What activations are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationGrid {
    /// Whole numbers −128..=127.
    Int8 {
        /// The zero point is 0.
        symmetric: bool,
    },
    /// FP8 numbers of 4 bits of exponent and 3 of mantissa.
    E4M3,
}

/// A grid's step, and the code that stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationScale {
    /// Of one step. Positive, or NaN for values that are not finite.
    pub scale: f32,
    /// The code of 0; 0 unless the grid is asymmetric.
    pub zero: i8,
}

/// Rounds to the nearest, ties to even, numbers of magnitude below 2²²: by hand, as processors of the oldest kind have no instruction for it.
#[inline(always)]
fn round_ties_even(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (x + SHIFT) - SHIFT
}

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    // A NaN becomes `low`.
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

impl ActivationScale {
    /// Of values that are not finite: everything becomes NaN.
    pub const NAN: Self = Self { scale: f32::NAN, zero: 0 };

    /// The grid that spans a range, which is widened to hold 0.
    ///
    /// ```
    /// use quant_core::activation::{ActivationGrid, ActivationScale};
    /// let scale = ActivationScale::spanning(ActivationGrid::Int8 { symmetric: false }, -1.0, 1.55);
    /// assert_eq!((scale.scale, scale.zero), (0.01, -28));
    /// ```
    pub fn spanning(grid: ActivationGrid, low: f32, high: f32) -> Self {
        if !low.is_finite() || !high.is_finite() {
            return Self::NAN;
        }
        let (low, high) = (low.min(0.0), high.max(0.0));
        let largest = high.max(-low);
        let positive = |scale: f32| if scale == 0.0 { f32::EPSILON } else { scale };
        match grid {
            ActivationGrid::Int8 { symmetric: true } => Self { scale: positive(largest / 127.5), zero: 0 },
            ActivationGrid::E4M3 => Self { scale: positive(largest / Float8::E4M3.largest()), zero: 0 },
            ActivationGrid::Int8 { symmetric: false } => {
                let scale = (high - low) / 255.0;
                if !scale.is_finite() {
                    return Self::NAN;
                }
                // Of no range at all the quotient is 0 / 0, which the clamp makes −128: any zero point is right then, 0 is taken.
                let zero = if scale == 0.0 { 0.0 } else { clamp(-128.0 - low / scale, -128.0, 127.0) };
                Self { scale: positive(scale), zero: round_ties_even(zero) as i8 }
            }
        }
    }

    /// The integer code of a value. A NaN has none; -128 comes out.
    #[inline(always)]
    pub fn int8(self, x: f32) -> i8 {
        round_ties_even(clamp(x / self.scale + f32::from(self.zero), -128.0, 127.0)) as i8
    }

    /// The E4M3 code of a value. A NaN has none; the largest comes out.
    #[inline(always)]
    pub fn e4m3(self, x: f32) -> u8 {
        Float8::E4M3.encode(x / self.scale)
    }

    /// The value that the code of `x` stands for; NaN of a NaN.
    #[inline(always)]
    pub fn round(self, grid: ActivationGrid, x: f32) -> f32 {
        if x.is_nan() {
            return x;
        }
        match grid {
            ActivationGrid::Int8 { .. } => {
                let zero = f32::from(self.zero);
                let code = round_ties_even(clamp(x / self.scale + zero, -128.0, 127.0));
                (code - zero) * self.scale
            }
            ActivationGrid::E4M3 => Float8::E4M3.decode(self.e4m3(x)) * self.scale,
        }
    }
}
