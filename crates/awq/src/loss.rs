//! `tr(E G Eᵀ)`: what an error `E` of the weights does to the layer's output, from the Gram matrix alone.

use crate::AwqError;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use quant_core::input_stats::InputStats;
use std::ops::Range;

/// Rows of a matrix whose losses are computed together.
pub(crate) const TILE: usize = 64;
/// Columns of a block of the Gram matrix. Only blocks on and above the diagonal are multiplied: half the work of the square.
const BLOCK: usize = 128;

/// `Σ x xᵀ / n` as a square.
#[derive(Clone, Debug)]
pub(crate) struct Gram {
    dim: usize,
    square: Vec<f32>,
    /// Rows seen.
    pub(crate) count: u64,
}

impl Gram {
    pub(crate) fn new(stats: &InputStats) -> Result<Self, AwqError> {
        let gram = stats.gram().ok_or(AwqError::NoGram)?;
        let square = gram.to_square_scaled((1.0 / stats.count().max(1) as f64) as f32);
        Ok(Self { dim: gram.dim(), square, count: stats.count() })
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.square.iter().all(|v| v.is_finite())
    }

    pub(crate) fn mean_diagonal(&self) -> f64 {
        self.square.iter().step_by(self.dim + 1).map(|&v| f64::from(v)).sum::<f64>() / self.dim as f64
    }

    /// `out += factor · E G[from, to]`: rows of `from.len()` values, `stride` apart, give rows of `to.len()`.
    pub(crate) fn add_products(
        &self,
        errors: &[f32],
        stride: usize,
        from: Range<usize>,
        to: Range<usize>,
        factor: f32,
        out: &mut [f32],
    ) {
        let rows = out.len() / to.len().max(1);
        matmul(
            MatMut::from_row_major_slice_mut(out, rows, to.len()),
            Accum::Add,
            MatRef::from_row_major_slice_with_stride(errors, rows, from.len(), stride),
            MatRef::from_row_major_slice_with_stride(
                &self.square[from.start * self.dim + to.start..],
                from.len(),
                to.len(),
                self.dim,
            ),
            factor,
            Par::Seq,
        );
    }

    /// Adds `e G eᵀ` of the rows of `errors` to `out`, one value a row. A row has `width` values, those of the columns from `first`; only
    /// their part of `G` counts.
    pub(crate) fn add_losses(&self, errors: &[f32], first: usize, width: usize, out: &mut [f64]) {
        let rows = out.len();
        let mut products = vec![0.0f32; rows * BLOCK.min(width)];
        for start in (0..width).step_by(BLOCK) {
            let end = width.min(start + BLOCK);
            let products = &mut products[..rows * (end - start)];
            products.fill(0.0);
            let columns = first + start..first + end;
            if start > 0 {
                // Blocks above the diagonal stand for those below it too.
                self.add_products(errors, width, first..first + start, columns.clone(), 2.0, products);
            }
            self.add_products(&errors[start..], width, columns.clone(), columns, 1.0, products);
            for ((out, errors), products) in
                out.iter_mut().zip(errors.chunks_exact(width)).zip(products.chunks_exact(end - start))
            {
                *out += f64::from(dot(&errors[start..end], products));
            }
        }
    }
}

/// The sum of products, in sixteen parts so that it vectorizes; the parts are added in order.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDE: usize = 16;
    let mut parts = [0.0f32; WIDE];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<WIDE>(), b.as_chunks::<WIDE>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..WIDE {
            parts[lane] += a[lane] * b[lane];
        }
    }
    parts.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant_core::input_stats::Detail;

    #[test]
    fn equals_the_outputs_error() {
        for n in [1, 5, 127, 128, 129, 300] {
            let x: Vec<f32> = (0..7 * n).map(|i| ((i * i % 991) as f32 * 0.37).sin()).collect();
            let e: Vec<f32> = (0..3 * n).map(|i| ((i * i % 97) as f32 * 0.71).cos()).collect();
            let mut stats = InputStats::new(n, Detail::Gram);
            stats.add(&x, 7, n).unwrap();
            let gram = Gram::new(&stats).unwrap();
            for (first, width) in [(0, n), (n / 3, n - n / 3), (n / 2, 1)] {
                let part: Vec<f32> = e.chunks(n).flat_map(|row| row[first..first + width].to_vec()).collect();
                let mut losses = [1.0f64; 3];
                gram.add_losses(&part, first, width, &mut losses);
                for (row, loss) in part.chunks(width).zip(losses) {
                    let output = |x: &[f32]| {
                        let products = row.iter().zip(&x[first..]).map(|(e, x)| f64::from(*e) * f64::from(*x));
                        products.sum::<f64>().powi(2) / 7.0
                    };
                    let exact: f64 = 1.0 + x.chunks(n).map(output).sum::<f64>();
                    assert!(
                        (loss - exact).abs() < 1e-5 * (exact + width as f64),
                        "{n} {first} {width}: {loss} {exact}"
                    );
                }
            }
        }
    }
}
