//! One matrix, scaled and rounded.

use crate::grid::Grid;
use crate::group::check_matrix;
use crate::loss::TILE;
use crate::rounding::{Cut, group_params};
use crate::{AwqError, ClipRanges, Inputs, Options};
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts};
use quant_core::error_metrics::ErrorAccumulator;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// A quantized matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Codes, scales, zero points of `W diag(s)`: the layer's input is to be divided by `s`, which is folded into what comes before.
    pub matrix: AffineMatrix,
    /// How it went.
    pub report: Report,
}

/// How rounding a matrix went.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// `tr((W − Q) Σ x xᵀ (W − Q)ᵀ) / n` on the rows to fit to, with `Q` the weights that are left, `value / s`: the squared error of the layer's output,
    /// summed over its features, mean over the rows. `None` without statistics, or where they are empty or not finite.
    pub loss: Option<f64>,
    /// `Σ (w − q)² / Σ w²`, in the original's units.
    pub nmse: f64,
    /// Groups whose range was cut.
    pub clipped_groups: usize,
    /// Time of this call.
    pub time: Duration,
}

/// Rounds `weights`, `[out_features, in_features]` row-major, times `scales` (one a column) to the nearest codes; the grid of a group spans what `clip` says,
/// the whole range without. With scales of 1 and no clip that is plain rounding.
///
/// `inputs` serves the report only.
///
/// # Errors
/// [`AwqError::Shape`], [`AwqError::Length`], [`AwqError::NonFiniteWeight`], [`AwqError::ChannelScale`], [`AwqError::Clip`]; [`AwqError::ScaleRange`]
/// if a scale would not fit an f16.
pub fn round(
    weights: &[f32],
    out_features: usize,
    scales: &[f32],
    clip: Option<&ClipRanges>,
    inputs: Option<&Inputs>,
    options: &Options,
) -> Result<Quantized, AwqError> {
    let start = Instant::now();
    options.check()?;
    let n = scales.len();
    check_matrix(weights, out_features, n, 0)?;
    check_scales(scales, n)?;
    if let Some(inputs) = inputs.filter(|inputs| inputs.in_features() != n) {
        return Err(AwqError::Length { name: "inputs", expected: n, found: inputs.in_features() });
    }
    let group_size = options.group_of(n);
    let groups = n.div_ceil(group_size);
    if let Some(clip) = clip {
        let fits = clip.out_features == out_features && clip.groups == groups;
        if !fits || clip.cuts.len() != out_features * groups {
            let (found_rows, found_groups) = (clip.out_features, clip.groups);
            return Err(AwqError::Clip { rows: out_features, groups, found_rows, found_groups });
        }
    }
    let grid = Grid::new(options.bits, options.zero_point);
    let mut codes = vec![0u8; weights.len()];
    let mut group_scales = vec![f16::ZERO; out_features * groups];
    let mut zeros = vec![0u16; out_features * groups];
    let rows = codes.par_chunks_mut(n).zip(group_scales.par_chunks_mut(groups)).zip(zeros.par_chunks_mut(groups));
    rows.zip(weights.par_chunks(n)).enumerate().for_each(|(row, (((codes, group_scales), zeros), weights))| {
        let columns = codes.chunks_mut(group_size).zip(weights.chunks(group_size)).zip(scales.chunks(group_size));
        for (group, ((codes, weights), scales)) in columns.enumerate() {
            let cut = clip.map_or(Cut::NONE, |clip| clip.cuts[row * groups + group]);
            let params = group_params(&grid, weights, scales, cut.share);
            group_scales[group] = f16::from_f32(params.with_gain(cut.gain));
            zeros[group] = params.zero as u16;
            for ((code, w), s) in codes.iter_mut().zip(weights).zip(scales) {
                *code = grid.code(params, w * s);
            }
        }
    });
    if let Some(at) = group_scales.iter().position(|scale| !scale.is_finite()) {
        return Err(AwqError::ScaleRange { row: at / groups, group: at % groups });
    }
    let parts = AffineParts {
        out_features,
        in_features: n,
        bits: options.bits,
        group_size,
        codes,
        scales: group_scales,
        zeros,
        g_idx: None,
    };
    // The parts were made for each other.
    let matrix = AffineMatrix::from_parts(parts).map_err(|_| AwqError::Shape { out_features, in_features: n })?;
    let (loss, nmse) = measure(weights, scales, &matrix, inputs);
    let clipped_groups = clip.map_or(0, |clip| clip.cuts.iter().filter(|cut| cut.share < 1.0).count());
    Ok(Quantized { matrix, report: Report { loss, nmse, clipped_groups, time: start.elapsed() } })
}

/// Loss and NMSE of what the matrix really holds.
fn measure(weights: &[f32], scales: &[f32], matrix: &AffineMatrix, inputs: Option<&Inputs>) -> (Option<f64>, f64) {
    let n = scales.len();
    let gram = inputs.map(|inputs| &inputs.fit).filter(|gram| gram.count > 0 && gram.is_finite());
    let of_tile = |(tile, weights): (usize, &[f32])| {
        let mut sums = ErrorAccumulator::new();
        let mut errors = vec![0.0f32; weights.len()];
        for (row, (weights, values)) in weights.chunks_exact(n).zip(errors.chunks_exact_mut(n)).enumerate() {
            // `values` is a row long.
            let _ = matrix.dequantize_row_into(tile * TILE + row, values);
            values.iter_mut().zip(scales).for_each(|(v, s)| *v /= s);
            let _ = sums.add(weights, values);
            values.iter_mut().zip(weights).for_each(|(v, w)| *v = w - *v);
        }
        let mut losses = vec![0.0; weights.len() / n];
        if let Some(gram) = gram {
            gram.add_losses(&errors, 0, n, &mut losses);
        }
        (sums, losses.iter().sum::<f64>())
    };
    let tiles: Vec<(ErrorAccumulator, f64)> = weights.par_chunks(TILE * n).enumerate().map(of_tile).collect();
    let (mut all, mut loss) = (ErrorAccumulator::new(), 0.0);
    for (sums, tile) in &tiles {
        all.merge(sums);
        loss += tile;
    }
    (gram.map(|_| loss.max(0.0)).filter(|loss| loss.is_finite()), all.finish().nmse)
}

pub(crate) fn check_scales(scales: &[f32], in_features: usize) -> Result<(), AwqError> {
    if scales.len() != in_features {
        return Err(AwqError::Length { name: "scales", expected: in_features, found: scales.len() });
    }
    match scales.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
        Some(channel) => Err(AwqError::ChannelScale { channel, value: scales[channel] }),
        None => Ok(()),
    }
}
