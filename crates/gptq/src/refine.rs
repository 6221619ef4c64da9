//! What one pass over the columns leaves behind is not yet the least loss: codes that were right when their turn came need not be once
//! all others are known.
//!
//! A sweep takes each column again and gives it the code that is best while all others stay, which is the nearest to
//! `q_i + [(W − Q) H]_i / H_ii` (coordinate descent, as in QuantEase, arXiv 2309.01885). Before that each group's scale moves to
//! where the loss is least with the codes as they are. Neither step can raise the loss.

use crate::codec::{GroupCodec, LANES};
use crate::factor::{Factor, Triangle};
use crate::order::BLOCK;
use crate::solver::{Lane, Tile, with_errors};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::ops::Range;

/// One sweep over all columns of a tile.
#[inline(always)]
pub(crate) fn sweep<C: GroupCodec, const FUSED: bool>(
    codec: &C,
    factor: &Factor,
    triangle: &Triangle,
    tile: &mut Tile<C::Params>,
) {
    let order = &factor.order;
    let blocks = order.spans().into_iter().flat_map(|span| match span.len() {
        0..=BLOCK => vec![span],
        _ => order.pieces(span),
    });
    let mut square = vec![0.0; BLOCK * BLOCK];
    let mut gradient: Vec<Lane> = Vec::with_capacity(BLOCK);
    for block in blocks {
        let size = block.len();
        triangle.copy_hessian(&block, &factor.diagonal, &mut square);
        let outside = from_outside(triangle, &block, &tile.errors);
        let mut start = block.start;
        while start < block.end {
            let group = order.group(order.groups[start] as usize).len();
            let whole = !order.is_static() && order.starts_group(start) && start + group <= block.end;
            let end = if whole { start + group } else { block.end };
            let inner = start - block.start..end - block.start;
            if whole {
                // No closures around arithmetic here: they would be compiled without the wide vectors.
                gradient.clear();
                for i in inner.clone() {
                    let row = &square[i * size..][..size];
                    gradient.push(with_errors::<FUSED>(&outside[i], row, &tile.errors[block.clone()]));
                }
                rescale::<C, FUSED>(
                    codec,
                    factor,
                    tile,
                    start..end,
                    &gradient,
                    &square[inner.start * size + inner.start..],
                    size,
                );
            }
            for i in inner {
                let at = block.start + i;
                let row = &square[i * size..][..size];
                let gradient = with_errors::<FUSED>(&outside[i], row, &tile.errors[block.clone()]);
                let params = &tile.params[order.groups[at] as usize];
                let slot = order.slots[at] as usize;
                let mut gain = [0.0f32; LANES];
                for lane in 0..LANES {
                    let value = tile.target[at][lane] - tile.errors[at][lane];
                    let (code, nearest) = codec.round(&params[lane], slot, value + gradient[lane] / row[i]);
                    let step = value - nearest;
                    gain[lane] = step * (2.0 * gradient[lane] + step * row[i]);
                    tile.codes[at][lane] = code;
                    tile.errors[at][lane] = tile.target[at][lane] - nearest;
                }
                tile.loss += gain.iter().map(|&v| f64::from(v)).sum::<f64>();
            }
            start = end;
        }
    }
}

/// Moves the scale of the group at `range` to where the loss is least for its codes, where what the codec makes of that lowers the loss.
///
/// With the values `v` of the group and a factor `1 + r` the loss changes by `−2 r v·g + r² v H v`, `g` the gradient. `hessian` begins at
/// the group's first element of `H`; its rows are `stride` apart.
#[inline(always)]
fn rescale<C: GroupCodec, const FUSED: bool>(
    codec: &C,
    factor: &Factor,
    tile: &mut Tile<C::Params>,
    range: Range<usize>,
    gradient: &[Lane],
    hessian: &[f32],
    stride: usize,
) {
    let order = &factor.order;
    let group = order.groups[range.start] as usize;
    let mut values = [[0.0f32; LANES]; BLOCK];
    let values = &mut values[..range.len()];
    // The value farthest from zero tells best what became of the factor when the codec rounded the new scale.
    let (mut largest, mut at_largest) = ([0.0f32; LANES], [range.start; LANES]);
    for (value, at) in values.iter_mut().zip(range.clone()) {
        for lane in 0..LANES {
            value[lane] = tile.target[at][lane] - tile.errors[at][lane];
            if value[lane].abs() > largest[lane].abs() {
                (largest[lane], at_largest[lane]) = (value[lane], at);
            }
        }
    }
    let (mut along, mut curvature) = ([0.0f32; LANES], [0.0f32; LANES]);
    for i in 0..values.len() {
        let product = with_errors::<FUSED>(&[0.0; LANES], &hessian[i * stride..][..values.len()], values);
        for lane in 0..LANES {
            along[lane] += values[i][lane] * gradient[i][lane];
            curvature[lane] += values[i][lane] * product[lane];
        }
    }
    let mut params = tile.params[group];
    for lane in 0..LANES {
        if curvature[lane] <= 0.0 {
            continue;
        }
        let at = at_largest[lane];
        let new = codec.rescaled(&params[lane], 1.0 + along[lane] / curvature[lane]);
        let moved = codec.value(&new, order.slots[at] as usize, tile.codes[at][lane]) / largest[lane] - 1.0;
        let gain = moved * (moved * curvature[lane] - 2.0 * along[lane]);
        if gain < 0.0 {
            params[lane] = new;
            tile.loss += f64::from(gain);
        }
    }
    tile.params[group] = params;
    for at in range {
        for (lane, params) in params.iter().enumerate() {
            let value = codec.value(params, order.slots[at] as usize, tile.codes[at][lane]);
            tile.errors[at][lane] = tile.target[at][lane] - value;
        }
    }
}

/// `(W − Q) H` at the columns of a block, as far as it comes from the columns outside.
pub(crate) fn from_outside(triangle: &Triangle, block: &Range<usize>, errors: &[Lane]) -> Vec<Lane> {
    let (n, size) = (errors.len(), block.len());
    let mut out = vec![[0.0; LANES]; size];
    // Above the diagonal of `lower` stands `H`: its columns of the block down to it, its rows from behind it.
    if block.start > 0 {
        matmul(
            MatMut::from_column_major_slice_mut(out.as_flattened_mut(), LANES, size),
            Accum::Add,
            MatRef::from_column_major_slice(errors[..block.start].as_flattened(), LANES, block.start),
            MatRef::from_row_major_slice_with_stride(&triangle.lower[block.start..], block.start, size, n),
            1.0,
            Par::Seq,
        );
    }
    if block.end < n {
        matmul(
            MatMut::from_column_major_slice_mut(out.as_flattened_mut(), LANES, size),
            Accum::Add,
            MatRef::from_column_major_slice(errors[block.end..].as_flattened(), LANES, n - block.end),
            MatRef::from_column_major_slice_with_stride(
                &triangle.lower[block.start * n + block.end..],
                n - block.end,
                size,
                n,
            ),
            1.0,
            Par::Seq,
        );
    }
    out
}
