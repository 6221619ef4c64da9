//! The loops over the weights of a row. [`simd`](crate::simd) compiles them for each instruction set.

use crate::grid::{Grid, Params, range};

/// Columns scaled at a time where a group is longer: the buffer stays on the stack.
const PIECE: usize = 256;

/// What the search may change of a group's grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// The share of the range of its weights that the grid spans, above 0 and at most 1. It decides the codes.
    pub share: f32,
    /// What the grid's scale is multiplied by once the codes are known.
    pub gain: f32,
}

impl Cut {
    /// The whole range.
    pub const NONE: Self = Self { share: 1.0, gain: 1.0 };
}

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

/// `out = w − value(w s) / s` of one row, with a grid for each group of `group_size` columns, cut as `cuts` say (not at all without).
#[inline(always)]
pub(crate) fn errors(
    grid: &Grid,
    group_size: usize,
    weights: &[f32],
    scales: &[f32],
    cuts: Option<&[Cut]>,
    out: &mut [f32],
) {
    let groups = weights.chunks(group_size).zip(scales.chunks(group_size)).zip(out.chunks_mut(group_size));
    for (group, ((weights, scales), out)) in groups.enumerate() {
        group_errors(grid, weights, scales, cuts.map_or(Cut::NONE, |cuts| cuts[group]), out);
    }
}

/// `out = w − value(w s) / s` of one group.
#[inline(always)]
pub(crate) fn group_errors(grid: &Grid, weights: &[f32], scales: &[f32], cut: Cut, out: &mut [f32]) {
    let params = group_params(grid, weights, scales, cut.share);
    let kept = params.with_gain(cut.gain);
    for ((out, &w), &s) in out.iter_mut().zip(weights).zip(scales) {
        *out = w - kept * grid.steps(params, w * s) / s;
    }
}
