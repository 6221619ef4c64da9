//! Outputs as large as they were.
//!
//! What is fitted by least squares is shrunk: at the best codes and scales the error is orthogonal to what is left, so `q H wᵀ < w H wᵀ`, and the output of a row is
//! a little less of what it was, by about its relative loss. Beside the rounding noise of one layer that is nothing. But noise of many layers adds up like the root of their
//! number, while a per cent less in each of them adds up as it is. So each row's scales are multiplied by `w G wᵀ / q G wᵀ`, `G = Σ x xᵀ`, once its codes are
//! known: the output then has no part of the original missing, for hardly more loss.

use crate::codec::{GroupCodec, LANES};
use crate::factor::{Factor, Triangle};
use crate::order::BLOCK;
use crate::refine::from_outside;
use crate::solver::{Lane, Tile, with_errors};

/// A factor farther from 1 is no matter of gain.
const MOST: f64 = 2.0;

/// Gives each row of a tile its gain back, and computes the loss anew.
#[inline(always)]
pub(crate) fn restore<C: GroupCodec, const FUSED: bool>(
    codec: &C,
    factor: &Factor,
    triangle: &Triangle,
    tile: &mut Tile<C::Params>,
) {
    let order = &factor.order;
    let mut whole = products::<FUSED>(factor, triangle, &tile.target, &tile.target);
    let mut lost = products::<FUSED>(factor, triangle, &tile.target, &tile.errors);
    // Of the inputs that were seen: damping and shrinkage are no part of an output.
    for (at, (target, errors)) in tile.target.iter().zip(&tile.errors).enumerate() {
        let ridge = factor.ridge(at);
        for lane in 0..LANES {
            whole[lane] -= ridge * f64::from(target[lane]) * f64::from(target[lane]);
            lost[lane] -= ridge * f64::from(target[lane]) * f64::from(errors[lane]);
        }
    }
    let mut factors = [1.0f32; LANES];
    for lane in 0..LANES {
        let ratio = whole[lane] / (whole[lane] - lost[lane]);
        if ratio > 1.0 / MOST && ratio < MOST {
            factors[lane] = ratio as f32;
        }
    }
    for params in &mut tile.params {
        params.iter_mut().zip(&factors).for_each(|(params, &by)| *params = codec.rescaled(params, by));
    }
    for at in 0..tile.errors.len() {
        let params = &tile.params[order.groups[at] as usize];
        for (lane, params) in params.iter().enumerate() {
            let value = codec.value(params, order.slots[at] as usize, tile.codes[at][lane]);
            tile.errors[at][lane] = tile.target[at][lane] - value;
        }
    }
    tile.loss = products::<FUSED>(factor, triangle, &tile.errors, &tile.errors).iter().sum();
}

/// `a H bᵀ` of each row.
#[inline(always)]
fn products<const FUSED: bool>(factor: &Factor, triangle: &Triangle, a: &[Lane], b: &[Lane]) -> [f64; LANES] {
    let n = factor.in_features();
    let mut square = vec![0.0; BLOCK * BLOCK];
    let mut sums = [0.0f64; LANES];
    for start in (0..n).step_by(BLOCK) {
        let block = start..n.min(start + BLOCK);
        let size = block.len();
        triangle.copy_hessian(&block, &factor.diagonal, &mut square);
        let outside = from_outside(triangle, &block, b);
        for i in 0..size {
            let product = with_errors::<FUSED>(&outside[i], &square[i * size..][..size], &b[block.clone()]);
            for lane in 0..LANES {
                sums[lane] += f64::from(a[start + i][lane]) * f64::from(product[lane]);
            }
        }
    }
    sums
}
