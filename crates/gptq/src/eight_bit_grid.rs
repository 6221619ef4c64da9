//! Grids of one byte a weight with an f32 scale per row, as [`GroupCodec`]: what W8A8 models hold.

use crate::codec::GroupCodec;
use crate::{Options, ScaleSearch};
use quant_core::eight_bit::EightBitCode;
use quant_core::float8::Float8;

/// Whole numbers −128..=127 or E4M3 numbers, times a positive f32 scale. Codes round to the nearest, ties to even, and saturate.
///
/// Scales are tried by the weights' squared error, weighted as [`ScaleSearch`] says: of whole numbers those that span 100 % of the range down to 85 %, and
/// the best of them refined; of E4M3 those that put the largest weight at each of the numbers 240 to 448 (a step lower is an octave less, where all is the
/// same but the small numbers). A group of zeros gets the scale 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EightBitGrid {
    code: EightBitCode,
    search: ScaleSearch,
}

/// Shares of the range that are tried.
const SHARES: u8 = 16;
const LEAST_SHARE: f32 = 0.85;
/// Where the largest weight may lie, of E4M3.
const LARGEST: [f32; 8] = [448.0, 416.0, 384.0, 352.0, 320.0, 288.0, 256.0, 240.0];
/// Scales beside the fitted one that are tried with error feedback.
const STEPS: [f32; 4] = [0.98, 0.99, 1.01, 1.02];

impl EightBitGrid {
    /// The grid of a kind of code; of `options` the search counts.
    pub fn new(code: EightBitCode, options: &Options) -> Self {
        Self { code, search: options.search }
    }

    #[inline(always)]
    fn number(&self, steps: f32) -> f32 {
        match self.code {
            EightBitCode::Int8 => steps.round_ties_even().clamp(-128.0, 127.0),
            EightBitCode::E4M3 => float(Float8::E4M3.encode(steps)),
        }
    }

    #[inline(always)]
    fn error(&self, scale: f32, weights: &[f32], importance: &[f32]) -> f32 {
        let inverse = 1.0 / scale;
        let mut parts = [0.0f32; 16];
        for (weights, importance) in weights.chunks(16).zip(importance.chunks(16)) {
            for ((part, &weight), &importance) in parts.iter_mut().zip(weights).zip(importance) {
                let error = weight - scale * self.number(weight * inverse);
                *part += importance * error * error;
            }
        }
        parts.iter().sum()
    }

    /// The best scale for the codes that `scale` gives.
    fn refined(&self, scale: f32, weights: &[f32], importance: &[f32]) -> f32 {
        let (mut cross, mut square) = (0.0f64, 0.0f64);
        for (&weight, &importance) in weights.iter().zip(importance) {
            let number = f64::from(self.number(weight / scale));
            cross += f64::from(importance) * number * f64::from(weight);
            square += f64::from(importance) * number * number;
        }
        let refined = (cross / square) as f32;
        if refined.is_finite() && refined > 0.0 { refined } else { scale }
    }
}

/// The number of a code that is none of NaN's: by its bits, which vectorizes.
#[inline(always)]
fn float(code: u8) -> f32 {
    // 2^(127 - 7): the biases of the exponents differ.
    const FACTOR: f32 = f32::from_bits((127 + 120) << 23);
    f32::from_bits((u32::from(code & 0x80) << 24) | (u32::from(code & 0x7f) << 20)) * FACTOR
}

impl GroupCodec for EightBitGrid {
    /// The scale.
    type Params = f32;

    #[inline(always)]
    fn fit(&self, weights: &[f32], importance: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let whole = match self.code {
            EightBitCode::Int8 => largest / 127.5,
            EightBitCode::E4M3 => largest / 448.0,
        };
        // Of weights so small that a scale is no f32, or none that can be divided by.
        if whole < f32::MIN_POSITIVE {
            return if largest == 0.0 { 1.0 } else { f32::MIN_POSITIVE };
        }
        if self.search == ScaleSearch::MinMax {
            return whole;
        }
        // Only the search by the Hessian knows columns of more and of less importance.
        let alike;
        let importance = if self.search == ScaleSearch::Hessian {
            importance
        } else {
            alike = vec![1.0; weights.len()];
            &alike
        };
        let mut best = (f32::INFINITY, whole);
        let mut judge = |scale: f32| {
            let error = self.error(scale, weights, importance);
            if error < best.0 {
                best = (error, scale);
            }
            best.1
        };
        match self.code {
            EightBitCode::E4M3 => LARGEST.iter().for_each(|number| {
                judge(largest / number);
            }),
            EightBitCode::Int8 => {
                let mut scale = whole;
                for share in 0..SHARES {
                    scale = judge(whole * (1.0 - (1.0 - LEAST_SHARE) * f32::from(share) / f32::from(SHARES)));
                }
                for _ in 0..2 {
                    scale = judge(self.refined(scale, weights, importance));
                }
            }
        }
        best.1
    }

    fn variants(&self) -> usize {
        match (self.search, self.code) {
            (ScaleSearch::Hessian, EightBitCode::Int8) => STEPS.len(),
            _ => 0,
        }
    }

    #[inline(always)]
    fn variant(&self, fitted: &f32, index: usize) -> f32 {
        fitted * STEPS.get(index).copied().unwrap_or(1.0)
    }

    #[inline(always)]
    fn round(&self, scale: &f32, _slot: usize, weight: f32) -> (u8, f32) {
        match self.code {
            EightBitCode::Int8 => {
                let number = self.number(weight / scale);
                (number as i32 as i8 as u8, scale * number)
            }
            EightBitCode::E4M3 => {
                let code = Float8::E4M3.encode(weight / scale);
                (code, scale * float(code))
            }
        }
    }

    #[inline(always)]
    fn value(&self, scale: &f32, _slot: usize, code: u8) -> f32 {
        match self.code {
            EightBitCode::Int8 => scale * f32::from(code as i8),
            EightBitCode::E4M3 => scale * float(code),
        }
    }

    #[inline(always)]
    fn rescaled(&self, scale: &f32, factor: f32) -> f32 {
        scale * factor
    }
}
