//! The scale of each input channel (arXiv 2306.00978, section 3.2).
//!
//! Weights are rounded as `round(W diag(s)) diag(1/s)`: a channel with a larger `s` keeps more of its precision, and the others of its group lose
//! some. Which channels deserve it is told by their activations; how much, by a search over one ratio `r`:
//!
//! | kind | scale of a channel | |
//! |---|---|---|
//! | identity | 1 | rounding to nearest |
//! | plain | `a^r` | the paper's; `a = mean |x|` |
//! | duo | `a^r / (w^(1−r) + 1e-4)` | AutoAWQ's; `w = mean |W| / max |W of the group|` |
//!
//! then divided by `√(max · min)`, as in AutoAWQ. Where AutoAWQ runs the block for each candidate, the loss of the linear outputs needs the Gram
//! matrix alone: `tr((W − W') G (W − W')ᵀ)`.
//!
//! **No matrix pays for another.** The losses of q, k and v are not of one kind: a softmax takes most of what happens to q and k, and their
//! outputs, in the units of the sum, are often a hundred times those of v. The least sum then makes v worse for the sake of q, and the model with it. So
//! the best candidate is the one whose least profiting matrix profits most: the least `max (loss / loss of plain rounding)`.

use crate::grid::Grid;
use crate::group::ScaleGroup;
use crate::loss::{Gram, TILE};
use crate::{AwqError, Inputs, Options, simd};
use rayon::prelude::*;

/// A family of scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All 1.
    #[default]
    Identity,
    /// `a^r`.
    Plain,
    /// `a^r / w^(1−r)`.
    Duo,
}

/// Why no scale or no clip was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Declined {
    /// No row was seen, or all were zero.
    NoInput,
    /// The Gram matrix, or the loss by it, is NaN or infinite.
    NonFinite,
    /// Nothing was better than plain rounding.
    NotBetter,
    /// Better on the rows to fit to, but not by enough on those kept back.
    NotConfirmed,
}

/// The loss without and with what was found: `tr((W − W') Σ x xᵀ (W − W')ᵀ) / n`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Of plain rounding, summed over the matrices.
    pub plain: f64,
    /// Of the best candidate, taken or not, summed over the matrices.
    pub best: f64,
    /// The largest `best / plain` of a matrix: how the one fares that profits least.
    pub worst: f64,
}

impl Losses {
    /// From the losses of the matrices one by one, without and with what is judged; by another yardstick than this crate's, if the caller has a better one.
    pub fn of(plain: &[f64], best: &[f64]) -> Self {
        Self { plain: plain.iter().sum(), best: best.iter().sum(), worst: worst_ratio(plain, best) }
    }

    /// The part of its loss that every matrix saves at least; negative where one is worse off.
    pub fn gain(&self) -> f64 {
        1.0 - self.worst
    }

    /// Written so that NaN is no.
    pub(crate) fn saves(&self, margin: f64) -> bool {
        self.worst < 1.0 && self.gain() >= margin
    }
}

/// The largest `best / plain`; a matrix without any loss before and after counts as unchanged.
fn worst_ratio(plain: &[f64], best: &[f64]) -> f64 {
    let ratios = plain.iter().zip(best).map(|(plain, best)| if plain == best { 1.0 } else { best / plain });
    // `f64::max` would drop a NaN.
    ratios.fold(0.0, |worst, ratio| if ratio > worst || ratio.is_nan() { ratio } else { worst })
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scales {
    /// One a channel, above 0. All 1 if declined.
    pub values: Vec<f32>,
    /// Family of the best candidate on the rows to fit to, taken or not.
    pub kind: Kind,
    /// Its ratio.
    pub ratio: f64,
    /// Losses on the rows to fit to.
    pub fit: Losses,
    /// Losses on the rows kept back, if there are any.
    pub check: Option<Losses>,
    /// Why the candidate was not taken, if it was not.
    pub declined: Option<Declined>,
}

impl Scales {
    /// All 1, without a search.
    pub fn identity(in_features: usize) -> Self {
        Self {
            values: vec![1.0; in_features],
            kind: Kind::Identity,
            ratio: 0.0,
            fit: Losses::default(),
            check: None,
            declined: None,
        }
    }

    /// Whether all are 1: there is nothing to fold.
    pub fn is_identity(&self) -> bool {
        self.values.iter().all(|&s| s == 1.0)
    }
}

/// Candidates that are compared on all rows.
const FINALISTS: usize = 3;
/// Candidates that one task compares.
const TOGETHER: usize = 8;

/// Finds the scale of the input channels for all matrices of a group.
///
/// The best candidate on the rows to fit to is taken if every matrix saves at least [`Options::margin`] of its loss on the rows kept back; else the
/// scales are 1, and [`Scales::declined`] says why. The result does not depend on the number of threads.
///
/// # Errors
/// [`AwqError::NoMembers`], [`AwqError::Shape`], [`AwqError::Length`], [`AwqError::NonFiniteWeight`], [`AwqError::Tie`], and what is wrong with the
/// options.
pub fn search_scales(inputs: &Inputs, group: &ScaleGroup<'_>, options: &Options) -> Result<Scales, AwqError> {
    let mut ranked = rank_scales(inputs, group, options)?;
    let mut scales = ranked.swap_remove(0);
    if scales.declined.is_none() && !scales.check.unwrap_or(scales.fit).saves(options.margin) {
        scales.declined = Some(Declined::NotConfirmed);
    }
    if scales.declined.is_some() {
        scales.values.fill(1.0);
    }
    Ok(scales)
}

/// The few best candidates by their loss on the rows to fit to, the best first, for a caller with a better judge than the loss of linear outputs. Each has
/// its values, whether they would be taken or not; at least one comes back, and where nothing beats the identity or nothing can be said that
/// is all, declined.
///
/// # Errors
/// As [`search_scales`].
pub fn rank_scales(inputs: &Inputs, group: &ScaleGroup<'_>, options: &Options) -> Result<Vec<Scales>, AwqError> {
    options.check()?;
    let n = inputs.in_features();
    group.check(n)?;
    let mut identity = Scales::identity(n);
    identity.declined = inputs.unusable();
    if identity.declined.is_some() {
        return Ok(vec![identity]);
    }
    let candidates = candidates(inputs, group, options);
    let rater = Rater { group, grid: Grid::new(options.bits, options.zero_point), group_size: options.group_of(n) };
    let all: Vec<usize> = (0..candidates.len()).collect();
    let losses = rater.losses(&inputs.fit, &candidates, &all, options.grid_rows);
    // The identity is the first, and takes part in any case.
    let scores: Vec<f64> = losses.iter().map(|loss| worst_ratio(&losses[0], loss)).collect();
    let mut finalists: Vec<usize> = (1..candidates.len()).filter(|&c| scores[c].is_finite()).collect();
    finalists.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    finalists.truncate(FINALISTS);
    finalists.insert(0, 0);
    let losses = rater.losses(&inputs.fit, &candidates, &finalists, 0);
    let rated: Vec<Losses> = losses.iter().map(|loss| Losses::of(&losses[0], loss)).collect();
    identity.fit = rated[0];
    if !identity.fit.plain.is_finite() {
        identity.declined = Some(Declined::NonFinite);
        return Ok(vec![identity]);
    }
    let mut better: Vec<usize> = (1..finalists.len()).filter(|&i| rated[i].worst < rated[0].worst).collect();
    // Stable: of equals the first.
    better.sort_by(|&a, &b| rated[a].worst.total_cmp(&rated[b].worst));
    if better.is_empty() {
        identity.declined = Some(Declined::NotBetter);
        return Ok(vec![identity]);
    }
    let checked = inputs.kept_back().map(|check| {
        let which: Vec<usize> = std::iter::once(0).chain(better.iter().map(|&i| finalists[i])).collect();
        rater.losses(check, &candidates, &which, 0)
    });
    let scales = better.iter().enumerate().map(|(place, &i)| {
        let candidate = &candidates[finalists[i]];
        Scales {
            values: candidate.values.clone(),
            kind: candidate.kind,
            ratio: candidate.ratio,
            fit: rated[i],
            check: checked.as_ref().map(|losses| Losses::of(&losses[0], &losses[place + 1])),
            declined: None,
        }
    });
    Ok(scales.collect())
}

/// A scale to try.
struct Candidate {
    kind: Kind,
    ratio: f64,
    values: Vec<f32>,
}

/// The identity first, then by kind and rising ratio.
fn candidates(inputs: &Inputs, group: &ScaleGroup<'_>, options: &Options) -> Vec<Candidate> {
    let n = inputs.in_features();
    let activations = positive(group.tied_mean(inputs.abs_mean.clone()));
    let weights = positive(group.tied_mean(group.weight_mean(n, options.group_of(n))));
    let mut candidates = vec![Candidate { kind: Kind::Identity, ratio: 0.0, values: vec![1.0; n] }];
    for (kind, first) in [(Kind::Plain, 1), (Kind::Duo, 0)] {
        for step in first..=options.grid {
            let ratio = step as f64 / options.grid as f64;
            let scale = |(a, w): (&f64, &f64)| match kind {
                Kind::Duo => a.powf(ratio) / (w.powf(1.0 - ratio) + 1e-4),
                _ => a.powf(ratio),
            };
            let values = normalized(activations.iter().zip(&weights).map(scale).collect());
            candidates.push(Candidate { kind, ratio, values });
        }
    }
    candidates
}

/// Zeros become the least value that is not: a channel that the text did not use, or that no weight uses, says nothing about its scale.
fn positive(mut values: Vec<f64>) -> Vec<f64> {
    let least = values.iter().copied().filter(|&v| v > 0.0).fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 1.0 };
    values.iter_mut().filter(|v| **v <= 0.0).for_each(|v| *v = least);
    values
}

/// The largest scale and the inverse of the smallest, at most: what is folded into a norm must stay an f16.
const MOST: f64 = 1024.0;

/// Divided by `√(max · min)`.
fn normalized(values: Vec<f64>) -> Vec<f32> {
    let max = values.iter().copied().fold(0.0, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let middle = max.sqrt() * min.sqrt();
    values.iter().map(|v| (v / middle).clamp(1.0 / MOST, MOST) as f32).collect()
}

/// Computes losses of candidates.
struct Rater<'a> {
    group: &'a ScaleGroup<'a>,
    grid: Grid,
    group_size: usize,
}

impl Rater<'_> {
    /// The losses of each of `which`, matrix by matrix, on at most `rows` rows of each (0 for all), by `gram`.
    fn losses(&self, gram: &Gram, candidates: &[Candidate], which: &[usize], rows: usize) -> Vec<Vec<f64>> {
        let n = gram.dim();
        let members = self.group.members;
        let picked: Vec<Vec<&[f32]>> = members.iter().map(|member| spread_rows(member, n, rows)).collect();
        // A few candidates of a tile in turn: its weights stay in the cache, and there is work for many threads.
        let tasks: Vec<(usize, &[&[f32]], usize)> = picked
            .iter()
            .enumerate()
            .flat_map(|(member, rows)| rows.chunks(TILE).map(move |tile| (member, tile)))
            .flat_map(|(member, tile)| (0..which.len()).step_by(TOGETHER).map(move |first| (member, tile, first)))
            .collect();
        let of_task = |&(_, rows, first): &(usize, &[&[f32]], usize)| -> Vec<f64> {
            let mut errors = vec![0.0f32; rows.len() * n];
            let of_candidate = |&candidate: &usize| {
                for (row, errors) in rows.iter().zip(errors.chunks_exact_mut(n)) {
                    simd::errors(&self.grid, self.group_size, row, &candidates[candidate].values, None, errors);
                }
                let mut losses = vec![0.0; rows.len()];
                gram.add_losses(&errors, 0, n, &mut losses);
                losses.iter().sum()
            };
            which[first..which.len().min(first + TOGETHER)].iter().map(of_candidate).collect()
        };
        let parts: Vec<Vec<f64>> = tasks.par_iter().with_max_len(1).map(of_task).collect();
        // In the order of the tiles, so that the sum is the same for any number of threads.
        let mut sums = vec![vec![0.0; members.len()]; which.len()];
        for (&(member, _, first), part) in tasks.iter().zip(&parts) {
            sums[first..].iter_mut().zip(part).for_each(|(sums, loss)| sums[member] += loss);
        }
        sums
    }
}

/// At most `rows` rows of a matrix, spread evenly; all if `rows` is 0.
fn spread_rows<'a>(member: &crate::Member<'a>, n: usize, rows: usize) -> Vec<&'a [f32]> {
    let count = if rows == 0 { member.out_features } else { rows.min(member.out_features) };
    (0..count).map(|i| &member.weights[(i * member.out_features / count) * n..][..n]).collect()
}
