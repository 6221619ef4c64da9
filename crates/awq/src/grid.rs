//! The affine integer grid of a group, `w = scale · (code − zero)`.

use half::f16;
use quant_core::affine::Bits;

/// Codes of 2 to 8 bits. Scales are rounded to f16 before anything is rounded with them; codes round to the nearest, ties to even. A group of zeros
/// gets a scale as if it reached from -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    max: f32,
    middle: f32,
    zero_point: bool,
}

/// Scale and zero point of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Params {
    /// An f16 value, not 0; infinite where the weights ask for more than f16 holds.
    pub(crate) scale: f32,
    /// A whole number from 0 to the largest code.
    pub(crate) zero: f32,
}

impl Params {
    /// The scale that is stored: times `gain`, an f16 again.
    #[inline(always)]
    pub(crate) fn with_gain(&self, gain: f32) -> f32 {
        if gain == 1.0 { self.scale } else { to_f16(self.scale * gain) }
    }
}

impl Grid {
    pub(crate) fn new(bits: Bits, zero_point: bool) -> Self {
        Self { max: f32::from(bits.max_code()), middle: f32::from(bits.middle()), zero_point }
    }

    /// `code − zero` of a weight, given as a number of steps.
    #[inline(always)]
    fn nearest(&self, zero: f32, steps: f32) -> f32 {
        (steps.round_ties_even() + zero).max(0.0).min(self.max) - zero
    }

    /// The code of a weight.
    #[inline(always)]
    pub(crate) fn code(&self, params: Params, weight: f32) -> u8 {
        (self.nearest(params.zero, weight / params.scale) + params.zero) as u8
    }

    /// `code − zero` of a weight.
    #[inline(always)]
    pub(crate) fn steps(&self, params: Params, weight: f32) -> f32 {
        self.nearest(params.zero, weight / params.scale)
    }

    /// The grid that just holds `low..=high`, where `low <= 0 <= high`. Without zero points the larger side of the range lies where the grid
    /// has a code more.
    #[inline(always)]
    pub(crate) fn spanning(&self, low: f32, high: f32) -> Params {
        let (low, high) = if low == 0.0 && high == 0.0 { (-1.0, 1.0) } else { (low, high) };
        if !self.zero_point {
            let largest = if -low > high { low } else { high };
            return Params { scale: to_f16(-largest / self.middle), zero: self.middle };
        }
        let scale = to_f16(high / self.max - low / self.max);
        Params { scale, zero: self.nearest(0.0, -low / scale) }
    }
}

/// Smallest and largest weight, and 0.
#[inline(always)]
pub(crate) fn range(weights: &[f32]) -> (f32, f32) {
    // Sixteen at a time, so that it vectorizes.
    const WIDE: usize = 16;
    let (mut lows, mut highs) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    let (chunks, rest) = weights.as_chunks::<WIDE>();
    for chunk in chunks {
        for lane in 0..WIDE {
            lows[lane] = if chunk[lane] < lows[lane] { chunk[lane] } else { lows[lane] };
            highs[lane] = if chunk[lane] > highs[lane] { chunk[lane] } else { highs[lane] };
        }
    }
    let low = lows.iter().chain(rest).fold(0.0f32, |a, &b| a.min(b));
    (low, highs.iter().chain(rest).fold(0.0f32, |a, &b| a.max(b)))
}

/// The nearest f16, but not 0: that would divide by it, and make all weights of the group 0.
#[inline(always)]
fn to_f16(scale: f32) -> f32 {
    let rounded = f16::from_f32(scale).to_f32();
    if rounded == 0.0 { f16::from_bits(1).to_f32().copysign(scale) } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(bits: u8, zero_point: bool) -> Grid {
        Grid::new(Bits::new(bits).unwrap(), zero_point)
    }

    #[test]
    fn grids_by_hand() {
        // bits, zero points, range, scale, zero, weight, code, value
        let cases = [
            (4, true, (-1.0, 2.75), 0.25, 4.0, 1.0, 8, 1.0),
            (4, true, (-1.0, 2.75), 0.25, 4.0, 9.0, 15, 2.75),
            (4, true, (0.0, 7.5), 0.5, 0.0, 0.75, 2, 1.0),
            (4, false, (-2.0, 1.0), 0.25, 8.0, -2.0, 0, -2.0),
            (4, false, (-1.0, 2.0), -0.25, 8.0, 2.0, 0, 2.0),
            (4, false, (-1.0, 2.0), -0.25, 8.0, -1.9, 15, -1.75),
            (2, true, (0.0, 0.0), 2.0 / 3.0, 2.0, 0.0, 2, 0.0),
            (8, true, (-1.0, 0.0), 1.0 / 255.0, 255.0, 0.0, 255, 0.0),
        ];
        for (bits, zero_point, (low, high), scale, zero, weight, code, value) in cases {
            let grid = grid(bits, zero_point);
            let params = grid.spanning(low, high);
            assert_eq!(params, Params { scale: f16::from_f32(scale).to_f32(), zero }, "{bits} {low} {high}");
            assert_eq!(
                (grid.code(params, weight), params.scale * grid.steps(params, weight)),
                (code, value),
                "{bits} {low} {high}"
            );
        }
    }

    #[test]
    fn scales_beyond_f16() {
        assert_eq!(grid(4, true).spanning(-1e7, 1e7).scale, f32::INFINITY);
        assert!(grid(4, true).spanning(-1e-12, 0.0).scale > 0.0);
        assert!(grid(4, false).spanning(-1e-12, 1e-11).scale < 0.0);
    }

    #[test]
    fn ranges_hold_zero() {
        let long: Vec<f32> = (0..37).map(|i| if i == 36 { -3.0 } else { i as f32 }).collect();
        for (weights, want) in
            [(&[1.0, 2.0][..], (0.0, 2.0)), (&[-1.0, -2.0], (-2.0, 0.0)), (&[], (0.0, 0.0)), (&long, (-3.0, 35.0))]
        {
            assert_eq!(range(weights), want);
        }
    }
}
