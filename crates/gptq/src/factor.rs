//! The Hessian of one input, factored once for every matrix that reads it.

use crate::order::ColumnOrder;
use crate::{GptqError, Options};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_solve::{solve_unit_lower_triangular_in_place, solve_unit_upper_triangular_in_place};
use faer::{MatMut, MatRef, Par};
use quant_core::UpperTriangle;
use quant_core::input_stats::InputStats;
use rayon::prelude::*;

/// A pivot below this part of its diagonal element is rounding noise of an f32 Gram matrix, not information.
const SMALLEST_PIVOT: f64 = 1e-7;

/// Why a matrix was rounded to nearest instead of by GPTQ.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fallback {
    /// No Hessian was asked for.
    #[error("rounding to nearest was asked for")]
    Asked,
    /// The statistics saw no input, or only zeros.
    #[error("the layer saw no input")]
    NoInput,
    /// The Gram matrix holds NaN or infinity, as sums of huge inputs do.
    #[error("the Gram matrix is not finite at row {row}, column {column}")]
    NonFinite {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
    },
    /// Even with the whole mean added to its diagonal the Hessian is not positive definite: it is no Gram matrix.
    #[error("the Hessian is not positive definite, not even with its mean diagonal added")]
    NotPositiveDefinite,
}

/// The Hessian `H = 2/n Σ x xᵀ + λ·mean(diag)·I` of one layer input, damped and [shrunk](Options::shrink), its columns in the order of [`Options::order`], as
/// `H = L̃ᵀ D L̃` with unit lower triangular `L̃` and diagonal `D`.
///
/// Layers that read the same input (q/k/v; gate/up) share it, whatever their bits. It takes `4 n²` bytes for `n` columns, and `12 n²`
/// while it is made.
///
/// **In the paper's letters.** arXiv 2210.17323 writes `H⁻¹ = Uᵀ U` with an upper `U` and pushes the error of column `i` on to later
/// columns by row `i` of `U`. `L̃` is `D^-½ U⁻ᵀ`, and `D_i = 1 / U_ii²`. Row `i` of `L̃` says the same from the receiver's side:
/// `w'_i = w_i + Σ_{j<i} L̃_ij (w_j − q_j)`, as in LDLQ (arXiv 2307.13304, where the two are shown to be one). No inverse is needed:
/// `L̃` and `D` are the Cholesky factor of `H` with rows and columns reversed.
#[derive(Clone, Debug)]
pub struct Factor {
    pub(crate) order: ColumnOrder,
    pub(crate) rows: u64,
    /// Mean of the diagonal of `Σ x xᵀ`, by which everything below is divided: no scale of the inputs can overflow.
    pub(crate) mean: f64,
    /// Of `Σ x xᵀ / mean`, damped, by position.
    pub(crate) diagonal: Vec<f32>,
    pub(crate) damp: f64,
    /// The part of the Hessian's other elements that was taken away.
    pub(crate) shrink: f64,
    pub(crate) dead_columns: usize,
    pub(crate) triangle: Result<Triangle, Fallback>,
    /// `[n, n]`, by position: `strength · (Σ Δx xᵀ) H⁻¹`.
    pub(crate) shift: Option<Vec<f32>>,
}

/// `L̃` and `D`, and `H` itself.
#[derive(Clone, Debug)]
pub(crate) struct Triangle {
    /// `[n, n]`, row-major, by position: `L̃` up to the diagonal, `H` above it.
    pub(crate) lower: Vec<f32>,
    /// `D`, by position.
    pub(crate) pivots: Vec<f32>,
}

impl Triangle {
    /// The square of `H` at the positions of a block into the front of `square`, row-major.
    pub(crate) fn copy_hessian(&self, block: &std::ops::Range<usize>, diagonal: &[f32], square: &mut [f32]) {
        let (n, size) = (diagonal.len(), block.len());
        for i in 0..size {
            square[i * size + i] = diagonal[block.start + i];
            let row = &self.lower[(block.start + i) * n + block.start..][..size];
            for j in i + 1..size {
                square[i * size + j] = row[j];
                square[j * size + i] = row[j];
            }
        }
    }
}

impl Factor {
    /// Factors the Hessian of `stats` for the order, group size, damping and shrinkage of `options`.
    ///
    /// Where the damped matrix is not positive definite, the damping is raised tenfold at a time up to 1; if that does not help either,
    /// or if the statistics are empty or not finite, the factor says so and what is quantized with it is rounded to nearest
    /// ([`fallback`](Self::fallback)). The result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`GptqError::NoGram`] if the statistics hold sums only; [`GptqError::Shape`], [`GptqError::GroupSize`], [`GptqError::Damp`] or
    /// [`GptqError::Shrink`].
    pub fn new(stats: &InputStats, options: &Options) -> Result<Self, GptqError> {
        let gram = stats.gram().ok_or(GptqError::NoGram)?;
        let n = gram.dim();
        if n == 0 || u32::try_from(n).is_err() {
            return Err(GptqError::Shape { out_features: 0, in_features: n });
        }
        if !options.damp.is_finite() || options.damp < 0.0 {
            return Err(GptqError::Damp(options.damp));
        }
        if !options.shrink.is_finite() || options.shrink < 0.0 {
            return Err(GptqError::Shrink(options.shrink));
        }
        let diagonal: Vec<f64> = (0..n).map(|i| f64::from(gram.get(i, i))).collect();
        let order = ColumnOrder::new(options.order, options.group_size, &diagonal)?;
        let mean = diagonal.iter().sum::<f64>() / n as f64;
        let mut factor = Self {
            rows: stats.count(),
            mean,
            diagonal: vec![1.0; n],
            damp: options.damp,
            shrink: options.shrink * n as f64 / (options.shrink * n as f64 + stats.count().max(1) as f64),
            dead_columns: diagonal.iter().filter(|&&v| v == 0.0).count(),
            triangle: Err(Fallback::NoInput),
            shift: None,
            order,
        };
        if let Some((row, column)) = first_non_finite(gram) {
            factor.triangle = Err(Fallback::NonFinite { row, column });
        } else if stats.count() > 0 && mean > 0.0 {
            factor.decompose(gram);
        }
        Ok(factor)
    }

    /// No Hessian: what is quantized with it is rounded to nearest, with the scale search weighing all columns alike.
    ///
    /// # Errors
    /// [`GptqError::Shape`] or [`GptqError::GroupSize`].
    pub fn round_to_nearest(in_features: usize, options: &Options) -> Result<Self, GptqError> {
        if in_features == 0 || u32::try_from(in_features).is_err() {
            return Err(GptqError::Shape { out_features: 0, in_features });
        }
        Ok(Self {
            order: ColumnOrder::new(crate::Order::Natural, options.group_size, &vec![1.0; in_features])?,
            rows: 0,
            mean: 0.0,
            diagonal: vec![1.0; in_features],
            damp: 0.0,
            shrink: 0.0,
            dead_columns: 0,
            triangle: Err(Fallback::Asked),
            shift: None,
        })
    }

    /// Aims at the outputs that the layer had before the layers in front of it were quantized (GPTAQ, arXiv 2504.02692).
    ///
    /// `cross` is `Σ Δx xᵀ`, `[n, n]`, row-major, over the same rows as the statistics: `x` the input that the statistics saw, `Δx` what
    /// the full-precision model has there less `x`. The output error `‖(W + ΔW) x − W (x + Δx)‖²` has its minimum over all real weights at
    /// `W + W (Σ Δx xᵀ) H⁻¹`; the solver rounds towards that point instead of `W`. The paper arrives column by column at the part of
    /// this shift that is above the diagonal in the order of the columns. `strength` is the part of the way to go, from 0 to 1; less than 1
    /// guards against fitting the calibration text.
    ///
    /// Does nothing to a factor that is a [`fallback`](Self::fallback).
    ///
    /// # Errors
    /// [`GptqError::Length`] or [`GptqError::NonFiniteCross`].
    pub fn with_cross(mut self, cross: &[f32], strength: f32) -> Result<Self, GptqError> {
        let n = self.in_features();
        if n.checked_mul(n) != Some(cross.len()) {
            return Err(GptqError::Length { name: "cross", expected: n.saturating_mul(n), found: cross.len() });
        }
        if let Some(at) = cross.iter().position(|v| !v.is_finite()) {
            return Err(GptqError::NonFiniteCross { row: at / n, column: at % n });
        }
        let Ok(triangle) = &self.triangle else { return Ok(self) };
        const ROWS: usize = 64;
        let mut shift = vec![0.0f32; n * n];
        let lower = MatRef::from_row_major_slice(&triangle.lower, n, n);
        shift.par_chunks_mut(ROWS * n).enumerate().for_each(|(chunk, rows)| {
            let columns = &self.order.columns;
            for (row, &from) in rows.chunks_exact_mut(n).zip(&columns[chunk * ROWS..]) {
                let source = &cross[from as usize * n..][..n];
                for (out, &column) in row.iter_mut().zip(columns) {
                    *out = (f64::from(source[column as usize]) / self.mean) as f32 * strength;
                }
            }
            // S H = C, so L̃ᵀ D L̃ Sᵀ = Cᵀ.
            let count = rows.len() / n;
            solve_unit_upper_triangular_in_place(
                lower.transpose(),
                MatMut::from_column_major_slice_mut(rows, n, count),
                Par::Seq,
            );
            for row in rows.chunks_exact_mut(n) {
                row.iter_mut().zip(&triangle.pivots).for_each(|(v, pivot)| *v /= pivot);
            }
            solve_unit_lower_triangular_in_place(lower, MatMut::from_column_major_slice_mut(rows, n, count), Par::Seq);
        });
        self.shift = Some(shift);
        Ok(self)
    }

    /// Columns of the matrices it serves.
    pub fn in_features(&self) -> usize {
        self.order.columns.len()
    }

    /// Group of each column; `None` for `column / group_size`.
    pub fn g_idx(&self) -> Option<Vec<u32>> {
        self.order.g_idx()
    }

    /// The damping it took, at least that of the options.
    pub fn damp(&self) -> f64 {
        self.damp
    }

    /// Columns that no calibration row used. They are rounded like the others, as later inputs may use them.
    pub fn dead_columns(&self) -> usize {
        self.dead_columns
    }

    /// Why matrices are rounded to nearest with this factor, if they are.
    pub fn fallback(&self) -> Option<Fallback> {
        self.triangle.as_ref().err().copied()
    }

    /// What damping and shrinkage make of the Hessian's diagonal at a position, beside the shrunk Gram matrix.
    pub(crate) fn ridge(&self, position: usize) -> f64 {
        self.damp + self.shrink * (f64::from(self.diagonal[position]) - self.damp)
    }

    fn decompose(&mut self, gram: &UpperTriangle) {
        let n = gram.dim();
        let keep = [1.0 - self.shrink, 1.0];
        let normalized = |i: usize, j: usize| f64::from(gram.get(i, j)) / self.mean * keep[usize::from(i == j)];
        let mut square = vec![0.0f64; n * n];
        let first = self.damp;
        let raised = (1..).map(|k| first.max(1e-3) * 10f64.powi(k)).take_while(|&damp| damp < 1.0);
        for damp in std::iter::once(first).chain(raised).chain(std::iter::once(first.max(1.0))) {
            if let Some(triangle) = decompose(&mut square, &self.order.columns, damp, normalized) {
                self.diagonal =
                    self.order.columns.iter().map(|&c| (normalized(c as usize, c as usize) + damp) as f32).collect();
                self.damp = damp;
                self.triangle = Ok(triangle);
                return;
            }
        }
        self.triangle = Err(Fallback::NotPositiveDefinite);
    }
}

/// `L̃` and `D` of `h + damp·I`, its rows and columns in the order of `columns`; `None` if that is not positive definite.
fn decompose(
    square: &mut [f64],
    columns: &[u32],
    damp: f64,
    h: impl Fn(usize, usize) -> f64 + Sync,
) -> Option<Triangle> {
    let n = columns.len();
    // Column-major lower triangle of the reversed matrix: its column c holds row n-1-c of the matrix, from the diagonal backwards.
    square.par_chunks_mut(n).enumerate().for_each(|(c, column)| {
        let row = columns[n - 1 - c] as usize;
        for (out, &other) in column[c..].iter_mut().zip(columns[..n - c].iter().rev()) {
            *out = h(row, other as usize);
        }
        column[c] += damp;
    });
    let diagonal: Vec<f64> = (0..n).map(|i| square[i * n + i]).collect();
    let par = Par::rayon(0);
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, par, Default::default()));
    let matrix = MatMut::from_column_major_slice_mut(square, n, n);
    cholesky_in_place(matrix, Default::default(), par, MemStack::new(&mut memory), Default::default()).ok()?;
    let pivots: Vec<f64> = (0..n).map(|i| square[i * n + i].powi(2)).collect();
    // Written so that NaN is refused too.
    if !pivots.iter().zip(&diagonal).all(|(pivot, diagonal)| *pivot > SMALLEST_PIVOT * diagonal) {
        return None;
    }
    let mut lower = vec![0.0f32; n * n];
    lower.par_chunks_mut(n).enumerate().for_each(|(p, row)| {
        let column = &square[(n - 1 - p) * n..][..n];
        let root = column[n - 1 - p];
        for (out, value) in row[..=p].iter_mut().zip(column.iter().rev()) {
            *out = (value / root) as f32;
        }
        let column = columns[p] as usize;
        for (out, &other) in row[p + 1..].iter_mut().zip(&columns[p + 1..]) {
            *out = h(column, other as usize) as f32;
        }
    });
    Some(Triangle { lower, pivots: pivots.iter().rev().map(|&v| v as f32).collect() })
}

/// Row and column of the first value that is NaN or infinite.
fn first_non_finite(gram: &UpperTriangle) -> Option<(usize, usize)> {
    if gram.packed().iter().all(|v| v.is_finite()) {
        return None;
    }
    let n = gram.dim();
    (0..n).flat_map(|i| (i..n).map(move |j| (i, j))).find(|&(i, j)| !gram.get(i, j).is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bits, Order};
    use quant_core::input_stats::Detail;

    fn inputs(rows: usize, n: usize) -> Vec<f32> {
        (0..rows * n).map(|i| ((i * i % 977) as f32 * 0.11).sin() * (1.0 + (i % n) as f32)).collect()
    }

    fn options(order: Order, damp: f64) -> Options {
        let mut options = Options::new(Bits::new(4).unwrap(), Some(4));
        (options.order, options.damp, options.shrink) = (order, damp, 0.0);
        options
    }

    #[test]
    fn the_triangle_gives_the_hessian_back() {
        let n = 13;
        let mut stats = InputStats::new(n, Detail::Gram);
        stats.add(&inputs(40, n), 40, n).unwrap();
        for order in [Order::Natural, Order::ActGroupAware, Order::DescAct { static_groups: false }] {
            let factor = Factor::new(&stats, &options(order, 0.05)).unwrap();
            let Triangle { lower, pivots } = factor.triangle.as_ref().unwrap();
            for p in 0..n {
                assert!((lower[p * n + p] - 1.0).abs() < 1e-6);
                for q in 0..n {
                    let product: f64 = (p.max(q)..n)
                        .map(|k| f64::from(lower[k * n + p]) * f64::from(pivots[k]) * f64::from(lower[k * n + q]))
                        .sum();
                    let (i, j) = (factor.order.columns[p] as usize, factor.order.columns[q] as usize);
                    let want =
                        f64::from(stats.gram().unwrap().get(i, j)) / factor.mean + if p == q { 0.05 } else { 0.0 };
                    assert!((product - want).abs() < 1e-5, "{order:?} {p} {q}: {product} {want}");
                    if p < q {
                        assert!((f64::from(lower[p * n + q]) - want).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn damping_rises_until_the_matrix_is_positive_definite() {
        let n = 8;
        let mut stats = InputStats::new(n, Detail::Gram);
        stats.add(&inputs(1, n), 1, n).unwrap();
        let factor = Factor::new(&stats, &options(Order::Natural, 0.0)).unwrap();
        assert_eq!((factor.fallback(), factor.damp()), (None, 0.01));
        let factor = Factor::new(&stats, &options(Order::Natural, 0.02)).unwrap();
        assert_eq!((factor.fallback(), factor.damp()), (None, 0.02));
    }
}
