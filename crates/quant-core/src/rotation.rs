//! The orthonormal Walsh-Hadamard transform, which spreads a few large values of a row over all of it.
//!
//! `H_n = (1/sqrt n) [[H, H], [H, -H]]`, Sylvester's order. It is its own inverse and keeps inner products, so a rotated key may be multiplied with a
//! rotated query. As a preparation for rounding: QuaRot, arXiv 2404.00456.

use rayon::prelude::*;

/// A width no power of two divides is cut into blocks that are: `96 = 64 + 32`, each rotated by itself.
///
/// ```
/// use quant_core::rotation::Rotation;
/// let rotation = Rotation::new(96, 128);
/// assert_eq!(rotation.blocks().collect::<Vec<_>>(), [64, 32]);
/// let mut row = vec![0.0; 96];
/// row[5] = 8.0;
/// rotation.apply(&mut row);
/// assert!(row[..64].iter().all(|x| x.abs() == 1.0));
/// rotation.apply(&mut row);
/// assert_eq!(row[5], 8.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    width: usize,
    largest: usize,
}

impl Rotation {
    /// For rows of `width` values, in blocks of at most `largest`, which is rounded down to a power of two (0 and 1: no rotation).
    pub fn new(width: usize, largest: usize) -> Self {
        Self { width, largest: floor_power_of_two(largest) }
    }

    /// Blocks of one size: the largest power of two that divides `width`, at most `largest` rounded down to one.
    pub fn dividing(width: usize, largest: usize) -> Self {
        Self::new(width, largest.min(1usize.checked_shl(width.trailing_zeros()).unwrap_or(1)))
    }

    /// Values of the largest block.
    pub fn block(&self) -> usize {
        self.largest.max(1).min(floor_power_of_two(self.width).max(1))
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// True if rows stay as they are.
    pub fn is_identity(&self) -> bool {
        self.largest <= 1 || self.width <= 1
    }

    /// The blocks that a row is cut into, in order.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let (mut left, largest) = (self.width, self.largest.max(1));
        std::iter::from_fn(move || {
            let block = largest.min(floor_power_of_two(left));
            left -= block;
            (block > 0).then_some(block)
        })
    }

    /// Rotates a row in place; twice is the identity up to rounding. Values behind `width` stay as they are.
    ///
    /// # Panics
    /// If `row` is shorter than `width`.
    #[inline(always)]
    pub fn apply(&self, row: &mut [f32]) {
        if self.is_identity() {
            return;
        }
        let mut rest = &mut row[..self.width];
        while !rest.is_empty() {
            let block = self.largest.min(floor_power_of_two(rest.len()));
            let (head, tail) = rest.split_at_mut(block);
            hadamard(head);
            rest = tail;
        }
    }

    /// Rotates every row of a matrix of `width` columns in place.
    ///
    /// # Panics
    /// If `values` is not whole rows.
    pub fn apply_to_rows(&self, values: &mut [f32]) {
        if self.is_identity() {
            return;
        }
        assert!(values.len().is_multiple_of(self.width), "{} values in rows of {}", values.len(), self.width);
        values.par_chunks_mut(self.width).for_each(|row| self.apply(row));
    }

    /// Rotates every column of a matrix of `width` rows and `columns` columns (row-major) in place.
    ///
    /// # Panics
    /// If `values` is not `width * columns` long.
    pub fn apply_to_columns(&self, values: &mut [f32], columns: usize) {
        assert_eq!(Some(values.len()), self.width.checked_mul(columns), "{} rows of {columns}", self.width);
        if self.is_identity() || columns == 0 {
            return;
        }
        let mut blocks = Vec::new();
        let mut rest = values;
        for block in self.blocks() {
            let (head, tail) = rest.split_at_mut(block * columns);
            blocks.push((head, block));
            rest = tail;
        }
        blocks.into_par_iter().for_each(|(rows, block)| {
            for h in (0..block.trailing_zeros()).map(|log| 1 << log) {
                stage(rows, h * columns);
            }
            let scale = 1.0 / (block as f32).sqrt();
            rows.iter_mut().for_each(|v| *v *= scale);
        });
    }
}

#[inline(always)]
fn floor_power_of_two(n: usize) -> usize {
    n.checked_ilog2().map_or(0, |log| 1 << log)
}

/// Multiplies `x` by `H_n` in place: `n log2 n` additions and `n` products, in an order that does not depend on the machine.
///
/// # Panics
/// If the length is not a power of two.
#[inline(always)]
pub fn hadamard(x: &mut [f32]) {
    let n = x.len();
    assert!(n.is_power_of_two(), "a Hadamard transform of {n} values");
    let scale = 1.0 / (n as f32).sqrt();
    let (eights, []) = x.as_chunks_mut::<8>() else {
        for h in (0..n.trailing_zeros()).map(|log| 1 << log) {
            stage(x, h);
        }
        x.iter_mut().for_each(|v| *v *= scale);
        return;
    };
    // The first three stages and the scale within eight values, the others between runs of at least eight: both are lanes of a vector.
    for v in eights {
        let a =
            [v[0] + v[1], v[0] - v[1], v[2] + v[3], v[2] - v[3], v[4] + v[5], v[4] - v[5], v[6] + v[7], v[6] - v[7]];
        let b =
            [a[0] + a[2], a[1] + a[3], a[0] - a[2], a[1] - a[3], a[4] + a[6], a[5] + a[7], a[4] - a[6], a[5] - a[7]];
        for i in 0..4 {
            v[i] = (b[i] + b[i + 4]) * scale;
            v[i + 4] = (b[i] - b[i + 4]) * scale;
        }
    }
    for h in (3..n.trailing_zeros()).map(|log| 1 << log) {
        stage(x, h);
    }
}

/// Sums and differences of values `h` apart.
#[inline(always)]
fn stage(x: &mut [f32], h: usize) {
    for pair in x.chunks_exact_mut(2 * h) {
        let (low, high) = pair.split_at_mut(h);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + 11) as f32 * 0.731).sin()).collect()
    }

    #[test]
    fn is_the_matrix_of_sylvester() {
        for n in [1, 2, 4, 8, 16, 64, 256] {
            let x = row(n);
            let mut fast = x.clone();
            hadamard(&mut fast);
            for (i, &y) in fast.iter().enumerate() {
                // Entry (i, j) is (-1)^popcount(i & j) / sqrt n.
                let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let sum: f64 = x.iter().enumerate().map(|(j, &v)| sign(j) * f64::from(v)).sum();
                let expected = sum / (n as f64).sqrt();
                assert!((f64::from(y) - expected).abs() < 1e-5, "n {n}, row {i}: {y}, expected {expected}");
            }
        }
    }

    #[test]
    fn blocks_fill_the_width() {
        let cases: &[(usize, usize, &[usize])] = &[
            (128, 128, &[128]),
            (128, 64, &[64, 64]),
            (128, 100, &[64, 64]),
            (80, 128, &[64, 16]),
            (96, 64, &[64, 32]),
            (8, 64, &[8]),
            (1, 8, &[1]),
            (0, 8, &[]),
        ];
        for &(width, largest, blocks) in cases {
            let rotation = Rotation::new(width, largest);
            assert_eq!(rotation.blocks().collect::<Vec<_>>(), blocks, "{width} in blocks of {largest}");
            let x = row(width);
            let mut twice = x.clone();
            rotation.apply(&mut twice);
            rotation.apply(&mut twice);
            assert!(x.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-5), "{width} in blocks of {largest}");
        }
        for (width, largest, block) in
            [(896, 128, 128), (4864, 256, 256), (4864, 512, 256), (96, 128, 32), (7, 128, 1), (64, 0, 1), (0, 8, 1)]
        {
            let rotation = Rotation::dividing(width, largest);
            assert_eq!(rotation.block(), block, "{width} in blocks of at most {largest}");
            assert!(rotation.blocks().all(|b| b == block));
        }
        let mut x = row(32);
        Rotation::new(32, 0).apply(&mut x);
        assert_eq!(x, row(32));
    }

    #[test]
    fn matrices_rotate_on_either_side() {
        for (width, largest, others) in [(12, 8, 5), (64, 16, 3), (5, 8, 2), (8, 8, 0), (6, 1, 4)] {
            let rotation = Rotation::new(width, largest);
            let matrix = row(width * others);
            let mut columns = matrix.clone();
            rotation.apply_to_columns(&mut columns, others);
            let mut transposed: Vec<f32> =
                (0..others).flat_map(|c| (0..width).map(move |r| r * others + c)).map(|i| matrix[i]).collect();
            rotation.apply_to_rows(&mut transposed);
            for r in 0..width {
                for c in 0..others {
                    assert!((columns[r * others + c] - transposed[c * width + r]).abs() < 1e-5, "{width} {largest}");
                }
            }
        }
    }
}
