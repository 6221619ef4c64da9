//! How much of a group's range its grid spans (AWQ's clip).
//!
//! A smaller range rounds most weights better and cuts off the largest. For each row and group a few shares of the range are tried; the loss is
//! `e G eᵀ` by the group's own block of the Gram matrix, and with [`Options::sweeps`] by the whole, all other groups as they stand.
//!
//! **No shrinking.** What is cut off makes a row weaker: its output is `1 − b` times what it was, `b = e G w / w G w`, and a search for the least loss
//! likes that, as every regression does. In one layer a hundredth is nothing beside the noise of rounding. But noise adds up like
//! the side of a square, and the same hundredth in every layer adds up as it is; gate, up and down in a row lose it three times. So the scale of each group
//! is multiplied by what gives it its gain back, `w G w / q G w`, before its loss is taken; the codes stay.

use crate::grid::Grid;
use crate::group::check_matrix;
use crate::loss::{Gram, TILE, dot};
use crate::round::check_scales;
use crate::rounding::Cut;
use crate::scale_search::{Declined, Losses};
use crate::{AwqError, Inputs, Options, simd};
use rayon::prelude::*;

/// Shares of the range that are tried, from the whole to the least.
const SHARES: usize = 9;
/// Gains that only numerical accidents ask for.
const MOST_GAIN: f64 = 1.25;

/// The grids of all groups of a matrix.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClipRanges {
    /// `[out_features, groups]`, row-major. All [`Cut::NONE`] if declined.
    pub cuts: Vec<Cut>,
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
/// They are taken if they save at least [`Options::margin`] of the loss of the whole matrix on the rows kept back. AWQ leaves q and k unclipped: a
/// softmax follows, of which the loss knows nothing.
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
    let group_size = options.group_of(n);
    let search = Search {
        grid: Grid::new(options.bits, options.zero_point),
        group_size,
        groups: n.div_ceil(group_size),
        scales,
        n,
        sweeps: options.sweeps,
        damp: options.damp * inputs.fit.mean_diagonal(),
        least_share: least_share(options.bits.get()),
    };
    let mut ranges = ClipRanges {
        cuts: vec![Cut::NONE; out_features * search.groups],
        out_features,
        groups: search.groups,
        fit: Losses::default(),
        check: None,
        declined: inputs.unusable(),
    };
    if ranges.declined.is_some() {
        return Ok(ranges);
    }
    let mut cuts = ranges.cuts.clone();
    let tiles = cuts.par_chunks_mut(TILE * search.groups).zip(weights.par_chunks(TILE * n)).with_max_len(1);
    tiles.for_each(|(cuts, weights)| search.tile(&inputs.fit, weights, cuts));
    ranges.fit = search.losses(&inputs.fit, weights, &cuts);
    ranges.check = inputs.kept_back().map(|check| search.losses(check, weights, &cuts));
    ranges.declined = if !ranges.fit.plain.is_finite() {
        Some(Declined::NonFinite)
    } else if cuts.iter().all(|&cut| cut == Cut::NONE) {
        Some(Declined::NotBetter)
    } else if !ranges.check.unwrap_or(ranges.fit).saves(options.margin) {
        Some(Declined::NotConfirmed)
    } else {
        ranges.cuts = cuts;
        None
    };
    Ok(ranges)
}

/// The least share of a range that is worth a try: with fewer codes more is to be gained.
fn least_share(bits: u8) -> f32 {
    match bits {
        2 => 0.3,
        3 => 0.5,
        4 => 0.6,
        5 => 0.7,
        _ => 0.85,
    }
}

struct Search<'a> {
    grid: Grid,
    group_size: usize,
    groups: usize,
    scales: &'a [f32],
    n: usize,
    sweeps: usize,
    damp: f64,
    least_share: f32,
}

impl Search<'_> {
    /// The best cuts of a few rows, group by group.
    fn tile(&self, gram: &Gram, weights: &[f32], cuts: &mut [Cut]) {
        let (n, rows) = (self.n, weights.len() / self.n);
        // What is left of each weight, and what it does to the output: `E` and `E G`.
        let mut errors = vec![0.0f32; weights.len()];
        for (row, errors) in weights.chunks_exact(n).zip(errors.chunks_exact_mut(n)) {
            simd::errors(&self.grid, self.group_size, row, self.scales, None, errors);
        }
        let mut effects = vec![0.0f32; if self.sweeps > 0 { weights.len() } else { 0 }];
        if self.sweeps > 0 {
            gram.add_products(&errors, n, 0..n, 0..n, 1.0, &mut effects);
        }
        for _ in 0..self.sweeps.max(1) {
            for group in 0..self.groups {
                let first = group * self.group_size;
                let columns = first..n.min(first + self.group_size);
                let width = columns.len();
                let part = |all: &[f32]| -> Vec<f32> {
                    all.chunks_exact(n).flat_map(|row| row[columns.clone()].iter().copied()).collect()
                };
                let (own_weights, before) = (part(weights), part(&errors));
                // `G w` of the group, and what the errors of all other groups do to its columns.
                let mut reach = vec![0.0f32; rows * width];
                gram.add_products(&own_weights, width, columns.clone(), columns.clone(), 1.0, &mut reach);
                let mut others = vec![0.0f32; rows * width];
                if self.sweeps > 0 {
                    others = part(&effects);
                    gram.add_products(&before, width, columns.clone(), columns.clone(), -1.0, &mut others);
                }
                let mut state = GroupState { weights: own_weights, reach, others, errors: before, width };
                let changed = self.group(gram, first, &mut state, group, cuts);
                if self.sweeps == 0 || !changed {
                    continue;
                }
                let rows_of = errors.chunks_exact_mut(n).zip(state.errors.chunks_exact(width));
                let mut change = vec![0.0f32; rows * width];
                for ((row, new), change) in rows_of.zip(change.chunks_exact_mut(width)) {
                    for ((old, new), change) in row[columns.clone()].iter_mut().zip(new).zip(change) {
                        *change = new - *old;
                        *old = *new;
                    }
                }
                gram.add_products(&change, width, columns, 0..n, 1.0, &mut effects);
            }
        }
    }

    /// The best cuts of one group of a few rows; whether any is new. Leaves the errors of the best in `state`.
    fn group(&self, gram: &Gram, first: usize, state: &mut GroupState, group: usize, cuts: &mut [Cut]) -> bool {
        let width = state.width;
        let rows = state.errors.len() / width;
        let scales = &self.scales[first..first + width];
        let mut least = vec![0.0f64; rows];
        gram.add_losses(&state.errors, first, width, &mut least);
        for (row, least) in least.iter_mut().enumerate() {
            let error = state.of(&state.errors, row);
            *least += self.damp * product(error, error) + 2.0 * product(state.of(&state.others, row), error);
        }
        let mut best: Vec<Option<Cut>> = vec![None; rows];
        let mut trial = vec![0.0f32; rows * width];
        let mut losses = vec![0.0f64; rows];
        for step in 0..SHARES {
            let share = 1.0 - (1.0 - self.least_share) * step as f32 / (SHARES - 1) as f32;
            for (weights, trial) in state.weights.chunks_exact(width).zip(trial.chunks_exact_mut(width)) {
                simd::group_errors(&self.grid, weights, scales, Cut { share, gain: 1.0 }, trial);
            }
            losses.fill(0.0);
            gram.add_losses(&trial, first, width, &mut losses);
            for row in 0..rows {
                let (weights, error) = (state.of(&state.weights, row), state.of(&trial, row));
                let (reach, others) = (state.of(&state.reach, row), state.of(&state.others, row));
                let damped = |a, b| self.damp * product(a, b);
                let strength = product(weights, reach) + damped(weights, weights);
                let lost = product(error, reach) + damped(error, weights);
                let squared = losses[row] + damped(error, error);
                let gain = strength / (strength - lost);
                let gain = if gain > 1.0 / MOST_GAIN && gain < MOST_GAIN { gain } else { 1.0 };
                // The error with that gain is `(1 − gain) w + gain e`.
                let (w, e) = (1.0 - gain, gain);
                let own = w * w * strength + 2.0 * w * e * lost + e * e * squared;
                let loss = own + 2.0 * (w * product(others, weights) + e * product(others, error));
                if loss < least[row] {
                    least[row] = loss;
                    best[row] = Some(Cut { share, gain: gain as f32 });
                }
            }
        }
        for (row, cut) in best.iter().enumerate() {
            let Some(cut) = *cut else { continue };
            cuts[row * self.groups + group] = cut;
            let at = row * width..(row + 1) * width;
            simd::group_errors(&self.grid, &state.weights[at.clone()], scales, cut, &mut state.errors[at]);
        }
        best.iter().any(Option::is_some)
    }

    /// Losses of the whole matrix, unclipped and clipped.
    fn losses(&self, gram: &Gram, weights: &[f32], cuts: &[Cut]) -> Losses {
        let of_tile = |(weights, cuts): (&[f32], &[Cut])| {
            let rows = weights.len() / self.n;
            let mut errors = vec![0.0f32; weights.len()];
            let mut sum = |clipped: bool| {
                let tile = weights.chunks_exact(self.n).zip(errors.chunks_exact_mut(self.n));
                for ((row, errors), cuts) in tile.zip(cuts.chunks_exact(self.groups)) {
                    simd::errors(&self.grid, self.group_size, row, self.scales, clipped.then_some(cuts), errors);
                }
                let mut losses = vec![0.0; rows];
                gram.add_losses(&errors, 0, self.n, &mut losses);
                losses.iter().sum::<f64>()
            };
            (sum(false), sum(true))
        };
        let tiles = weights.par_chunks(TILE * self.n).zip(cuts.par_chunks(TILE * self.groups)).with_max_len(1);
        let parts: Vec<(f64, f64)> = tiles.map(of_tile).collect();
        let (plain, best) = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        Losses::of(&[plain], &[best])
    }
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    f64::from(dot(a, b))
}

/// One group of a few rows, `[rows, width]` each.
struct GroupState {
    weights: Vec<f32>,
    /// `w G_gg`.
    reach: Vec<f32>,
    /// `Σ e_h G_hg` over all other groups `h`.
    others: Vec<f32>,
    errors: Vec<f32>,
    width: usize,
}

impl GroupState {
    fn of<'a>(&self, all: &'a [f32], row: usize) -> &'a [f32] {
        &all[row * self.width..(row + 1) * self.width]
    }
}
