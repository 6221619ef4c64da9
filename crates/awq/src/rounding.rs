//! The loops over the weights of a row. [`simd`](crate::simd) compiles them for each instruction set.

use crate::grid::{Grid, Params, range};

/// Columns scaled at a time where a group is longer: the buffer stays on the stack.
const PIECE: usize = 256;

/// The grid of a group of weights times `scales`, which spans `share` of their range.
#[inline(always)]
pub(crate) fn group_params(grid: &Grid, weights: &[f32], scales: &[f32], share: f32) -> Params {
    let (mut low, mut high) = (0.0f32, 0.0f32);
    let mut scaled = [0.0f32; PIECE];
    for (weights, scales) in weights.chunks(PIECE).zip(scales.chunks(PIECE)) {
        let scaled = &mut scaled[..weights.len()];
        scaled.iter_mut().zip(weights).zip(scales).for_each(|((out, w), s)| *out = w * s);
        let (l, h) = range(scaled);
        (low, high) = (low.min(l), high.max(h));
    }
    grid.spanning(low * share, high * share)
}

/// `out = w − value(w s) / s` of one row, with a grid for each group of `group_size` columns, which spans the group's share of its range (all
/// of it without `shares`).
#[inline(always)]
pub(crate) fn errors(
    grid: &Grid,
    group_size: usize,
    weights: &[f32],
    scales: &[f32],
    shares: Option<&[f32]>,
    out: &mut [f32],
) {
    let groups = weights.chunks(group_size).zip(scales.chunks(group_size)).zip(out.chunks_mut(group_size));
    for (group, ((weights, scales), out)) in groups.enumerate() {
        let share = shares.map_or(1.0, |shares| shares[group]);
        range_errors(grid, weights, scales, share, out);
    }
}

/// `out = w − value(w s) / s` of one group, whose grid spans `share` of its range.
#[inline(always)]
pub(crate) fn range_errors(grid: &Grid, weights: &[f32], scales: &[f32], share: f32, out: &mut [f32]) {
    let params = group_params(grid, weights, scales, share);
    for ((out, &w), &s) in out.iter_mut().zip(weights).zip(scales) {
        *out = w - grid.value(params, w * s) / s;
    }
}
