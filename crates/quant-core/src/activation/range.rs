//! A range fixed on calibration text, for static scales.

use super::{ActivationGrid, ActivationScale};

/// How much of what was seen a static grid spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RangeMethod {
    /// All of it.
    Max,
    /// All but a part: of a percentage `p` of 0 to 100, `100 − p` percent of the values saturate. A symmetric grid cuts the largest magnitudes, an
    /// asymmetric one half as many at either end.
    Percentile(f64),
    /// What makes the mean squared error of the rounded values least, to about 1 %: the range is shrunk by factors from 1 to 2⁻¹⁰ that are an eighth of
    /// an octave apart, then a 32nd around the best; then, of an asymmetric grid, each end by itself.
    Mse,
}

/// Counts of the values that were seen, by their first 16 bits (sign, exponent, 7 bits of mantissa): fine enough for any range, whatever comes later.
///
/// The order in which values are added, and in what portions, does not matter.
///
/// ```
/// use quant_core::activation::{ActivationGrid, RangeMethod, ValueRange};
/// let mut range = ValueRange::new();
/// range.add(&[0.5; 9999]).unwrap();
/// range.add(&[-100.0]).unwrap();
/// let scale = |method| range.scale(ActivationGrid::Int8 { symmetric: true }, method).scale;
/// assert_eq!(scale(RangeMethod::Max), 100.0 / 127.5);
/// assert!(scale(RangeMethod::Percentile(99.9)) < 0.51 / 127.5);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueRange {
    low: f32,
    high: f32,
    /// Of each sign, by the bits below it; empty until the first value.
    counts: Vec<[u64; 2]>,
}

const BINS: usize = 1 << 15;
/// Points of a bin at which the error of rounding is looked at.
const POINTS: u32 = 4;
const SHARES: i32 = 80;

impl ValueRange {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds values.
    ///
    /// # Errors
    /// The index and the value of the first that is not finite; nothing is added then.
    pub fn add(&mut self, values: &[f32]) -> Result<(), (usize, f32)> {
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err((at, values[at]));
        }
        if self.counts.is_empty() {
            self.counts.resize(BINS, [0; 2]);
        }
        for &value in values {
            let bits = value.to_bits();
            // 15 bits, and the sign.
            self.counts[(bits >> 16) as usize % BINS][(bits >> 31) as usize] += 1;
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
        Ok(())
    }

    /// Values seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|[positive, negative]| positive + negative).sum()
    }

    /// The least value, at most 0.
    pub fn low(&self) -> f32 {
        self.low
    }

    /// The largest value, at least 0.
    pub fn high(&self) -> f32 {
        self.high
    }

    /// The grid for what was seen.
    pub fn scale(&self, grid: ActivationGrid, method: RangeMethod) -> ActivationScale {
        let (low, high) = match (grid, method) {
            (_, RangeMethod::Max) => (self.low, self.high),
            (ActivationGrid::Int8 { symmetric: false }, RangeMethod::Percentile(p)) => {
                let cut = self.cut(p) / 2.0;
                (-self.end(cut, |[_, negative]| negative), self.end(cut, |[positive, _]| positive))
            }
            (_, RangeMethod::Percentile(p)) => {
                let end = self.end(self.cut(p), |[positive, negative]| positive + negative);
                (self.low.max(-end), self.high.min(end))
            }
            (_, RangeMethod::Mse) => self.least_error(grid),
        };
        ActivationScale::spanning(grid, low.max(self.low), high.min(self.high))
    }

    /// How many values a percentile leaves out.
    fn cut(&self, percentile: f64) -> f64 {
        (1.0 - percentile.clamp(0.0, 100.0) / 100.0) * self.count() as f64
    }

    /// The magnitude that at most `cut` of the counted values exceed: the end of a bin.
    fn end(&self, cut: f64, counted: impl Fn([u64; 2]) -> u64) -> f32 {
        let mut beyond = 0.0;
        for (bin, &counts) in self.counts.iter().enumerate().rev() {
            beyond += counted(counts) as f64;
            if beyond > cut {
                return f32::from_bits(((bin as u32) << 16) | 0xffff);
            }
        }
        0.0
    }

    fn least_error(&self, grid: ActivationGrid) -> (f32, f32) {
        let filled: Vec<(f32, f64)> = self.points();
        let error = |low: f32, high: f32| -> f64 {
            let scale = ActivationScale::spanning(grid, low, high);
            filled.iter().map(|&(x, count)| count * f64::from(scale.round(grid, x) - x).powi(2)).sum()
        };
        let mut best = (f64::INFINITY, self.low, self.high);
        let mut try_all = |shrink: &dyn Fn(f32, f32, f32) -> (f32, f32)| {
            for (steps, each) in [(0..=SHARES, -1.0 / 8.0), (-3..=3, 1.0 / 32.0)] {
                let (_, low, high) = best;
                for step in steps {
                    let (low, high) = shrink(low, high, 2f32.powf(step as f32 * each));
                    let error = error(low, high);
                    if error < best.0 {
                        best = (error, low, high);
                    }
                }
            }
        };
        try_all(&|low, high, share| (low * share, high * share));
        if grid == (ActivationGrid::Int8 { symmetric: false }) {
            try_all(&|low, high, share| (low * share, high));
            try_all(&|low, high, share| (low, high * share));
        }
        (best.1, best.2)
    }

    /// Values spread over each bin, and how many each stands for.
    fn points(&self) -> Vec<(f32, f64)> {
        let mut points = Vec::new();
        for (bin, counts) in self.counts.iter().enumerate() {
            for (&count, sign) in counts.iter().zip([1.0, -1.0]) {
                if count > 0 {
                    let point = |i| f32::from_bits(((bin as u32) << 16) | ((2 * i + 1) * (0x8000 / POINTS)));
                    let share = count as f64 / f64::from(POINTS);
                    points.extend((0..POINTS).map(|i| ((sign * point(i)).clamp(self.low, self.high), share)));
                }
            }
        }
        points
    }
}
