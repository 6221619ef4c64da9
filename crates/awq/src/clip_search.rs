//! How much of a group's range its grid spans (AWQ's clip).
//!
//! A smaller range rounds most weights better and cuts off the largest. For each row and group a few shares of the range are tried; the loss is
//! that of the group's own block of the Gram matrix, `e G_gg eᵀ`: the part of the output's error that does not depend on other groups.

use crate::grid::Grid;
use crate::group::check_matrix;
use crate::loss::{Gram, TILE};
use crate::round::check_scales;
use crate::scale_search::{Declined, Losses};
use crate::{AwqError, Inputs, Options, simd};
use rayon::prelude::*;

/// Shares of the range that are tried, beside the whole.
const SHARES: [f32; 8] = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6];

/// The share of its range that the grid of each group spans.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClipRanges {
    /// `[out_features, groups]`, row-major, above 0 and at most 1. All 1 if declined.
    pub shares: Vec<f32>,
    /// Rows.
    pub out_features: usize,
    /// Groups of a row.
    pub groups: usize,
    /// Losses of the whole matrix on the rows to fit to.
    pub fit: Losses,
    /// Losses of the whole matrix on the rows kept back, if there are any.
    pub check: Option<Losses>,
    /// Why nothing was clipped, if nothing was.
    pub declined: Option<Declined>,
}

/// Finds the ranges of a matrix `[out_features, in_features]`, row-major, that is to be rounded with `scales`.
///
/// The ranges are taken if they save at least [`Options::margin`] of the loss of the whole matrix on the rows kept back. Weights of q and k are
/// better not clipped: a softmax follows, which the loss knows nothing of.
///
/// # Errors
/// [`AwqError::Shape`], [`AwqError::Length`], [`AwqError::NonFiniteWeight`], [`AwqError::ChannelScale`], and what is wrong with the options.
pub fn search_clip(
    inputs: &Inputs,
    weights: &[f32],
    out_features: usize,
    scales: &[f32],
    options: &Options,
) -> Result<ClipRanges, AwqError> {
    options.check()?;
    let n = inputs.in_features();
    check_matrix(weights, out_features, n, 0)?;
    check_scales(scales, n)?;
    let search = Search {
        grid: Grid::new(options.bits, options.zero_point),
        group_size: options.group_of(n),
        groups: n.div_ceil(options.group_of(n)),
        scales,
        n,
    };
    let mut ranges = ClipRanges {
        shares: vec![1.0; out_features * search.groups],
        out_features,
        groups: search.groups,
        fit: Losses { plain: 0.0, best: 0.0 },
        check: None,
        declined: None,
    };
    if inputs.abs_mean.iter().all(|&a| a == 0.0) {
        ranges.declined = Some(Declined::NoInput);
        return Ok(ranges);
    }
    if !inputs.fit.is_finite() || !inputs.check.as_ref().is_none_or(Gram::is_finite) {
        ranges.declined = Some(Declined::NonFinite);
        return Ok(ranges);
    }
    let mut shares = ranges.shares.clone();
    let tiles = shares.par_chunks_mut(TILE * search.groups).zip(weights.par_chunks(TILE * n)).with_max_len(1);
    tiles.for_each(|(shares, weights)| search.tile(&inputs.fit, weights, shares));
    ranges.fit = search.losses(&inputs.fit, weights, &shares);
    if let Some(check) = inputs.check.as_ref().filter(|check| check.count > 0) {
        ranges.check = Some(search.losses(check, weights, &shares));
    }
    let judged = ranges.check.unwrap_or(ranges.fit);
    ranges.declined = match () {
        _ if !ranges.fit.plain.is_finite() => Some(Declined::NonFinite),
        _ if shares.iter().all(|&share| share == 1.0) => Some(Declined::NotBetter),
        // Written so that NaN is refused too.
        _ if !(judged.best < judged.plain && judged.gain() >= options.margin) => Some(Declined::NotConfirmed),
        _ => None,
    };
    if ranges.declined.is_none() {
        ranges.shares = shares;
    }
    Ok(ranges)
}

struct Search<'a> {
    grid: Grid,
    group_size: usize,
    groups: usize,
    scales: &'a [f32],
    n: usize,
}

impl Search<'_> {
    /// The best shares of a few rows, group by group.
    fn tile(&self, gram: &Gram, weights: &[f32], shares: &mut [f32]) {
        let rows = weights.len() / self.n;
        let mut errors = vec![0.0f32; rows * self.group_size];
        let mut losses = vec![0.0; rows];
        let mut least = vec![0.0; rows];
        for group in 0..self.groups {
            let first = group * self.group_size;
            let width = self.group_size.min(self.n - first);
            let errors = &mut errors[..rows * width];
            let scales = &self.scales[first..first + width];
            for (index, share) in std::iter::once(1.0).chain(SHARES).enumerate() {
                for (row, errors) in weights.chunks_exact(self.n).zip(errors.chunks_exact_mut(width)) {
                    simd::range_errors(&self.grid, &row[first..first + width], scales, share, errors);
                }
                losses.fill(0.0);
                gram.add_losses(errors, first, width, &mut losses);
                for (row, (loss, least)) in losses.iter().zip(&mut least).enumerate() {
                    if index == 0 || *loss < *least {
                        *least = *loss;
                        shares[row * self.groups + group] = share;
                    }
                }
            }
        }
    }

    /// Losses of the whole matrix, unclipped and clipped.
    fn losses(&self, gram: &Gram, weights: &[f32], shares: &[f32]) -> Losses {
        let of_tile = |(weights, shares): (&[f32], &[f32])| {
            let rows = weights.len() / self.n;
            let mut errors = vec![0.0f32; weights.len()];
            let mut sum = |clipped: bool| {
                let tile = weights.chunks_exact(self.n).zip(errors.chunks_exact_mut(self.n));
                for ((row, errors), shares) in tile.zip(shares.chunks_exact(self.groups)) {
                    let shares = clipped.then_some(shares);
                    simd::errors(&self.grid, self.group_size, row, self.scales, shares, errors);
                }
                let mut losses = vec![0.0; rows];
                gram.add_losses(&errors, 0, self.n, &mut losses);
                losses.iter().sum::<f64>()
            };
            (sum(false), sum(true))
        };
        let tiles = weights.par_chunks(TILE * self.n).zip(shares.par_chunks(TILE * self.groups)).with_max_len(1);
        let parts: Vec<(f64, f64)> = tiles.map(of_tile).collect();
        let (plain, best) = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        Losses { plain, best }
    }
}
