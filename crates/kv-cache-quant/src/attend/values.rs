//! The weighted values of a block, added to what rows have summed so far.

use super::keys::{Floats, Next, STRIDE, four};
use crate::encode::MAX_CHANNELS;
use crate::layout::{IntCode, Region};
use crate::simd::{FACTOR_MAX, Simd};

/// Rows of sums, `row_len` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) p: *mut f32,
    pub(crate) row_len: usize,
}

/// `sums = sums * decay + weights * values` for the first `len` tokens. `weights` is `[R][STRIDE]`, zero behind `len` up to a whole 16.
///
/// # Safety
/// The instruction set of S; `bytes` is such a region; `sums` has R rows of `channels`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn int_values<S: Simd, const R: usize, const BITS: usize, const GRIDS: bool>(
    region: &Region,
    code: &IntCode,
    bytes: &[u8],
    len: usize,
    weights: *const f32,
    decay: &[f32; R],
    next: Next,
    sums: Rows,
) {
    let (low_stride, high_stride) = region.strides(*code);
    // Tokens beyond `len` up to whole 16s have weight zero.
    let (tiles, quads) = (len.div_ceil(16), len.div_ceil(16) * 4);
    let mut factors = [[0u64; STRIDE / 4]; R];
    let mut grids = [0u32; STRIDE / 4];
    // SAFETY: the caller's.
    unsafe {
        let table = S::table(code.table.as_ptr());
        let p = bytes.as_ptr();
        for g in 0..code.groups(region.channels) {
            let scales = p.add(region.scale_at(g, 0));
            let (mut units, mut starts, mut mins) = ([0.0f32; R], [0i32; R], [0.0f32; R]);
            for r in 0..R {
                let weights = weights.add(r * STRIDE);
                let mut scaled = [S::splat(0.0); STRIDE / 16];
                let mut largest = S::splat(0.0);
                for (t, scaled) in scaled.iter_mut().enumerate().take(tiles) {
                    let at = scales.add(32 * t);
                    let scale = if GRIDS { S::abs_halves(at) } else { S::halves(at) };
                    *scaled = S::mul(S::load(weights.add(16 * t)), scale);
                    let negative = S::sub(S::splat(0.0), *scaled);
                    largest = S::max(largest, S::max(*scaled, negative));
                }
                let largest = S::largest(largest);
                // Below 1e-30 the quotient would not be finite, and the sum is nothing.
                if largest > 1e-30 {
                    let inverse = S::splat(FACTOR_MAX / largest);
                    units[r] = largest / FACTOR_MAX;
                    for (t, scaled) in scaled.iter().enumerate().take(tiles) {
                        // Wraps only where a scale was not finite.
                        let sum = S::quads(S::mul(*scaled, inverse), factors[r].as_mut_ptr().add(4 * t));
                        starts[r] = starts[r].wrapping_sub(sum.wrapping_mul(128));
                    }
                } else {
                    factors[r].fill(0);
                }
                if code.min {
                    let mut sum = S::splat(0.0);
                    for t in 0..tiles {
                        let min = S::halves(scales.add(region.mins - region.scales + 32 * t));
                        let min = S::fma(S::halves(scales.add(32 * t)), S::splat(code.middle() as f32), min);
                        sum = S::fma(S::load(weights.add(16 * t)), min, sum);
                    }
                    mins[r] = S::sum(sum);
                }
            }
            if GRIDS {
                for (quad, grid) in grids.iter_mut().enumerate().take(quads) {
                    // The signs of four scales: bit 7 of their high bytes, to bit 4 of four bytes.
                    let four = scales.add(8 * quad).cast::<u64>().read_unaligned().to_le() & 0x8000_8000_8000_8000;
                    let spread = four >> 11;
                    *grid =
                        (spread | spread >> 8) as u32 & 0x1010 | ((spread >> 32 | spread >> 40) as u32 & 0x1010) << 16;
                }
            }
            let channels = g * code.group..((g + 1) * code.group).min(region.channels);
            for chunk in channels.start / 16..channels.end / 16 {
                let (low, high) = (p.add(chunk * low_stride), p.add(region.high + chunk * high_stride));
                next.fetch::<S>(chunk, region.channels / 16);
                let mut acc: [S::A; R] = std::array::from_fn(|r| S::sums(starts[r]));
                let mut at = 0;
                macro_rules! add_four {
                    ($offset:expr) => {
                        let codes = four::<S, BITS, $offset>(low, high, at);
                        for (j, mut c) in codes.into_iter().enumerate() {
                            if GRIDS {
                                c = S::or(c, S::splat_quad(*grids.get_unchecked(at + j)));
                            }
                            if BITS != 8 {
                                c = S::lookup(table, c);
                            }
                            for (r, acc) in acc.iter_mut().enumerate() {
                                *acc = S::dot(*acc, c, factors[r].as_ptr().add(at + j));
                            }
                        }
                        at += 4;
                    };
                }
                while at < quads {
                    add_four!(0);
                    if at < quads {
                        add_four!(4);
                    }
                }
                for r in 0..R {
                    let p = sums.p.add(r * sums.row_len + 16 * chunk);
                    let old = S::fma(S::load(p), S::splat(decay[r]), S::splat(mins[r]));
                    S::store(p, S::fma(S::totals(acc[r]), S::splat(units[r]), old));
                }
            }
        }
    }
}

/// As [`int_values`], for floats.
///
/// # Safety
/// As for [`int_values`].
#[inline(always)]
pub(crate) unsafe fn float_values<S: Simd, const R: usize, F: Floats>(
    region: &Region,
    bytes: &[u8],
    len: usize,
    weights: *const f32,
    decay: &[f32; R],
    next: Next,
    sums: Rows,
) {
    const { assert!(MAX_CHANNELS.is_multiple_of(16)) };
    let factor = F::FACTOR * region.stored_scale(bytes);
    // SAFETY: the caller's.
    unsafe {
        for chunk in 0..region.channels / 16 {
            let p = bytes.as_ptr().add(chunk * region.tokens * F::BYTES);
            next.fetch::<S>(chunk, region.channels / 16);
            let mut acc = [[S::splat(0.0); R]; 2];
            // The weight behind the last token is zero.
            for t in (0..len).step_by(2) {
                for (half, acc) in acc.iter_mut().enumerate() {
                    let x = F::read::<S>(p.add((t + half) * F::BYTES));
                    for (r, acc) in acc.iter_mut().enumerate() {
                        *acc = S::fma(x, S::splat(*weights.add(r * STRIDE + t + half)), *acc);
                    }
                }
            }
            for r in 0..R {
                let p = sums.p.add(r * sums.row_len + 16 * chunk);
                let new = S::mul(S::add(acc[0][r], acc[1][r]), S::splat(factor));
                S::store(p, S::fma(S::load(p), S::splat(decay[r]), new));
            }
        }
    }
}
