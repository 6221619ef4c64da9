//! The weighted values of a block, added to what rows have summed so far.

use super::keys::{Floats, Next, STRIDE, four};
use crate::encode::MAX_CHANNELS;
use crate::grids::GRID_BITS;
use crate::layout::{IntCode, Region};
use crate::simd::{FACTOR_MAX, Simd};

/// Rows of sums, `row_len` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) p: *mut f32,
    pub(crate) row_len: usize,
}

/// Tiles of a block.
const TILES: usize = STRIDE / 16;

/// The scales of 16 tokens for the channels that a group's scale bits at `p` are for; twice the same if the group has no halves.
///
/// # Safety
/// The instruction set of S, 32 bytes.
#[inline(always)]
unsafe fn scales_of<S: Simd, const GRIDS: bool>(p: *const u8) -> [S::F; 2] {
    // SAFETY: the caller's.
    unsafe { if GRIDS { S::paired(p) } else { [S::halves(p); 2] } }
}

/// Weights of R rows on their way to factors.
struct Weights<S: Simd, const R: usize> {
    /// Of a block's tokens, in units of a factor.
    scaled: [[S::F; TILES]; R],
    /// The unit.
    units: [f32; R],
}

impl<S: Simd, const R: usize> Weights<S, R> {
    /// `most`: the largest magnitudes of the tokens' scales.
    ///
    /// # Safety
    /// The instruction set of S; weights of R rows.
    #[inline(always)]
    unsafe fn new(weights: *const f32, tiles: usize, most: &[S::F; TILES], factor_max: f32) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let mut new = Self { scaled: [[S::splat(0.0); TILES]; R], units: [0.0; R] };
            for r in 0..R {
                let weights = weights.add(r * STRIDE);
                let mut largest = S::splat(0.0);
                for (t, most) in most.iter().enumerate().take(tiles) {
                    largest = S::max(largest, S::mul(S::load(weights.add(16 * t)), *most));
                }
                let largest = S::largest(largest);
                // Below 1e-30 the quotient would not be finite, and the sum is nothing.
                if largest > 1e-30 {
                    let inverse = S::splat(factor_max / largest);
                    new.units[r] = largest / factor_max;
                    for (t, scaled) in new.scaled[r].iter_mut().enumerate().take(tiles) {
                        *scaled = S::mul(S::load(weights.add(16 * t)), inverse);
                    }
                }
            }
            new
        }
    }
}

/// `sums = sums * decay + weights * values` for the first `len` tokens. `weights` is `[R][STRIDE]`, zero behind `len` up to a whole 16.
///
/// Where no scale is negative, codes take the sign, and one unit serves all scales of a row; else factors have signs, and each group a unit.
///
/// # Safety
/// The instruction set of S; `bytes` is such a region; `sums` has R rows of `channels`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn int_values<S: Simd, const R: usize, const BITS: usize, const GRIDS: bool, const POSITIVE: bool>(
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
    let (groups, part) = (code.groups(region.channels), code.part());
    let mut factors = [[0u64; STRIDE / 4]; R];
    let mut grids = [0u32; STRIDE / 4];
    let mut next = next.cut(region.channels / 16);
    // SAFETY: the caller's.
    unsafe {
        let mut numbers = code.table;
        let off = if POSITIVE { 0x80 } else { S::OFF as u8 };
        numbers.iter_mut().for_each(|n| *n ^= off);
        let table = S::table(numbers.as_ptr());
        let p = bytes.as_ptr();
        let zero = [S::splat(0.0); TILES];
        let mut prepared = Weights::<S, R> { scaled: [zero; R], units: [0.0; R] };
        if POSITIVE {
            let mut most = zero;
            for g in 0..groups {
                for (t, most) in most.iter_mut().enumerate().take(tiles) {
                    let [a, b] = scales_of::<S, GRIDS>(p.add(region.scale_at(g, 16 * t)));
                    *most = S::max(*most, S::max(a, b));
                }
            }
            prepared = Weights::new(weights, tiles, &most, S::WEIGHT_MAX);
        }
        for g in 0..groups {
            let scales = p.add(region.scale_at(g, 0));
            let (mut starts, mut mins) = ([0i32; R], [0.0f32; R]);
            if !POSITIVE {
                let mut most = zero;
                for (t, most) in most.iter_mut().enumerate().take(tiles) {
                    *most = S::abs(S::halves(scales.add(32 * t)));
                }
                prepared = Weights::new(weights, tiles, &most, FACTOR_MAX);
            }
            if code.min {
                for (r, min_of_row) in mins.iter_mut().enumerate() {
                    let mut sum = S::splat(0.0);
                    for t in 0..tiles {
                        let min = S::halves(scales.add(region.mins - region.scales + 32 * t));
                        let min = S::fma(S::halves(scales.add(32 * t)), S::splat(code.middle() as f32), min);
                        sum = S::fma(S::load(weights.add(r * STRIDE + 16 * t)), min, sum);
                    }
                    *min_of_row = S::sum(sum);
                }
            }
            for (half, bit) in GRID_BITS.into_iter().enumerate().take(if GRIDS { 2 } else { 1 }) {
                let unit = if GRIDS { 2 * g + half } else { g };
                let channels = unit * part..((unit + 1) * part).min(region.channels);
                if channels.is_empty() {
                    break;
                }
                for t in 0..tiles {
                    let scale = scales_of::<S, GRIDS>(scales.add(32 * t))[half];
                    for r in 0..R {
                        let (x, to) = (S::mul(prepared.scaled[r][t], scale), factors[r].as_mut_ptr().add(4 * t));
                        if POSITIVE {
                            S::weights(x, to);
                        } else {
                            // Wraps only where a scale was not finite.
                            starts[r] = starts[r].wrapping_sub(S::quads(x, to).wrapping_mul(128 - S::OFF));
                        }
                    }
                }
                if GRIDS {
                    for (quad, grid) in grids.iter_mut().enumerate().take(quads) {
                        // A bit of each of four scales, to bit 4 of four bytes.
                        let four = scales.add(8 * quad).cast::<u64>().read_unaligned().to_le() >> bit;
                        let spread = (four & 0x0001_0001_0001_0001) << 4;
                        *grid = (spread | spread >> 8) as u32 & 0x1010
                            | ((spread >> 32 | spread >> 40) as u32 & 0x1010) << 16;
                    }
                }
                let mut chunk = channels.start / 16;
                let inputs =
                    Inputs { p, high: region.high, strides: (low_stride, high_stride), quads, factors: &factors };
                macro_rules! add_chunks {
                    ($count:literal) => {
                        for _ in 0..$count {
                            next.fetch::<S>();
                        }
                        let acc = inputs.sums::<S, BITS, GRIDS, POSITIVE, $count>(chunk, table, &grids, &starts);
                        for (i, acc) in acc.into_iter().enumerate() {
                            for (r, acc) in acc.into_iter().enumerate() {
                                let p = sums.p.add(r * sums.row_len + 16 * (chunk + i));
                                let old = S::fma(S::load(p), S::splat(decay[r]), S::splat(mins[r]));
                                let unit = S::splat(prepared.units[r] * code.unit());
                                S::store(p, S::fma(S::totals(acc), unit, old));
                            }
                        }
                        chunk += $count;
                    };
                }
                // Registers for two, and what a grid costs to share.
                if GRIDS && S::ROWS > 4 && R <= 4 {
                    while chunk + 2 <= channels.end / 16 {
                        add_chunks!(2);
                    }
                }
                while chunk < channels.end / 16 {
                    add_chunks!(1);
                }
            }
        }
    }
}

/// What the sums of a part's channels are made from.
struct Inputs<'a, const R: usize> {
    p: *const u8,
    /// Of the plane of highest bits.
    high: usize,
    strides: (usize, usize),
    quads: usize,
    factors: &'a [[u64; STRIDE / 4]; R],
}

impl<const R: usize> Inputs<'_, R> {
    /// Sums for `16 COUNT` channels from chunk `chunk` on, which share each factor once it is loaded.
    ///
    /// # Safety
    /// The instruction set of S; the chunks are in the region.
    #[inline(always)]
    unsafe fn sums<S: Simd, const BITS: usize, const GRIDS: bool, const POSITIVE: bool, const COUNT: usize>(
        &self,
        chunk: usize,
        table: S::T,
        grids: &[u32; STRIDE / 4],
        starts: &[i32; R],
    ) -> [[S::A; R]; COUNT] {
        // SAFETY: the caller's.
        unsafe {
            // Loops, not closures: only what is inlined is compiled for the caller's instruction set.
            let mut acc = [[S::sums(0); R]; COUNT];
            for acc in &mut acc {
                for (acc, start) in acc.iter_mut().zip(starts) {
                    *acc = S::sums(*start);
                }
            }
            let mut at = 0;
            macro_rules! add_four {
                ($offset:expr) => {
                    let mut codes = [[S::splat_quad(0); 4]; COUNT];
                    for (i, codes) in codes.iter_mut().enumerate() {
                        let (low, high) = ((chunk + i) * self.strides.0, self.high + (chunk + i) * self.strides.1);
                        *codes = four::<S, BITS, $offset>(self.p.add(low), self.p.add(high), at);
                    }
                    for j in 0..4 {
                        for codes in &mut codes {
                            if GRIDS {
                                codes[j] = S::or(codes[j], S::splat_quad(*grids.get_unchecked(at + j)));
                            }
                            if BITS != 8 {
                                codes[j] = S::lookup(table, codes[j]);
                            } else {
                                codes[j] = if POSITIVE { S::signed(codes[j]) } else { S::centered(codes[j]) };
                            }
                        }
                        for r in 0..R {
                            let factors = self.factors[r].as_ptr().add(at + j);
                            for i in 0..COUNT {
                                acc[i][r] = match POSITIVE {
                                    true => S::dot_signed(acc[i][r], codes[i][j], factors),
                                    false => S::dot(acc[i][r], codes[i][j], factors),
                                };
                            }
                        }
                    }
                    at += 4;
                };
            }
            while at < self.quads {
                add_four!(0);
                if at < self.quads {
                    add_four!(4);
                }
            }
            acc
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
    let mut next = next.cut(region.channels / 16);
    let factor = F::FACTOR * region.stored_scale(bytes);
    // SAFETY: the caller's.
    unsafe {
        for chunk in 0..region.channels / 16 {
            let p = bytes.as_ptr().add(chunk * region.tokens * F::BYTES);
            next.fetch::<S>();
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
