//! How far a quantized tensor is from its source: normalized mean squared error, plain and weighted by importance.
//!
//! All sums are f64, so the figures of a tensor of billions of values do not depend on the order in which its rows come to more
//! than about 1e-12 of their size.

/// Two slices that should be the same length are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Source and approximation differ in length.
    #[error("source has {source_len} values, approximation has {approx_len}")]
    Length {
        /// Values of the source.
        source_len: usize,
        /// Values of the approximation.
        approx_len: usize,
    },
    /// The values are not whole rows of the importance vector's length.
    #[error("{len} values are not whole rows of {columns} columns")]
    Rows {
        /// Values given.
        len: usize,
        /// Length of the importance vector.
        columns: usize,
    },
}

/// Figures of one tensor, from [`ErrorAccumulator::finish`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorMetrics {
    /// Values compared.
    pub count: u64,
    /// `Σ (a - b)² / Σ a²`. Zero if nothing differs (also for an all-zero source), infinite if only the source is all zero.
    pub nmse: f64,
    /// `Σ w (a - b)² / Σ w a²` with the importance `w` of each value's column; `None` if no row came with importance.
    pub weighted_nmse: Option<f64>,
    /// `√(Σ (a - b)² / count)`, in the unit of the values; zero for an empty tensor.
    pub rmse: f64,
    /// The largest `|a - b|`, NaN if any difference is NaN.
    pub max_abs: f64,
}

/// Sums of a comparison that is fed piece by piece.
///
/// ```
/// use quant_core::error_metrics::ErrorAccumulator;
/// let mut e = ErrorAccumulator::new();
/// e.add(&[1.0, -2.0], &[1.0, -1.0])?;
/// let m = e.finish();
/// assert_eq!((m.nmse, m.max_abs), (0.2, 1.0));
/// # Ok::<(), quant_core::error_metrics::MetricsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorAccumulator {
    count: u64,
    source: f64,
    error: f64,
    weighted: Option<(f64, f64)>,
    max_abs: f64,
}

impl ErrorAccumulator {
    /// Nothing compared yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares `approx` with `source`, value by value.
    ///
    /// # Errors
    /// [`MetricsError::Length`] if the lengths differ; nothing is added then.
    pub fn add(&mut self, source: &[f32], approx: &[f32]) -> Result<(), MetricsError> {
        check_length(source, approx)?;
        self.add_plain(source, approx);
        Ok(())
    }

    /// As [`add`](Self::add) for whole rows of `importance.len()` columns, row-major; the weighted sums grow too.
    ///
    /// # Errors
    /// [`MetricsError::Length`] or [`MetricsError::Rows`]; nothing is added then.
    pub fn add_weighted(&mut self, source: &[f32], approx: &[f32], importance: &[f32]) -> Result<(), MetricsError> {
        check_length(source, approx)?;
        let columns = importance.len();
        if !source.is_empty() && (columns == 0 || !source.len().is_multiple_of(columns)) {
            return Err(MetricsError::Rows { len: source.len(), columns });
        }
        self.add_plain(source, approx);
        let (mut weighted_source, mut weighted_error) = self.weighted.unwrap_or_default();
        for (a, b) in source.chunks_exact(columns.max(1)).zip(approx.chunks_exact(columns.max(1))) {
            for ((&a, &b), &w) in a.iter().zip(b).zip(importance) {
                let (a, w, d) = (f64::from(a), f64::from(w), f64::from(a) - f64::from(b));
                weighted_source += w * a * a;
                weighted_error += w * d * d;
            }
        }
        self.weighted = Some((weighted_source, weighted_error));
        Ok(())
    }

    /// Adds the sums of another comparison, as if its rows had been fed here.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.source += other.source;
        self.error += other.error;
        self.max_abs = max_or_nan(self.max_abs, other.max_abs);
        if let Some((s, e)) = other.weighted {
            let w = self.weighted.get_or_insert_default();
            w.0 += s;
            w.1 += e;
        }
    }

    /// The figures of what was added so far.
    pub fn finish(&self) -> ErrorMetrics {
        ErrorMetrics {
            count: self.count,
            nmse: ratio(self.error, self.source),
            weighted_nmse: self.weighted.map(|(source, error)| ratio(error, source)),
            rmse: if self.count == 0 { 0.0 } else { (self.error / self.count as f64).sqrt() },
            max_abs: self.max_abs,
        }
    }

    fn add_plain(&mut self, source: &[f32], approx: &[f32]) {
        // Independent lanes let the compiler vectorize the f64 sums.
        const LANES: usize = 8;
        let (mut s, mut e, mut m) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        let mut lane = |i: usize, a: f32, b: f32| {
            let (a, d) = (f64::from(a), f64::from(a) - f64::from(b));
            s[i] += a * a;
            e[i] += d * d;
            m[i] = if d.abs() > m[i] { d.abs() } else { m[i] };
        };
        let (a_chunks, b_chunks) = (source.chunks_exact(LANES), approx.chunks_exact(LANES));
        let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
        for (a, b) in a_chunks.zip(b_chunks) {
            for i in 0..LANES {
                lane(i, a[i], b[i]);
            }
        }
        for (i, (&a, &b)) in tail.enumerate() {
            lane(i, a, b);
        }
        let error: f64 = e.iter().sum();
        self.count += source.len() as u64;
        self.source += s.iter().sum::<f64>();
        self.error += error;
        // A comparison with NaN is false, so the lanes above skip it; the sum of squares does not.
        let largest = m.iter().fold(0.0, |x: f64, &y| x.max(y));
        self.max_abs = max_or_nan(self.max_abs, if error.is_nan() { f64::NAN } else { largest });
    }
}

fn check_length(source: &[f32], approx: &[f32]) -> Result<(), MetricsError> {
    if source.len() == approx.len() {
        Ok(())
    } else {
        Err(MetricsError::Length { source_len: source.len(), approx_len: approx.len() })
    }
}

fn ratio(error: f64, source: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / source }
}

fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        struct Case {
            name: &'static str,
            source: &'static [f32],
            approx: &'static [f32],
            nmse: f64,
            rmse: f64,
            max_abs: f64,
        }
        let cases = [
            Case { name: "empty", source: &[], approx: &[], nmse: 0.0, rmse: 0.0, max_abs: 0.0 },
            Case { name: "equal", source: &[1.0, 2.0], approx: &[1.0, 2.0], nmse: 0.0, rmse: 0.0, max_abs: 0.0 },
            Case { name: "zeros", source: &[0.0, 0.0], approx: &[0.0, 0.0], nmse: 0.0, rmse: 0.0, max_abs: 0.0 },
            Case {
                name: "zero source",
                source: &[0.0, 0.0],
                approx: &[3.0, 4.0],
                nmse: f64::INFINITY,
                rmse: 12.5f64.sqrt(),
                max_abs: 4.0,
            },
            Case {
                name: "nine values: one past the lanes",
                source: &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0],
                approx: &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0],
                nmse: 9.0 / 12.0,
                rmse: 1.0,
                max_abs: 3.0,
            },
        ];
        for c in cases {
            let mut e = ErrorAccumulator::new();
            e.add(c.source, c.approx).unwrap();
            let m = e.finish();
            assert_eq!((m.nmse, m.rmse, m.max_abs, m.weighted_nmse), (c.nmse, c.rmse, c.max_abs, None), "{}", c.name);
        }
    }

    #[test]
    fn weights_belong_to_columns() {
        let mut e = ErrorAccumulator::new();
        e.add_weighted(&[1.0, 2.0, 3.0, 4.0], &[0.0, 2.0, 3.0, 2.0], &[10.0, 1.0]).unwrap();
        let m = e.finish();
        // errors 1 and 2: 10·1 + 1·4 over 10·(1 + 9) + 1·(4 + 16)
        assert_eq!(m.weighted_nmse, Some(14.0 / 120.0));
        assert_eq!(m.nmse, 5.0 / 30.0);
    }

    #[test]
    fn pieces_and_merging_equal_the_whole() {
        let a: Vec<f32> = (0..96).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = a.iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let w: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let mut whole = ErrorAccumulator::new();
        whole.add_weighted(&a, &b, &w).unwrap();
        let (mut first, mut second) = (ErrorAccumulator::new(), ErrorAccumulator::new());
        first.add_weighted(&a[..40], &b[..40], &w).unwrap();
        second.add_weighted(&a[40..], &b[40..], &w).unwrap();
        first.merge(&second);
        let (x, y) = (whole.finish(), first.finish());
        assert!((x.nmse - y.nmse).abs() < 1e-15);
        assert!((x.weighted_nmse.unwrap() - y.weighted_nmse.unwrap()).abs() < 1e-15);
        assert_eq!((x.count, x.max_abs), (y.count, y.max_abs));
    }

    #[test]
    fn wrong_lengths_add_nothing() {
        let mut e = ErrorAccumulator::new();
        assert_eq!(e.add(&[1.0], &[]), Err(MetricsError::Length { source_len: 1, approx_len: 0 }));
        assert_eq!(e.add_weighted(&[1.0; 3], &[1.0; 3], &[1.0; 2]), Err(MetricsError::Rows { len: 3, columns: 2 }));
        assert_eq!(e.add_weighted(&[1.0], &[1.0], &[]), Err(MetricsError::Rows { len: 1, columns: 0 }));
        assert_eq!(e, ErrorAccumulator::new());
    }

    #[test]
    fn nan_is_not_hidden() {
        let mut e = ErrorAccumulator::new();
        e.add(&[1.0, f32::NAN, 2.0], &[1.0, 0.0, 1.0]).unwrap();
        e.add(&[1.0], &[0.0]).unwrap();
        let m = e.finish();
        assert!(m.nmse.is_nan() && m.max_abs.is_nan() && m.rmse.is_nan());
    }
}
