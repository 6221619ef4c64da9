//! What a linear layer's inputs look like: the one calibration that serves every method.
//!
//! From the rows `x` that a layer reads during a calibration pass:
//! - `gram = Σ x xᵀ`. GPTQ's Hessian is `2/n · gram` (arXiv 2210.17323, section 3), AWQ's loss of a rounding `W'` is
//!   `tr((W − W') gram (W − W')ᵀ)`.
//! - `Σ x²`, its diagonal. Divided by `n` it is llama.cpp's importance matrix.
//! - `mean |x|`: AWQ's salience (arXiv 2306.00978, section 3.2).
//! - `max |x|`: the per-channel maximum of SmoothQuant (arXiv 2211.10438).
//!
//! **Precision.** The diagonal and the sums are f64. The Gram matrix is f32 and holds only its upper triangle: at 4,864 columns that is
//! 47 MB instead of the 189 MB of an f64 square, for each of 24 layers. Products are summed in f32 over 256 rows at a time; the
//! error of an element relative to the two diagonal elements it belongs to stays around 1e-6, four orders below the damping
//! (1 % of the mean diagonal) that GPTQ adds before it factors the matrix, and the reference implementation sums in f32 throughout.

use crate::UpperTriangle;
use crate::syrk::add_gram;
use rayon::prelude::*;

/// Input that statistics cannot be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// The rows are of another width than the statistics.
    #[error("rows of {expected} columns expected, found {found}")]
    Columns {
        /// Columns of the statistics.
        expected: usize,
        /// Columns given.
        found: usize,
    },
    /// The slice is not `rows · cols` long.
    #[error("{expected} values expected for {rows} rows, found {found}")]
    Length {
        /// Rows announced.
        rows: usize,
        /// Values they need.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error("input column {column} is not finite in row {row}")]
    NonFinite {
        /// Row within the slice given.
        row: usize,
        /// Column.
        column: usize,
    },
    /// One of two statistics to be merged has a Gram matrix and the other has none.
    #[error("statistics with a Gram matrix cannot be merged with statistics without one")]
    Detail,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detail {
    /// Sums per column: enough for an importance matrix; 20 bytes a column.
    Diagonal,
    /// The Gram matrix too: `2 n (n + 1)` bytes for `n` columns.
    Gram,
}

impl Detail {
    /// Bytes that the statistics of `columns` columns take.
    pub fn bytes(self, columns: usize) -> u64 {
        let n = columns as u64;
        let sums = 20 * n;
        match self {
            Self::Diagonal => sums,
            Self::Gram => sums.saturating_add(n.saturating_mul(n + 1).saturating_mul(2)),
        }
    }
}

/// Sums over the input rows of one linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStats {
    count: u64,
    sum_squares: Vec<f64>,
    abs_sum: Vec<f64>,
    abs_max: Vec<f32>,
    gram: Option<UpperTriangle>,
}

/// The parts of [`InputStats`], as a file stores them.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStatsParts {
    /// Rows seen.
    pub count: u64,
    /// `Σ x²` per column.
    pub sum_squares: Vec<f64>,
    /// `Σ |x|` per column.
    pub abs_sum: Vec<f64>,
    /// `max |x|` per column.
    pub abs_max: Vec<f32>,
    /// `Σ x xᵀ`.
    pub gram: Option<UpperTriangle>,
}

impl InputStats {
    /// No rows seen, of a layer with `columns` input features.
    pub fn new(columns: usize, detail: Detail) -> Self {
        Self {
            count: 0,
            sum_squares: vec![0.0; columns],
            abs_sum: vec![0.0; columns],
            abs_max: vec![0.0; columns],
            gram: (detail == Detail::Gram).then(|| UpperTriangle::zeros(columns)),
        }
    }

    /// Puts stored parts together again.
    ///
    /// # Errors
    /// [`StatsError::Columns`] if the parts are of different widths, [`StatsError::NonFinite`] for a value that no sum of finite rows
    /// gives (NaN, infinite; in `row` 0).
    pub fn from_parts(parts: InputStatsParts) -> Result<Self, StatsError> {
        let InputStatsParts { count, sum_squares, abs_sum, abs_max, gram } = parts;
        let expected = sum_squares.len();
        for found in [abs_sum.len(), abs_max.len(), gram.as_ref().map_or(expected, UpperTriangle::dim)] {
            if found != expected {
                return Err(StatsError::Columns { expected, found });
            }
        }
        let finite = sum_squares.iter().zip(&abs_sum).zip(&abs_max).map(|((a, b), c)| a + b + f64::from(*c));
        if let Some(column) = finite.into_iter().position(|v| !v.is_finite()) {
            return Err(StatsError::NonFinite { row: 0, column });
        }
        if let Some(at) = gram.as_ref().and_then(|g| g.packed().iter().position(|v| !v.is_finite())) {
            return Err(StatsError::NonFinite { row: 0, column: at % expected.max(1) });
        }
        Ok(Self { count, sum_squares, abs_sum, abs_max, gram })
    }

    /// Adds `rows` rows of `cols` values, row-major.
    ///
    /// # Errors
    /// [`StatsError::Columns`], [`StatsError::Length`], or [`StatsError::NonFinite`]; nothing is added then.
    pub fn add(&mut self, x: &[f32], rows: usize, cols: usize) -> Result<(), StatsError> {
        let expected = self.columns();
        if cols != expected {
            return Err(StatsError::Columns { expected, found: cols });
        }
        if rows.checked_mul(cols) != Some(x.len()) {
            return Err(StatsError::Length { rows, expected: rows.saturating_mul(cols), found: x.len() });
        }
        if cols == 0 {
            self.count += rows as u64;
            return Ok(());
        }
        // Without its sign a value that is not finite has the bits of infinity or more. A maximum vectorizes; looking for the place would not.
        let largest = |x: &[f32]| x.iter().fold(0, |max, v| max.max(v.to_bits() as i32 & i32::MAX));
        if x.par_chunks(1 << 14).map(largest).max().is_some_and(|bits| bits >= f32::INFINITY.to_bits() as i32) {
            let at = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
            return Err(StatsError::NonFinite { row: at / cols, column: at % cols });
        }
        // Threads share the columns, so each sum is in row order whatever their number.
        const SHARE: usize = 256;
        let sums = self.sum_squares.par_chunks_mut(SHARE).zip(self.abs_sum.par_chunks_mut(SHARE));
        let sums = sums.zip(self.abs_max.par_chunks_mut(SHARE)).enumerate();
        sums.for_each(|(share, ((squares, abs_sums), maxima))| {
            for row in x.chunks_exact(cols) {
                let sums = squares.iter_mut().zip(abs_sums.iter_mut()).zip(maxima.iter_mut());
                for (((square, abs), max), &v) in sums.zip(&row[share * SHARE..]) {
                    let a = v.abs();
                    *square += f64::from(a) * f64::from(a);
                    *abs += f64::from(a);
                    *max = if a > *max { a } else { *max };
                }
            }
        });
        if let Some(gram) = &mut self.gram {
            add_gram(gram, x);
            // The f64 sums are the better diagonal.
            gram.set_diagonal(self.sum_squares.iter().map(|&v| v as f32));
        }
        self.count += rows as u64;
        Ok(())
    }

    /// Adds the sums of other statistics of the same input.
    ///
    /// # Errors
    /// [`StatsError::Columns`] or [`StatsError::Detail`]; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        let expected = self.columns();
        if other.columns() != expected {
            return Err(StatsError::Columns { expected, found: other.columns() });
        }
        match (&mut self.gram, &other.gram) {
            (None, None) => {}
            (Some(a), Some(b)) => a.add(b),
            _ => return Err(StatsError::Detail),
        }
        self.count += other.count;
        self.sum_squares.iter_mut().zip(&other.sum_squares).for_each(|(a, b)| *a += b);
        self.abs_sum.iter_mut().zip(&other.abs_sum).for_each(|(a, b)| *a += b);
        self.abs_max.iter_mut().zip(&other.abs_max).for_each(|(a, b)| *a = a.max(*b));
        if let Some(gram) = &mut self.gram {
            gram.set_diagonal(self.sum_squares.iter().map(|&v| v as f32));
        }
        Ok(())
    }

    /// Of the same rows, each value divided by its column's scale.
    ///
    /// # Errors
    /// [`StatsError::Columns`] for another number of scales; [`StatsError::NonFinite`] (in `row` 0) where a quotient is not finite, as by a scale of 0.
    pub fn divided_by(&self, scales: &[f32]) -> Result<Self, StatsError> {
        if scales.len() != self.columns() {
            return Err(StatsError::Columns { expected: self.columns(), found: scales.len() });
        }
        let inverse: Vec<f64> = scales.iter().map(|&s| 1.0 / f64::from(s)).collect();
        let mut gram = self.gram.clone();
        if let Some(gram) = &mut gram {
            gram.scale(&inverse);
        }
        let parts = InputStatsParts {
            count: self.count,
            sum_squares: self.sum_squares.iter().zip(&inverse).map(|(v, i)| v * i * i).collect(),
            abs_sum: self.abs_sum.iter().zip(&inverse).map(|(v, i)| v * i.abs()).collect(),
            abs_max: self.abs_max.iter().zip(&inverse).map(|(v, i)| (f64::from(*v) * i.abs()) as f32).collect(),
            gram,
        };
        Self::from_parts(parts)
    }

    /// The sums per column alone.
    pub fn without_gram(self) -> Self {
        Self { gram: None, ..self }
    }

    /// Input features.
    pub fn columns(&self) -> usize {
        self.sum_squares.len()
    }

    /// Rows seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// `Σ x²` per column.
    pub fn sum_squares(&self) -> &[f64] {
        &self.sum_squares
    }

    /// `Σ |x|` per column.
    pub fn abs_sum(&self) -> &[f64] {
        &self.abs_sum
    }

    /// `mean |x|` per column; zeros before the first row.
    pub fn abs_mean(&self) -> Vec<f32> {
        self.per_row(&self.abs_sum)
    }

    /// `max |x|` per column.
    pub fn abs_max(&self) -> &[f32] {
        &self.abs_max
    }

    /// `mean x²` per column, the weights that llama.cpp quantizes with; zeros before the first row.
    pub fn importance(&self) -> Vec<f32> {
        self.per_row(&self.sum_squares)
    }

    /// `Σ x xᵀ`, if it was kept.
    pub fn gram(&self) -> Option<&UpperTriangle> {
        self.gram.as_ref()
    }

    /// GPTQ's Hessian `2/n · gram`, `[columns, columns]`; `None` if the Gram matrix was not kept or no row was seen.
    pub fn hessian(&self) -> Option<Vec<f32>> {
        let gram = self.gram.as_ref().filter(|_| self.count > 0)?;
        Some(gram.to_square_scaled((2.0 / self.count as f64) as f32))
    }

    fn per_row(&self, sums: &[f64]) -> Vec<f32> {
        let n = self.count.max(1) as f64;
        sums.iter().map(|&v| (v / n) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(detail: Detail, x: &[f32], cols: usize) -> InputStats {
        let mut s = InputStats::new(cols, detail);
        s.add(x, x.len() / cols, cols).unwrap();
        s
    }

    #[test]
    fn sums_by_hand() {
        let s = stats(Detail::Gram, &[1.0, -2.0, 3.0, 4.0], 2);
        assert_eq!((s.count(), s.columns()), (2, 2));
        assert_eq!(s.sum_squares(), [10.0, 20.0]);
        assert_eq!(s.importance(), [5.0, 10.0]);
        assert_eq!(s.abs_mean(), [2.0, 3.0]);
        assert_eq!(s.abs_max(), [3.0, 4.0]);
        assert_eq!(s.gram().unwrap().packed(), [10.0, 10.0, 20.0]);
        assert_eq!(s.hessian().unwrap(), [10.0, 10.0, 10.0, 20.0]);
    }

    #[test]
    fn merging_equals_seeing_all_rows() {
        let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).cos()).collect();
        for detail in [Detail::Diagonal, Detail::Gram] {
            let whole = stats(detail, &x, 6);
            let mut first = stats(detail, &x[..24], 6);
            first.merge(&stats(detail, &x[24..], 6)).unwrap();
            assert_eq!(whole.count(), first.count());
            assert_eq!(whole.abs_max(), first.abs_max());
            for (a, b) in whole.importance().iter().zip(first.importance()) {
                assert!((a - b).abs() < 1e-6);
            }
            if let (Some(a), Some(b)) = (whole.gram(), first.gram()) {
                assert!(a.packed().iter().zip(b.packed()).all(|(a, b)| (a - b).abs() < 1e-4));
            }
        }
    }

    #[test]
    fn bad_input_names_its_place_and_adds_nothing() {
        let mut s = InputStats::new(3, Detail::Gram);
        let empty = s.clone();
        let cases: [(&[f32], usize, usize, StatsError); 5] = [
            (&[1.0; 4], 2, 2, StatsError::Columns { expected: 3, found: 2 }),
            (&[1.0; 5], 2, 3, StatsError::Length { rows: 2, expected: 6, found: 5 }),
            (&[1.0; 3], usize::MAX, 3, StatsError::Length { rows: usize::MAX, expected: usize::MAX, found: 3 }),
            (&[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0], 2, 3, StatsError::NonFinite { row: 1, column: 1 }),
            (&[1.0, 2.0, f32::NEG_INFINITY], 1, 3, StatsError::NonFinite { row: 0, column: 2 }),
        ];
        for (x, rows, cols, error) in cases {
            assert_eq!(s.add(x, rows, cols), Err(error));
            assert_eq!(s, empty);
        }
        assert_eq!(s.merge(&InputStats::new(3, Detail::Diagonal)), Err(StatsError::Detail));
        assert_eq!(s.merge(&InputStats::new(4, Detail::Gram)), Err(StatsError::Columns { expected: 3, found: 4 }));
    }

    #[test]
    fn stored_parts_are_checked() {
        let parts = InputStatsParts {
            count: 1,
            sum_squares: vec![1.0, 4.0],
            abs_sum: vec![1.0, 2.0],
            abs_max: vec![1.0, 2.0],
            gram: UpperTriangle::from_packed(2, vec![1.0, 2.0, 4.0]),
        };
        assert_eq!(InputStats::from_parts(parts.clone()).unwrap(), stats(Detail::Gram, &[1.0, 2.0], 2));
        let short = InputStatsParts { abs_max: vec![1.0], ..parts.clone() };
        assert_eq!(InputStats::from_parts(short), Err(StatsError::Columns { expected: 2, found: 1 }));
        let nan = InputStatsParts { abs_sum: vec![1.0, f64::NAN], ..parts };
        assert_eq!(InputStats::from_parts(nan), Err(StatsError::NonFinite { row: 0, column: 1 }));
    }

    #[test]
    fn memory_is_told_beforehand() {
        assert_eq!(Detail::Diagonal.bytes(100), 2000);
        assert_eq!(Detail::Gram.bytes(100), 2000 + 4 * UpperTriangle::packed_len(100) as u64);
    }
}
