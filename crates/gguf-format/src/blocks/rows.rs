//! How rows of values are cut into blocks and handed to a type's kernel. There is at least one row.
//!
//! The loops are macros, not functions that take the kernel as a closure: the call of a closure is not always inlined, and only
//! what is inlined is compiled for the SIMD of its caller (see [`simd`](super::simd)).

use super::lanes::{Lanes, each, sums_of_squares, transpose, zip};
#[cfg(not(feature = "std"))]
use crate::float::SquareRoot as _;

/// Blocks that know nothing of their row: `kernel(values, bytes)`.
macro_rules! each_block {
    ($src:expr, $dst:expr, $kernel:expr) => {
        for (values, bytes) in $src.as_chunks().0.iter().zip($dst.as_chunks_mut().0) {
            $kernel(values, bytes);
        }
    };
}

/// Blocks to values, one block after the other: `kernel(bytes, values)`.
macro_rules! each_read {
    ($src:expr, $dst:expr, $kernel:expr) => {
        for (bytes, values) in $src.as_chunks().0.iter().zip($dst.as_chunks_mut().0) {
            $crate::blocks::simd::one_at_a_time();
            $kernel(bytes, values);
        }
    };
}

/// As [`each_read`], for blocks that begin with a scale in half precision: `kernel(bytes, scale, values)`. The scales of eight blocks are
/// converted at once: one alone takes as long as the codes of its block.
macro_rules! each_scaled {
    ($src:expr, $dst:expr, $kernel:expr) => {{
        let (eights, rest) = $src.as_chunks().0.as_chunks::<8>();
        let (eights_out, rest_out) = $dst.as_chunks_mut().0.as_chunks_mut::<8>();
        for (blocks, values) in eights.iter().zip(eights_out) {
            let bits = $crate::blocks::lanes::each(blocks, |block| u16::from_le_bytes([block[0], block[1]]));
            let scales = $crate::blocks::lanes::each(&bits, $crate::blocks::f16::f16_to_f32);
            let scales = $crate::blocks::simd::in_memory(&scales);
            for ((bytes, values), &scale) in blocks.iter().zip(values).zip(scales) {
                $crate::blocks::simd::one_at_a_time();
                $kernel(bytes, scale, values);
            }
        }
        for (bytes, values) in rest.iter().zip(rest_out) {
            $crate::blocks::simd::one_at_a_time();
            $kernel(bytes, $crate::blocks::packing::scale::<0, _>(bytes), values);
        }
    }};
}

/// Super-blocks, each with the importance of its columns: `kernel(values, importance, bytes)`, or with the lattice behind them.
macro_rules! each_super {
    ($src:expr, $importance:expr, $dst:expr, $kernel:expr, $lattice:expr) => {{
        let lattice = $lattice.get();
        let lattice: &super::lattice::Lattice = &lattice;
        each_super!(@loop $src, $importance, $dst, $kernel, lattice)
    }};
    ($src:expr, $importance:expr, $dst:expr, $kernel:expr) => { each_super!(@loop $src, $importance, $dst, $kernel,) };
    (@loop $src:expr, $importance:expr, $dst:expr, $kernel:expr, $($lattice:expr)?) => {{
        let importance: Option<&[[f32; 256]]> = $importance.map(|importance: &[f32]| importance.as_chunks().0);
        let super_blocks = $src.as_chunks().0.iter().zip($dst.as_chunks_mut().0);
        for (i, (values, bytes)) in super_blocks.enumerate() {
            let importance = match importance {
                Some(importance) => Some(&importance[i % importance.len()]),
                None => None,
            };
            $kernel(values, importance, bytes $(, $lattice)?);
        }
    }};
}

/// Blocks of 32, eight at a time, with importance weights: `kernel(values, lanes, weights, blocks)`.
///
/// The weights are `importance sqrt(row's mean square + x^2)`.
macro_rules! each_weighted {
    ($src:expr, $row_len:expr, $importance:expr, $dst:expr, $kernel:expr) => {
        for (row, out) in $src.chunks_exact($row_len).zip($dst.chunks_exact_mut($dst.len() / ($src.len() / $row_len))) {
            let mean_square = super::lanes::sum_of_squares(row) / $row_len as f32;
            for (i, blocks) in out.as_chunks_mut().0.chunks_mut(8).enumerate() {
                let values = super::rows::eight_at(row, i);
                let lanes = super::lanes::transpose(&values);
                let importance = super::lanes::transpose(&super::rows::eight_at($importance, i));
                let weights = super::rows::weights(&lanes, &importance, &[mean_square; 8]);
                $kernel(&values, &lanes, &weights, blocks);
            }
        }
    };
}

/// Blocks of 32, eight at a time, whose weights come from the block: `kernel(values, lanes, weights, blocks)`.
///
/// The weights are `importance sqrt(2 mean square + x^2)`, without importance `x^2`.
macro_rules! each_eight {
    ($src:expr, $row_len:expr, $importance:expr, $dst:expr, $kernel:expr) => {
        for (row, out) in $src.chunks_exact($row_len).zip($dst.chunks_exact_mut($dst.len() / ($src.len() / $row_len))) {
            for (i, blocks) in out.as_chunks_mut().0.chunks_mut(8).enumerate() {
                let values = super::rows::eight_at(row, i);
                let lanes = super::lanes::transpose(&values);
                let weights = super::rows::block_weights(&lanes, $importance, i);
                $kernel(&values, &lanes, &weights, blocks);
            }
        }
    };
}

pub(super) use {each_block, each_eight, each_read, each_scaled, each_super, each_weighted};

/// The `i`-th eight of blocks of 32 of a row; behind the row's end, zeros.
#[inline(always)]
pub(super) fn eight_at(row: &[f32], i: usize) -> [f32; 256] {
    let rest = &row[256 * i..];
    let mut values = [0.0; 256];
    let n = rest.len().min(256);
    values[..n].copy_from_slice(&rest[..n]);
    values
}

/// `importance sqrt(sigma2 + x^2)`.
#[inline(always)]
pub(super) fn weights<const W: usize, const N: usize>(
    x: &Lanes<W, N>,
    importance: &Lanes<W, N>,
    sigma2: &[f32; W],
) -> Lanes<W, N> {
    let mut weights = *importance;
    for (w, x) in weights.iter_mut().zip(x) {
        for j in 0..W {
            w[j] *= (sigma2[j] + x[j] * x[j]).sqrt();
        }
    }
    weights
}

/// The weights of [`each_eight`].
#[inline(always)]
pub(super) fn block_weights(x: &Lanes<8, 32>, importance: Option<&[f32]>, i: usize) -> Lanes<8, 32> {
    match importance {
        Some(importance) => {
            let sigma2 = each(&sums_of_squares(x), |sum| sum * (2.0 / 32.0));
            weights(x, &transpose(&eight_at(importance, i)), &sigma2)
        }
        None => zip(x, x, |x, _| x * x),
    }
}
