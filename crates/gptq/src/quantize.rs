//! One matrix: codes, scales and zero points, and how good they are.

use crate::affine_grid::{AffineGrid, AffineParams};
use crate::codec::GroupCodec;
use crate::eight_bit_grid::EightBitGrid;
use crate::factor::{Factor, Fallback};
use crate::solver::{self, Solution};
use crate::{FitFrom, GptqError, Options, Passes};
use half::f16;
use quant_core::UpperTriangle;
use quant_core::affine::{AffineMatrix, AffineParts};
use quant_core::eight_bit::{EightBitCode, EightBitMatrix, EightBitParts};
use quant_core::error_metrics::ErrorAccumulator;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// A quantized matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Codes, scales, zero points.
    pub matrix: AffineMatrix,
    /// How it went.
    pub report: Report,
}

/// How quantizing a matrix went.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// `tr((W − Q) Σ x xᵀ (W − Q)ᵀ) / n`: the squared error of the layer's output, summed over its features, mean over the `n` calibration
    /// rows, damping left out. That is the sum that the authors' code prints, with `n` in the place of its number of sequences.
    /// `None` after a fallback. With a cross statistic `W` is the target that it sets.
    pub loss: Option<f64>,
    /// `Σ (w − q)² / Σ w²`.
    pub nmse: f64,
    /// Damping that the factor took.
    pub damp: f64,
    /// Why the matrix was rounded to nearest, if it was.
    pub fallback: Option<Fallback>,
    /// Columns that no calibration row used.
    pub dead_columns: usize,
    /// Time of this matrix, without the factor.
    pub time: Duration,
}

impl Report {
    /// Of a matrix whose quantization began at `start`.
    fn new(factor: &Factor, loss: Option<f64>, nmse: f64, start: Instant) -> Self {
        let (damp, fallback, dead_columns) = (factor.damp, factor.fallback(), factor.dead_columns);
        Self { loss, nmse, damp, fallback, dead_columns, time: start.elapsed() }
    }
}

/// Quantizes `weights`, `[out_features, in_features]` row-major, with the factor of the layer's input.
///
/// Numerical trouble ends in rounding to nearest and a [`Report::fallback`], not in an error. The result does not depend on the number of
/// threads.
///
/// # Errors
/// [`GptqError::Shape`], [`GptqError::Length`], [`GptqError::NonFiniteWeight`]; [`GptqError::ScaleRange`] if a scale would not fit an
/// f16; [`GptqError::OtherOptions`] if the factor was made for another order or group size.
pub fn quantize(
    weights: &[f32],
    out_features: usize,
    factor: &Factor,
    options: &Options,
) -> Result<Quantized, GptqError> {
    let start = Instant::now();
    let in_features = factor.in_features();
    let group_size = options.group_size.unwrap_or(in_features).min(in_features);
    let same_order = factor.order.kind == options.order || factor.fallback() == Some(Fallback::Asked);
    if factor.order.group_size != group_size || !same_order {
        return Err(GptqError::OtherOptions);
    }
    let passes = Passes { fit_from: FitFrom::Updated, refine: options.refine, keep_gain: options.keep_gain };
    let Solution { codes, params, loss } =
        quantize_onto(&AffineGrid::new(options), weights, out_features, factor, passes)?;
    let groups = in_features.div_ceil(group_size);
    if let Some(at) = params.iter().position(|params: &AffineParams| !params.scale.is_finite()) {
        return Err(GptqError::ScaleRange { row: at / groups, group: at % groups });
    }
    let matrix = AffineMatrix::from_parts(AffineParts {
        out_features,
        in_features,
        bits: options.bits,
        group_size,
        codes,
        scales: params.iter().map(|params| f16::from_f32(params.scale)).collect(),
        zeros: params.iter().map(|params| params.zero as u16).collect(),
        g_idx: factor.order.g_idx(),
    });
    // The parts were made for each other.
    let matrix = matrix.map_err(|_| GptqError::Shape { out_features, in_features })?;
    let nmse = nmse(weights, in_features, |row, values| matrix.dequantize_row_into(row, values).is_ok());
    let report = Report::new(factor, loss, nmse, start);
    Ok(Quantized { matrix, report })
}

/// Quantizes `weights`, `[out_features, in_features]` row-major, to one byte a weight and an f32 scale a row, for products with 8-bit activations.
///
/// Of `options` the bits, groups and symmetry do not count.
///
/// # Errors
/// As [`quantize`]; there is no scale that does not fit.
pub fn quantize_eight_bit(
    weights: &[f32],
    out_features: usize,
    factor: &Factor,
    code: EightBitCode,
    options: &Options,
) -> Result<(EightBitMatrix, Report), GptqError> {
    let start = Instant::now();
    let in_features = factor.in_features();
    let same_order = factor.order.kind == options.order || factor.fallback() == Some(Fallback::Asked);
    if factor.order.group_size != in_features || !same_order {
        return Err(GptqError::OtherOptions);
    }
    let passes = Passes { fit_from: FitFrom::Updated, refine: options.refine, keep_gain: options.keep_gain };
    let grid = EightBitGrid::new(code, options);
    let Solution { codes, params: scales, loss } = quantize_onto(&grid, weights, out_features, factor, passes)?;
    let codes = codes.into_iter().map(|code| code as i8).collect();
    if let Some(row) = scales.iter().position(|scale| !scale.is_finite()) {
        return Err(GptqError::ScaleRange { row, group: 0 });
    }
    let parts = EightBitParts { out_features, in_features, code, codes, scales, zeros: None };
    // The parts were made for each other.
    let matrix = EightBitMatrix::from_parts(parts).map_err(|_| GptqError::Shape { out_features, in_features })?;
    let nmse = nmse(weights, in_features, |row, values| matrix.dequantize_row_into(row, values).is_ok());
    let report = Report::new(factor, loss, nmse, start);
    Ok((matrix, report))
}

/// Rounds each weight to its nearest code: what [`quantize`] falls back to, and what it is to be compared with.
///
/// # Errors
/// As [`quantize`].
pub fn round_to_nearest(
    weights: &[f32],
    out_features: usize,
    in_features: usize,
    options: &Options,
) -> Result<Quantized, GptqError> {
    quantize(weights, out_features, &Factor::round_to_nearest(in_features, options)?, options)
}

/// Quantizes onto any grid: the solver under [`quantize`].
///
/// # Errors
/// [`GptqError::Shape`], [`GptqError::Length`] or [`GptqError::NonFiniteWeight`].
pub fn quantize_onto<C: GroupCodec>(
    codec: &C,
    weights: &[f32],
    out_features: usize,
    factor: &Factor,
    passes: Passes,
) -> Result<Solution<C::Params>, GptqError> {
    let in_features = factor.in_features();
    let shape = GptqError::Shape { out_features, in_features };
    let expected = out_features.checked_mul(in_features).filter(|&n| n > 0).ok_or(shape)?;
    if weights.len() != expected {
        return Err(GptqError::Length { name: "weights", expected, found: weights.len() });
    }
    let bad_row = |row: &[f32]| !row.iter().all(|w| w.is_finite());
    if let Some(row) = weights.par_chunks(in_features).position_first(bad_row) {
        let column = weights[row * in_features..].iter().position(|w| !w.is_finite()).unwrap_or(0);
        return Err(GptqError::NonFiniteWeight { row, column });
    }
    Ok(solver::solve(codec, factor, weights, passes))
}

/// The loss of any approximation of `weights`, as [`Report::loss`] defines it: `tr((W − Q) gram (W − Q)ᵀ) / rows`.
///
/// # Errors
/// [`GptqError::Length`] unless both are whole rows of `gram.dim()` values, equally many.
pub fn loss(weights: &[f32], approximation: &[f32], gram: &UpperTriangle, rows: u64) -> Result<f64, GptqError> {
    let n = gram.dim().max(1);
    if weights.len() != approximation.len() || !weights.len().is_multiple_of(n) {
        let expected = weights.len() / n * n;
        return Err(GptqError::Length { name: "approximation", expected, found: approximation.len() });
    }
    let of_row = |(w, q): (&[f32], &[f32])| -> f64 {
        let error: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(*w) - f64::from(*q)).collect();
        let mut rest = gram.packed();
        let mut sum = 0.0;
        for (i, &e) in error.iter().enumerate() {
            let (row, tail) = rest.split_at(n - i);
            rest = tail;
            let products = error[i..].iter().zip(row).map(|(e, &g)| e * f64::from(g));
            sum += e * (2.0 * products.sum::<f64>() - e * f64::from(row[0]));
        }
        sum
    };
    let sums: Vec<f64> = weights.par_chunks_exact(n).zip(approximation.par_chunks_exact(n)).map(of_row).collect();
    Ok(sums.iter().sum::<f64>() / rows.max(1) as f64)
}

/// `dequantize` writes the values of a row.
fn nmse(weights: &[f32], in_features: usize, dequantize: impl Fn(usize, &mut [f32]) -> bool + Sync) -> f64 {
    let of_row = |(row, weights): (usize, &[f32])| {
        let (mut sums, mut values) = (ErrorAccumulator::new(), vec![0.0; in_features]);
        // Both are rows of the matrix.
        if dequantize(row, &mut values) {
            let _ = sums.add(weights, &values);
        }
        sums
    };
    let rows: Vec<ErrorAccumulator> = weights.par_chunks_exact(in_features).enumerate().map(of_row).collect();
    let mut all = ErrorAccumulator::new();
    rows.iter().for_each(|row| all.merge(row));
    all.finish().nmse
}
