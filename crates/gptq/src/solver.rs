//! GPTQ on one page (arXiv 2210.17323, algorithm 1), for any [`GroupCodec`].
//!
//! | paper | here | |
//! |---|---|---|
//! | `W`, `w` | `target` | weights by position in the order of the columns, a row of the matrix in each of the [`LANES`] lanes of a tile |
//! | `Q`, `quant(w)` | `value` | rounded weights |
//! | `W − Q` | `errors` | |
//! | `H⁻¹`, `[H⁻¹]_qq` | `lower`, `1 / pivots` | `L̃` and `D`, see [`Factor`] |
//! | `W` after its updates | `updated`, `foreseen` | `w'_i = w_i + Σ_{j<i} L̃_ij (w_j − q_j)` |
//! | `B` | `BLOCK` | columns brought up to date by one matrix product |
//!
//! `tr((W − Q) H (W − Q)ᵀ) = Σ_i D_i (w'_i − q_i)²`: a column's part of the loss is final once it is rounded, and the sum over a group
//! is all that the group's parameters can change of what came before. Parameters are tried by running the group.

use crate::codec::{GroupCodec, LANES};
use crate::factor::{Factor, Triangle};
use crate::order::ColumnOrder;
use crate::{FitFrom, Passes, gain, refine, simd};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use std::ops::Range;

/// A value of each row of a tile.
pub(crate) type Lane = [f32; LANES];

/// Codes and parameters of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution<P> {
    /// `[out_features, in_features]`, row-major, columns in their natural order.
    pub codes: Vec<u8>,
    /// `[out_features, groups]`, row-major.
    pub params: Vec<P>,
    /// `tr((W − Q) Σ x xᵀ (W − Q)ᵀ) / n`: the squared error of the outputs, summed over them, mean over the calibration rows. Without the
    /// damping. `None` if the factor is a fallback.
    pub loss: Option<f64>,
}

/// Quantizes `weights`, `[out_features, in_features]` row-major, all finite. The result does not depend on the number of threads.
///
/// # Panics
/// If `weights` is not whole rows of `factor.in_features()` values: the caller's check is missing.
pub(crate) fn solve<C: GroupCodec>(codec: &C, factor: &Factor, weights: &[f32], passes: Passes) -> Solution<C::Params> {
    let n = factor.in_features();
    assert!(weights.len().is_multiple_of(n));
    let groups = n.div_ceil(factor.order.group_size);
    let mut codes = vec![0u8; weights.len()];
    let mut params = vec![C::Params::default(); weights.len() / n * groups];
    let tiles = codes.par_chunks_mut(LANES * n).zip(params.par_chunks_mut(LANES * groups));
    let tiles = tiles.zip(weights.par_chunks(LANES * n)).with_max_len(1);
    let sums: Vec<(f64, f64)> = tiles
        .map(|((codes, params), weights)| {
            let mut tile = Tile::new(factor, weights, groups);
            simd::solve_tile(codec, factor, passes, &mut tile);
            tile.write(factor, codes, params)
        })
        .collect();
    // In the order of the tiles, so that the sum is the same for any number of threads.
    let (whole, ridge) = sums.iter().fold((0.0, 0.0), |sum, tile| (sum.0 + tile.0, sum.1 + tile.1));
    let loss = ((whole - ridge) / (1.0 - factor.shrink)).max(0.0) * factor.mean / factor.rows.max(1) as f64;
    Solution { codes, params, loss: factor.triangle.is_ok().then_some(loss) }
}

/// [`LANES`] rows on their way.
pub(crate) struct Tile<P> {
    pub(crate) target: Vec<Lane>,
    updated: Vec<Lane>,
    foreseen: Vec<Lane>,
    pub(crate) errors: Vec<Lane>,
    pub(crate) codes: Vec<[u8; LANES]>,
    /// By group.
    pub(crate) params: Vec<[P; LANES]>,
    /// With damping, of a Hessian divided by its mean diagonal.
    pub(crate) loss: f64,
}

/// The rows of a tile, column by column. Compiled for each instruction set by [`simd`].
#[inline(always)]
pub(crate) fn solve_tile<C: GroupCodec, const FUSED: bool>(
    codec: &C,
    factor: &Factor,
    passes: Passes,
    tile: &mut Tile<C::Params>,
) {
    let order = &factor.order;
    let Ok(triangle) = &factor.triangle else {
        return round_to_nearest(codec, factor, tile);
    };
    let Triangle { lower, pivots } = triangle;
    let from = passes.fit_from;
    let Tile { target, updated, foreseen, errors, codes, params, loss } = tile;
    if order.is_static() {
        for group in 0..params.len() {
            fit(codec, order, group, target, &factor.diagonal, params);
        }
    }
    for span in order.spans() {
        // What the errors of all columns before the span add to it.
        updated[span.clone()].copy_from_slice(&target[span.clone()]);
        feed_back(lower, &span, 0..span.start, errors, updated);
        let pieces = order.pieces(span.clone());
        // The groups to be fitted before a piece is rounded, with the positions they take.
        let fitted_at = |piece: &Range<usize>| match from {
            _ if order.is_static() => None,
            FitFrom::BlockStart => (piece.start == span.start).then(|| span.clone()),
            FitFrom::Updated => order.starts_group(piece.start).then(|| order.run_of(piece.start)),
        };
        for piece in &pieces {
            feed_back(lower, piece, span.start..piece.start, errors, updated);
            if let Some(range) = fitted_at(piece) {
                foresee::<FUSED>(lower, &range, &pieces, target, updated, errors, foreseen);
                for start in range.filter(|&at| order.starts_group(at)) {
                    fit(codec, order, order.groups[start] as usize, foreseen, pivots, params);
                }
            }
            let piece = Piece { order, lower, pivots, target, updated, range: piece.clone() };
            if from == FitFrom::Updated && piece.is_whole_group() {
                let group = order.groups[piece.range.start] as usize;
                params[group] = piece.best_variants::<C, FUSED>(codec, params[group], group, errors, codes);
            }
            let losses = piece.round::<C, FUSED>(codec, params, 0, errors, codes);
            *loss += losses.iter().map(|&v| f64::from(v)).sum::<f64>();
        }
    }
    for _ in 0..passes.refine {
        refine::sweep::<C, FUSED>(codec, factor, triangle, tile);
    }
    if passes.keep_gain {
        gain::restore::<C, FUSED>(codec, factor, triangle, tile);
    }
}

/// `updated_i += Σ_j L̃_ij errors_j` for `i` in `to` and `j` in `from`.
fn feed_back(lower: &[f32], to: &Range<usize>, from: Range<usize>, errors: &[Lane], updated: &mut [Lane]) {
    if from.is_empty() {
        return;
    }
    let n = updated.len();
    matmul(
        MatMut::from_column_major_slice_mut(updated[to.clone()].as_flattened_mut(), LANES, to.len()),
        Accum::Add,
        MatRef::from_column_major_slice(errors[from.clone()].as_flattened(), LANES, from.len()),
        MatRef::from_column_major_slice_with_stride(&lower[to.start * n + from.start..], from.len(), to.len(), n),
        1.0,
        Par::Seq,
    );
}

/// The weights of groups that are about to be rounded: with the errors of all columns before made good by all columns of `range` together.
///
/// `updated` is that sum only for the first of them, as a column also answers to its neighbours moving. That is the recursion of the
/// solver without its rounding. Overwrites `errors` of `range`, which have yet to be made.
#[inline(always)]
fn foresee<const FUSED: bool>(
    lower: &[f32],
    range: &Range<usize>,
    pieces: &[Range<usize>],
    target: &[Lane],
    updated: &[Lane],
    errors: &mut [Lane],
    foreseen: &mut [Lane],
) {
    let n = updated.len();
    foreseen[range.clone()].copy_from_slice(&updated[range.clone()]);
    for piece in pieces.iter().filter(|piece| piece.start >= range.start && piece.end <= range.end) {
        feed_back(lower, piece, range.start..piece.start, errors, foreseen);
        for i in piece.clone() {
            foreseen[i] =
                with_errors::<FUSED>(&foreseen[i], &lower[i * n + piece.start..i * n + i], &errors[piece.start..i]);
            for lane in 0..LANES {
                errors[i][lane] = target[i][lane] - foreseen[i][lane];
            }
        }
    }
}

/// `start + Σ_j factors_j errors_j`.
#[inline(always)]
pub(crate) fn with_errors<const FUSED: bool>(start: &Lane, factors: &[f32], errors: &[Lane]) -> Lane {
    // Sums of a part of the lanes: they stay in registers, and none waits for its last multiply-add.
    const PART: usize = 16;
    let mut out = *start;
    let (factors, errors) = (factors.as_chunks::<4>(), errors.as_chunks::<4>());
    for (part, out) in out.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let (mut a, mut b, mut c, mut d) = (*out, [0.0f32; PART], [0.0f32; PART], [0.0f32; PART]);
        for (factors, errors) in factors.0.iter().zip(errors.0) {
            let [e0, e1, e2, e3] = errors.each_ref().map(|errors| &errors.as_chunks::<PART>().0[part]);
            for lane in 0..PART {
                a[lane] = multiply_add::<FUSED>(factors[0], e0[lane], a[lane]);
            }
            for lane in 0..PART {
                b[lane] = multiply_add::<FUSED>(factors[1], e1[lane], b[lane]);
            }
            for lane in 0..PART {
                c[lane] = multiply_add::<FUSED>(factors[2], e2[lane], c[lane]);
            }
            for lane in 0..PART {
                d[lane] = multiply_add::<FUSED>(factors[3], e3[lane], d[lane]);
            }
        }
        for (&factor, errors) in factors.1.iter().zip(errors.1) {
            let errors = &errors.as_chunks::<PART>().0[part];
            for lane in 0..PART {
                a[lane] = multiply_add::<FUSED>(factor, errors[lane], a[lane]);
            }
        }
        for lane in 0..PART {
            out[lane] = (a[lane] + b[lane]) + (c[lane] + d[lane]);
        }
    }
    out
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { c + a * b }
}

/// Neighbouring columns of one group, or of a block where groups are scattered, whose `updated` lacks only their own errors.
struct Piece<'a> {
    order: &'a ColumnOrder,
    lower: &'a [f32],
    pivots: &'a [f32],
    target: &'a [Lane],
    updated: &'a [Lane],
    range: Range<usize>,
}

impl Piece<'_> {
    /// Rounds column after column, each with what the errors of the piece's columns before it add; the loss of each row.
    ///
    /// `params` begins with group `first_group`.
    #[inline(always)]
    fn round<C: GroupCodec, const FUSED: bool>(
        &self,
        codec: &C,
        params: &[[C::Params; LANES]],
        first_group: usize,
        errors: &mut [Lane],
        codes: &mut [[u8; LANES]],
    ) -> Lane {
        let n = self.order.columns.len();
        let start = self.range.start;
        let mut loss = [0.0; LANES];
        for i in self.range.clone() {
            let row = &self.lower[i * n + start..i * n + i];
            let updated = with_errors::<FUSED>(&self.updated[i], row, &errors[start..i]);
            let params = &params[self.order.groups[i] as usize - first_group];
            let slot = self.order.slots[i] as usize;
            for lane in 0..LANES {
                let weight = updated[lane];
                let (code, value) = codec.round(&params[lane], slot, weight);
                codes[i][lane] = code;
                errors[i][lane] = self.target[i][lane] - value;
                loss[lane] += self.pivots[i] * (weight - value) * (weight - value);
            }
        }
        loss
    }

    /// For each row the best of the fitted parameters and their variants, by the loss of the group.
    #[inline(always)]
    fn best_variants<C: GroupCodec, const FUSED: bool>(
        &self,
        codec: &C,
        fitted: [C::Params; LANES],
        group: usize,
        errors: &mut [Lane],
        codes: &mut [[u8; LANES]],
    ) -> [C::Params; LANES] {
        let mut best = fitted;
        if codec.variants() == 0 {
            return best;
        }
        let mut least = self.round::<C, FUSED>(codec, &[fitted], group, errors, codes);
        for index in 0..codec.variants() {
            let mut trial = fitted;
            trial.iter_mut().for_each(|params| *params = codec.variant(params, index));
            let losses = self.round::<C, FUSED>(codec, &[trial], group, errors, codes);
            for lane in 0..LANES {
                if losses[lane] < least[lane] {
                    (least[lane], best[lane]) = (losses[lane], trial[lane]);
                }
            }
        }
        best
    }

    fn is_whole_group(&self) -> bool {
        !self.order.is_static()
            && self.range.len() == self.order.group(self.order.groups[self.range.start] as usize).len()
    }
}

/// Parameters of a group for each row.
#[inline(always)]
fn fit<C: GroupCodec>(
    codec: &C,
    order: &ColumnOrder,
    group: usize,
    weights: &[Lane],
    importance: &[f32],
    params: &mut [[C::Params; LANES]],
) {
    let positions = order.group(group);
    let importance: Vec<f32> = positions.iter().map(|&at| importance[at as usize]).collect();
    let mut row = vec![0.0; positions.len()];
    for (lane, params) in params[group].iter_mut().enumerate() {
        row.iter_mut().zip(positions).for_each(|(v, &at)| *v = weights[at as usize][lane]);
        *params = codec.fit(&row, &importance);
    }
}

/// Without a Hessian: each weight to its nearest value.
#[inline(always)]
fn round_to_nearest<C: GroupCodec>(codec: &C, factor: &Factor, tile: &mut Tile<C::Params>) {
    let order = &factor.order;
    for group in 0..tile.params.len() {
        fit(codec, order, group, &tile.target, &factor.diagonal, &mut tile.params);
    }
    for (i, weights) in tile.target.iter().enumerate() {
        let params = &tile.params[order.groups[i] as usize];
        for lane in 0..LANES {
            let (code, value) = codec.round(&params[lane], order.slots[i] as usize, weights[lane]);
            tile.codes[i][lane] = code;
            tile.errors[i][lane] = weights[lane] - value;
        }
    }
}

impl<P: Copy + Default> Tile<P> {
    /// At most [`LANES`] rows; lanes without a row are zero.
    fn new(factor: &Factor, weights: &[f32], groups: usize) -> Self {
        let n = factor.in_features();
        let mut target = vec![[0.0; LANES]; n];
        for columns in factor.order.cache_lines() {
            for (lane, row) in weights.chunks_exact(n).enumerate() {
                for &(column, position) in &columns {
                    target[position][lane] = row[column];
                }
            }
        }
        if let Some(shift) = &factor.shift {
            let original = target.clone();
            matmul(
                MatMut::from_column_major_slice_mut(target.as_flattened_mut(), LANES, n),
                Accum::Add,
                MatRef::from_column_major_slice(original.as_flattened(), LANES, n),
                MatRef::from_row_major_slice(shift, n, n),
                1.0,
                Par::Seq,
            );
        }
        Self {
            updated: vec![[0.0; LANES]; n],
            foreseen: vec![[0.0; LANES]; n],
            errors: vec![[0.0; LANES]; n],
            codes: vec![[0; LANES]; n],
            params: vec![[P::default(); LANES]; groups],
            target,
            loss: 0.0,
        }
    }

    /// Puts codes and parameters in their places; the whole loss, and what of it stems from damping and shrinkage.
    fn write(&self, factor: &Factor, codes: &mut [u8], params: &mut [P]) -> (f64, f64) {
        let (n, groups) = (factor.in_features(), self.params.len());
        for columns in factor.order.cache_lines() {
            for (lane, row) in codes.chunks_exact_mut(n).enumerate() {
                columns.iter().for_each(|&(column, position)| row[column] = self.codes[position][lane]);
            }
        }
        for (lane, params) in params.chunks_exact_mut(groups).enumerate() {
            self.params.iter().zip(params).for_each(|(from, to)| *to = from[lane]);
        }
        let of_column = |(at, errors): (usize, &Lane)| {
            factor.ridge(at) * errors.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()
        };
        (self.loss, self.errors.iter().enumerate().map(of_column).sum())
    }
}
