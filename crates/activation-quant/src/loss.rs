//! How far the outputs of linears are off when their weights and what they read are in 8 bits.

use crate::{Group, SmoothError};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScales};
use rayon::prelude::*;

/// What is rounded to 8 bits, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// Weights, with a scale per output feature; `None`: as they are.
    pub weights: Option<ActivationGrid>,
    /// What the linears read; `None`: as it is.
    pub activations: Option<ActivationQuantizer>,
}

impl Scheme {
    /// Both symmetric INT8, a scale per token.
    pub const INT8: Self = Self::dynamic(ActivationGrid::Int8 { symmetric: true });
    /// Both FP8 E4M3, a scale per token.
    pub const FP8: Self = Self::dynamic(ActivationGrid::E4M3);

    const fn dynamic(grid: ActivationGrid) -> Self {
        Self { weights: Some(grid), activations: Some(ActivationQuantizer { grid, scales: ActivationScales::Token }) }
    }
}

/// Rows of an input.
#[derive(Clone, Debug)]
pub struct SampleRows {
    values: Vec<f32>,
    columns: usize,
    /// Squared length of what the outputs of each row are added to.
    added_to: Option<Vec<f64>>,
}

impl SampleRows {
    /// Rows of `columns` values. `added_to` has for each row the squared length of what the linear's output is added to (the residual stream, of o and
    /// down): an error counts in proportion to the sum. Without it all rows count alike.
    ///
    /// # Errors
    /// [`SmoothError::Rows`] for no rows, or such that are not whole; [`SmoothError::Length`]; [`SmoothError::NotFinite`].
    pub fn new(values: Vec<f32>, columns: usize, added_to: Option<Vec<f64>>) -> Result<Self, SmoothError> {
        if columns == 0 || values.is_empty() || !values.len().is_multiple_of(columns) {
            return Err(SmoothError::Rows { values: values.len(), columns });
        }
        let expected = values.len() / columns;
        if let Some(found) = added_to.as_ref().map(Vec::len).filter(|n| *n != expected) {
            return Err(SmoothError::Length { name: "added_to", expected, found });
        }
        check_finite("rows", &values, columns)?;
        Ok(Self { values, columns, added_to })
    }

    /// All rows.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows divided by the scales and rounded.
    pub(crate) fn rounded(&self, activations: Option<ActivationQuantizer>, scales: Option<&[f32]>) -> Vec<f32> {
        let mut values = self.values.clone();
        if let Some(scales) = scales {
            let rows = values.par_chunks_exact_mut(self.columns);
            rows.for_each(|row| row.iter_mut().zip(scales).for_each(|(x, s)| *x /= s));
        }
        round(&mut values, self.columns, activations);
        values
    }
}

pub(crate) fn check_finite(name: &str, values: &[f32], columns: usize) -> Result<(), SmoothError> {
    match values.par_chunks(columns).position_first(|row| !row.iter().all(|v| v.is_finite())) {
        None => Ok(()),
        Some(row) => {
            let of_row = &values[row * columns..];
            let column = of_row.iter().position(|v| !v.is_finite()).unwrap_or(0);
            Err(SmoothError::NotFinite { name: name.to_owned(), value: of_row[column], row, column })
        }
    }
}

fn round(values: &mut [f32], columns: usize, quantizer: Option<ActivationQuantizer>) {
    if let Some(quantizer) = quantizer {
        // Whole rows, as was checked.
        let _ = quantizer.round(values, columns);
    }
}

/// `x wᵀ`, `[rows of x, rows of w]`.
fn product(x: &[f32], w: &[f32], columns: usize) -> Vec<f32> {
    let (rows, outs) = (x.len() / columns, w.len() / columns);
    let mut y = vec![0.0; rows * outs];
    matmul(
        MatMut::from_row_major_slice_mut(&mut y, rows, outs),
        Accum::Replace,
        MatRef::from_row_major_slice(x, rows, columns),
        MatRef::from_row_major_slice(w, outs, columns).transpose(),
        1.0f32,
        Par::rayon(0),
    );
    y
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
}

/// Some rows of a weight matrix, and what they make of the rows of an input in full precision.
struct Exact {
    weights: Vec<f32>,
    outputs: Vec<f32>,
    /// What each row of the input counts.
    counts: Vec<f64>,
}

/// All matrices of a group, on some rows of their input.
pub(crate) struct Judge<'a> {
    rows: &'a SampleRows,
    members: Vec<Exact>,
}

impl<'a> Judge<'a> {
    /// At most `weight_rows` of each matrix, spread over it. The group was checked.
    pub(crate) fn new(rows: &'a SampleRows, group: &Group<'_>, weight_rows: usize) -> Self {
        let columns = rows.columns;
        let member = |member: &crate::Member<'_>| {
            let count = member.out_features.min(weight_rows.max(1));
            let at = |i: usize| i * member.out_features / count * columns;
            let weights: Vec<f32> = (0..count).flat_map(|i| &member.weights[at(i)..at(i) + columns]).copied().collect();
            let outputs = product(&rows.values, &weights, columns);
            let part = count as f64 / member.out_features as f64;
            let counts = outputs.chunks_exact(count).enumerate().map(|(row, y)| match &rows.added_to {
                None => 1.0,
                Some(added_to) => {
                    let whole =
                        added_to[row].max(0.0) * part + y.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
                    if whole > 0.0 && whole.is_finite() { 1.0 / whole } else { 0.0 }
                }
            });
            Exact { counts: counts.collect(), weights, outputs }
        };
        Self { rows, members: group.members.iter().map(member).collect() }
    }

    /// Of each matrix `Σ_t c_t |x̂_t Ŵᵀ − x_t Wᵀ|²`, `c_t` what row `t` counts, after the input was divided by the scales and the columns multiplied by them.
    pub(crate) fn losses(&self, scheme: Scheme, scales: Option<&[f32]>) -> Vec<f64> {
        let columns = self.rows.columns;
        let inputs = self.rows.rounded(scheme.activations, scales);
        let loss = |exact: &Exact| {
            let mut weights = exact.weights.clone();
            if let Some(scales) = scales {
                let rows = weights.par_chunks_exact_mut(columns);
                rows.for_each(|row| row.iter_mut().zip(scales).for_each(|(w, s)| *w *= s));
            }
            round(
                &mut weights,
                columns,
                scheme.weights.map(|grid| ActivationQuantizer { grid, scales: ActivationScales::Token }),
            );
            let outputs = product(&inputs, &weights, columns);
            let outs = (weights.len() / columns).max(1);
            let rows = outputs.chunks_exact(outs).zip(exact.outputs.chunks_exact(outs)).zip(&exact.counts);
            rows.map(|((a, b), count)| count * squares(a, b)).sum()
        };
        self.members.iter().map(loss).collect()
    }

    /// The loss beside that of a group whose outputs were all zero; the mean over the matrices.
    fn relative(&self, scheme: Scheme, scales: Option<&[f32]>) -> f64 {
        let losses = self.losses(scheme, scales);
        let of = |(exact, loss): (&Exact, f64)| {
            let outs = (exact.weights.len() / self.rows.columns).max(1);
            let zeros = vec![0.0; outs];
            let rows = exact.outputs.chunks_exact(outs).zip(&exact.counts);
            let whole: f64 = rows.map(|(y, count)| count * squares(y, &zeros)).sum();
            if whole > 0.0 { loss / whole } else { 0.0 }
        };
        self.members.iter().zip(losses).map(of).sum::<f64>() / self.members.len().max(1) as f64
    }
}

/// Squared error of a group's outputs beside their squares, over some rows of their input: the mean over the matrices. At most `weight_rows` of each
/// matrix are looked at.
///
/// # Errors
/// What a group or scales are refused for in [`smooth`](crate::smooth).
pub fn output_error(
    rows: &SampleRows,
    group: &Group<'_>,
    scheme: Scheme,
    scales: Option<&[f32]>,
    weight_rows: usize,
) -> Result<f64, SmoothError> {
    group.check(rows.columns)?;
    if let Some(found) = scales.map(<[f32]>::len).filter(|n| *n != rows.columns) {
        return Err(SmoothError::Length { name: "scales", expected: rows.columns, found });
    }
    Ok(Judge::new(rows, group, weight_rows).relative(scheme, scales))
}
