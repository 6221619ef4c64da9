//! Activations as binary16, for the products of few tokens with weights that are floats.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows of activations times a power of two each, so that the largest magnitude is between 2^14 and 2^15: none overflows, and those down to 2^-28 of the
/// largest have all 11 bits.
#[derive(Debug, Default)]
pub(crate) struct HalfRows {
    cols: usize,
    values: Vec<f16>,
    units: Vec<f32>,
}

/// Of the largest magnitude.
const EXPONENT: i32 = 14;

impl HalfRows {
    /// Rounds `x`, `[tokens, cols]`, in the memory that there is. A value that is not finite stays so.
    pub(crate) fn fill(&mut self, x: &[f32], cols: usize) {
        self.cols = cols;
        self.values.resize(x.len(), f16::ZERO);
        self.units.clear();
        for (x, values) in x.chunks_exact(cols.max(1)).zip(self.values.chunks_exact_mut(cols.max(1))) {
            let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            // Such that the factor and its inverse are normal numbers; a zero or an infinity has an exponent beyond.
            let exponent = (largest.to_bits() >> 23) as i32 - 127;
            let shift = (EXPONENT - exponent).clamp(-113, 110);
            let factor = f32::from_bits(((127 + shift) as u32) << 23);
            let mut scaled = [0.0; 64];
            for (x, values) in x.chunks(scaled.len()).zip(values.chunks_mut(scaled.len())) {
                let scaled = &mut scaled[..x.len()];
                scaled.iter_mut().zip(x).for_each(|(scaled, x)| *scaled = x * factor);
                values.convert_from_f32_slice(scaled);
            }
            self.units.push(factor.recip());
        }
    }

    /// Rows from `first` on, little endian where the machine is, and their units.
    pub(crate) fn from(&self, first: usize) -> (&[f16], &[f32]) {
        (&self.values[first * self.cols..], &self.units[first..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_magnitudes() {
        for large in [1e-30f32, 3e-5, 0.7, 65536.0, 1e30, 3e38] {
            let x: Vec<f32> = (0..40).map(|i| large * (1.0 - 0.024 * i as f32)).collect();
            let mut rows = HalfRows::default();
            rows.fill(&x, 20);
            for (t, x) in x.chunks(20).enumerate() {
                let (values, units) = rows.from(t);
                for (x, h) in x.iter().zip(values) {
                    let back = f64::from(h.to_f32()) * f64::from(units[0]);
                    assert!((back - f64::from(*x)).abs() <= f64::from(*x) / 2048.0, "{x} {back}");
                }
            }
        }
        let mut rows = HalfRows::default();
        rows.fill(&[0.0, 0.0, f32::INFINITY, 1.0, f32::NAN, 1.0], 2);
        assert!(rows.from(0).0[0].to_f32() == 0.0 && !rows.from(1).0[0].is_finite() && rows.from(2).0[0].is_nan());
    }
}
