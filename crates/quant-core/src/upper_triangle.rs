//! A symmetric matrix kept as its upper triangle.

/// The upper triangle of a symmetric `[n, n]` matrix, row-major and packed: row `i` holds the columns `i..n`.
///
/// Half the memory of the square, which decides whether the Gram matrices of a whole model fit: 4,864 columns take 47 MB here.
#[derive(Clone, Debug, PartialEq)]
pub struct UpperTriangle {
    n: usize,
    values: Vec<f32>,
}

impl UpperTriangle {
    /// All zero.
    pub fn zeros(n: usize) -> Self {
        Self { n, values: vec![0.0; Self::packed_len(n)] }
    }

    /// From packed values; `None` unless there are `n (n + 1) / 2` of them.
    pub fn from_packed(n: usize, values: Vec<f32>) -> Option<Self> {
        (values.len() == Self::packed_len(n)).then_some(Self { n, values })
    }

    /// Values that the triangle of an `[n, n]` matrix holds.
    pub const fn packed_len(n: usize) -> usize {
        n * (n + 1) / 2
    }

    /// Rows and columns of the square.
    pub fn dim(&self) -> usize {
        self.n
    }

    /// The packed values.
    pub fn packed(&self) -> &[f32] {
        &self.values
    }

    /// The element at row `i`, column `j`, in either order.
    ///
    /// # Panics
    /// If an index is not below [`dim`](Self::dim).
    pub fn get(&self, i: usize, j: usize) -> f32 {
        let (i, j) = (i.min(j), i.max(j));
        assert!(j < self.n, "index {j} in a matrix of {} columns", self.n);
        self.values[self.row_start(i) + j - i]
    }

    /// The square, row-major, each element times `factor` in f32.
    pub fn to_square_scaled(&self, factor: f32) -> Vec<f32> {
        let n = self.n;
        let mut out = vec![0.0; n * n];
        for i in 0..n {
            let row = &self.values[self.row_start(i)..][..n - i];
            for (k, &v) in row.iter().enumerate() {
                out[i * n + i + k] = v * factor;
                out[(i + k) * n + i] = v * factor;
            }
        }
        out
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub(crate) fn set_diagonal(&mut self, diagonal: impl Iterator<Item = f32>) {
        for (i, v) in diagonal.take(self.n).enumerate() {
            let at = self.row_start(i);
            self.values[at] = v;
        }
    }

    /// Element `i, j` times `factors[i] · factors[j]`, in f64.
    pub(crate) fn scale(&mut self, factors: &[f64]) {
        let mut rest = self.values.as_mut_slice();
        for (i, &factor) in factors.iter().enumerate().take(self.n) {
            let (row, tail) = std::mem::take(&mut rest).split_at_mut(self.n - i);
            rest = tail;
            for (v, other) in row.iter_mut().zip(&factors[i..]) {
                *v = (f64::from(*v) * factor * other) as f32;
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.values.iter_mut().zip(&other.values) {
            *a += b;
        }
    }

    fn row_start(&self, i: usize) -> usize {
        // The rows before hold n, n - 1, ... n - i + 1 values.
        i * (2 * self.n + 1 - i) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_and_square_agree() {
        let t = UpperTriangle::from_packed(3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(t.to_square_scaled(2.0), [2.0, 4.0, 6.0, 4.0, 8.0, 10.0, 6.0, 10.0, 12.0]);
        for i in 0..3 {
            for j in 0..3 {
                assert_eq!(t.get(i, j) * 2.0, t.to_square_scaled(2.0)[i * 3 + j]);
            }
        }
        assert_eq!(UpperTriangle::from_packed(3, vec![0.0; 5]), None);
        assert_eq!(UpperTriangle::zeros(0).to_square_scaled(1.0), Vec::<f32>::new());
    }
}
