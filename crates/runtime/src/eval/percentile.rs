//! Percentiles by linear interpolation.

/// The `fraction` quantile (0.5 is the median) of values sorted ascending: linear interpolation between the two closest ranks, the
/// value at rank `fraction · (n − 1)` counted from zero. This is numpy's default and llama-perplexity's. NaN for no values.
///
/// ```
/// # use quant_runtime::eval::percentile;
/// assert_eq!(percentile(&[1.0, 2.0, 3.0, 10.0], 0.5), 2.5);
/// ```
pub fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let rank = fraction.clamp(0.0, 1.0) * last as f64;
    let below = (rank.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let (a, b) = (sorted[below], sorted[above]);
    a + (b - a) * (rank - below as f64)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn equals_numpy() {
        // numpy 2: np.percentile(v, [0, 10, 50, 90, 99, 99.9, 100])
        let v = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
        let want = [0.5, 0.75, 3.0, 12.0, 15.6, 15.96, 16.0];
        for (f, w) in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0].into_iter().zip(want) {
            assert!((percentile(&v, f) - w).abs() < 1e-9, "{f}");
        }
        assert_eq!(percentile(&[7.0], 0.9), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
