//! Activations rounded to integers, in blocks of 32 with an f32 scale each.
//!
//! A block's scale is its largest magnitude divided by [`ONE_BYTE`] or [`TWO_BYTES`], a code the value divided by it, to nearest, ties to even. A block
//! whose largest magnitude is below 1e-34 is rounded to zeros; one with a value that is not finite has NaN for a scale, so that what is computed from
//! it is NaN.

use crate::dispatch::{IntegerOp, Isa};
use crate::lanes::{Lanes, Words};
use rayon::prelude::*;

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;
/// The largest code of one byte.
const ONE_BYTE: f32 = 127.0;
/// The largest code of two bytes: `128 high + low` with high up to 127.
const TWO_BYTES: f32 = 127.0 * 128.0;

/// A block's scale and codes.
#[inline(always)]
fn round_block(x: &[f32], largest: f32) -> (f32, [i32; BLOCK]) {
    let mut codes = [0; BLOCK];
    // As integers the magnitudes are in order, and NaN is beyond infinity.
    let max = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
    if max >= f32::INFINITY.to_bits() {
        return (f32::NAN, codes);
    }
    let max = f32::from_bits(max);
    let to_code = largest / max;
    if !to_code.is_finite() {
        return (0.0, codes);
    }
    // Added to this number, a value below 2^22 is rounded to an integer, which stands in its low bits.
    const ROUND: f32 = 12_582_912.0;
    for (code, v) in codes.iter_mut().zip(x) {
        *code = (v * to_code + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    }
    (max / largest, codes)
}

/// Rows of few tokens, for [`crate::rounded_dot`]. Two bytes a code.
pub(crate) struct RoundedRows {
    tokens: usize,
    /// Columns, up to a multiple of 64.
    padded: usize,
    /// `[tokens][padded / 64][128]`: 64 codes as the instruction set wants them ([`Words`]).
    codes: Vec<u8>,
    /// `[tokens][padded / 4]`: -128 times the sum of four codes.
    sums: Vec<i32>,
    /// Of each 32 and of each 16 columns: scale, and scale times the sum of the codes. 16 more after each token, for vectors that reach beyond.
    scales_32: Vec<f32>,
    scales_16: Vec<f32>,
    sums_32: Vec<f32>,
    sums_16: Vec<f32>,
    /// Of each 32 and of each 16 columns: the sum of the codes.
    totals_32: Vec<i32>,
    totals_16: Vec<i32>,
}

/// One token as the kernels take it. All that is read lies in a [`RoundedRows`].
#[derive(Clone, Copy)]
pub(crate) struct RoundedRow {
    pub(crate) codes: *const u8,
    pub(crate) sums: *const i32,
    /// For the length of sub-blocks that was asked for.
    pub(crate) scales: *const f32,
    pub(crate) scaled_sums: *const f32,
    pub(crate) totals: *const i32,
}

impl RoundedRows {
    /// Rounds `x`, `[tokens, cols]`, with `cols` a multiple of 32.
    pub(crate) fn new(isa: Isa, x: &[f32], tokens: usize, cols: usize) -> Self {
        let padded = cols.next_multiple_of(64);
        let (of_32, of_16) = (tokens * (padded / 32 + 16), tokens * (padded / 16 + 16));
        let mut rows = Self {
            tokens,
            padded,
            codes: vec![0; 2 * tokens * padded],
            sums: vec![0; tokens * padded / 4],
            scales_32: vec![0.0; of_32],
            scales_16: vec![0.0; of_16],
            sums_32: vec![0.0; of_32],
            sums_16: vec![0.0; of_16],
            totals_32: vec![0; of_32],
            totals_16: vec![0; of_16],
        };
        isa.run_integer(FillRows { rows: &mut rows, x, cols });
        rows
    }

    /// Token `t`, for scales of each `sub` columns.
    pub(crate) fn row(&self, t: usize, sub: usize) -> RoundedRow {
        assert!(t < self.tokens);
        let codes = self.codes[2 * t * self.padded..].as_ptr();
        let sums = self.sums[t * self.padded / 4..].as_ptr();
        let (of_32, of_16) = (t * (self.padded / 32 + 16), t * (self.padded / 16 + 16));
        let (scales, scaled_sums, totals) = match sub {
            16 => (&self.scales_16[of_16..], &self.sums_16[of_16..], &self.totals_16[of_16..]),
            _ => (&self.scales_32[of_32..], &self.sums_32[of_32..], &self.totals_32[of_32..]),
        };
        let (scales, scaled_sums, totals) = (scales.as_ptr(), scaled_sums.as_ptr(), totals.as_ptr());
        RoundedRow { codes, sums, scales, scaled_sums, totals }
    }
}

/// Plain Rust, compiled for the instruction set.
struct FillRows<'a> {
    rows: &'a mut RoundedRows,
    x: &'a [f32],
    cols: usize,
}

impl IntegerOp for FillRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let Self { rows, x, cols } = self;
        let padded = rows.padded;
        for (t, x) in x.chunks_exact(cols).enumerate() {
            let all = &mut rows.codes[2 * t * padded..][..2 * padded];
            let sums = &mut rows.sums[t * padded / 4..][..padded / 4];
            let (of_32, of_16) = (t * (padded / 32 + 16), t * (padded / 16 + 16));
            for (b, x) in x.chunks_exact(BLOCK).enumerate() {
                let (scale, codes) = round_block(x, TWO_BYTES);
                let (first, second) = all[b / 2 * 128..][..128].split_at_mut(64);
                let (first, second) = (&mut first[b % 2 * 32..][..32], &mut second[b % 2 * 32..][..32]);
                match S::WORDS {
                    Words::Parts => {
                        for ((low, high), code) in first.iter_mut().zip(second).zip(codes) {
                            let rest = ((code + 64) & 127) - 64;
                            (*low, *high) = (rest as u8, ((code - rest) >> 7) as u8);
                        }
                    }
                    Words::EvenOdd => {
                        let places = first.chunks_exact_mut(2).zip(second.chunks_exact_mut(2));
                        for ((even, odd), codes) in places.zip(codes.chunks_exact(2)) {
                            even.copy_from_slice(&(codes[0] as i16).to_ne_bytes());
                            odd.copy_from_slice(&(codes[1] as i16).to_ne_bytes());
                        }
                    }
                }
                for (sum, codes) in sums[8 * b..][..8].iter_mut().zip(codes.chunks_exact(4)) {
                    *sum = -128 * codes.iter().sum::<i32>();
                }
                let halves = [0, 16].map(|at| codes[at..at + 16].iter().sum::<i32>());
                rows.scales_32[of_32 + b] = scale;
                rows.sums_32[of_32 + b] = (halves[0] + halves[1]) as f32 * scale;
                rows.totals_32[of_32 + b] = halves[0] + halves[1];
                for (i, sum) in halves.into_iter().enumerate() {
                    rows.scales_16[of_16 + 2 * b + i] = scale;
                    rows.sums_16[of_16 + 2 * b + i] = sum as f32 * scale;
                    rows.totals_16[of_16 + 2 * b + i] = sum;
                }
            }
        }
    }
}

/// Many tokens, some side by side, for [`crate::rounded_gemm`]. One byte a code.
#[derive(Default)]
pub(crate) struct RoundedTiles {
    /// `[tiles][cols / 4][width][4]`.
    codes: Vec<i8>,
    /// `[tiles][cols / 32][width]`.
    scales: Vec<f32>,
    /// Of 32 and of 16 columns, `[tiles][cols / 32 or 16][width]`: the sum of the codes, negative, and the sum times the scale.
    sums_32: Vec<i32>,
    sums_16: Vec<i32>,
    scaled_32: Vec<f32>,
    scaled_16: Vec<f32>,
    tokens: usize,
    cols: usize,
    width: usize,
}

/// A tile. All that is read lies in a [`RoundedTiles`].
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) codes: *const u8,
    pub(crate) scales: *const f32,
    /// For the length of sub-blocks that was asked for.
    pub(crate) sums: *const i32,
    pub(crate) scaled_sums: *const f32,
}

impl RoundedTiles {
    /// Rounds `x`, `[tokens, cols]`, with `cols` a multiple of 32, in the memory that there is. Tokens beyond the last are zeros.
    pub(crate) fn fill(&mut self, isa: Isa, x: &[f32], tokens: usize, cols: usize) {
        let width = isa.run_integer(Width { tokens });
        let tiles = tokens.div_ceil(width);
        (self.tokens, self.cols, self.width) = (tokens, cols, width);
        let blocks = tiles * width * (cols / BLOCK);
        fn grow<T: Clone + Default>(v: &mut Vec<T>, need: usize) {
            if v.len() < need {
                v.resize(need, T::default());
            }
        }
        grow(&mut self.codes, BLOCK * blocks);
        grow(&mut self.scales, blocks);
        grow(&mut self.sums_32, blocks);
        grow(&mut self.sums_16, 2 * blocks);
        grow(&mut self.scaled_32, blocks);
        grow(&mut self.scaled_16, 2 * blocks);
        let each = width * (cols / BLOCK);
        let codes = self.codes.par_chunks_exact_mut(BLOCK * each).zip(self.scales.par_chunks_exact_mut(each));
        let sums = self.sums_32.par_chunks_exact_mut(each).zip(self.sums_16.par_chunks_exact_mut(2 * each));
        let scaled = self.scaled_32.par_chunks_exact_mut(each).zip(self.scaled_16.par_chunks_exact_mut(2 * each));
        let all = codes.zip(sums.zip(scaled)).take(tiles).enumerate();
        all.for_each(|(i, ((codes, scales), ((sums_32, sums_16), (scaled_32, scaled_16))))| {
            let here = (tokens - i * width).min(width);
            if here < width {
                codes.fill(0);
                scales.fill(0.0);
                sums_32.fill(0);
                sums_16.fill(0);
                scaled_32.fill(0.0);
                scaled_16.fill(0.0);
            }
            let x = &x[i * width * cols..][..here * cols];
            isa.run_integer(FillTile { x, cols, width, codes, scales, sums_32, sums_16, scaled_32, scaled_16 });
        });
    }

    /// The tile that begins with token `first`, with sums for each `sub` columns.
    pub(crate) fn tile(&self, first: usize, sub: usize) -> Tile {
        assert!(first < self.tokens && first.is_multiple_of(self.width));
        let blocks = first * (self.cols / BLOCK);
        let (sums, scaled_sums) = match sub {
            16 => (&self.sums_16[2 * blocks..], &self.scaled_16[2 * blocks..]),
            _ => (&self.sums_32[blocks..], &self.scaled_32[blocks..]),
        };
        Tile {
            codes: self.codes[BLOCK * blocks..].as_ptr().cast(),
            scales: self.scales[blocks..].as_ptr(),
            sums: sums.as_ptr(),
            scaled_sums: scaled_sums.as_ptr(),
        }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Tokens of a tile.
    pub(crate) fn width(&self) -> usize {
        self.width
    }
}

/// How many tokens lie side by side: as many as the registers hold, but with few tokens not many more than there are.
struct Width {
    tokens: usize,
}

impl IntegerOp for Width {
    type Output = usize;

    #[inline(always)]
    fn run<S: Lanes>(self) -> usize {
        // A token takes a tenth more time in the narrow tile.
        let time = |width: usize, each: usize| self.tokens.div_ceil(width) * width * each;
        let (narrow, wide) = S::WIDTHS;
        if time(narrow, 11) < time(wide, 10) { narrow } else { wide }
    }
}

/// Plain Rust, compiled for the instruction set.
struct FillTile<'a> {
    x: &'a [f32],
    cols: usize,
    width: usize,
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums_32: &'a mut [i32],
    sums_16: &'a mut [i32],
    scaled_32: &'a mut [f32],
    scaled_16: &'a mut [f32],
}

impl IntegerOp for FillTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let width = self.width;
        // A block of each token: what is written lies close together.
        for b in 0..self.cols / BLOCK {
            for (t, x) in self.x.chunks_exact(self.cols).enumerate() {
                let (scale, codes) = round_block(&x[b * BLOCK..][..BLOCK], ONE_BYTE);
                let bytes = codes.map(|c| c as i8);
                let words = self.codes[b * BLOCK * width..][..BLOCK * width].chunks_exact_mut(4 * width);
                for (word, bytes) in words.zip(bytes.chunks_exact(4)) {
                    word[4 * t..4 * t + 4].copy_from_slice(bytes);
                }
                let halves = [0, 16].map(|at| codes[at..at + 16].iter().sum::<i32>());
                let sum = halves[0] + halves[1];
                self.scales[b * width + t] = scale;
                self.sums_32[b * width + t] = -sum;
                self.scaled_32[b * width + t] = sum as f32 * scale;
                for (i, sum) in halves.into_iter().enumerate() {
                    self.sums_16[(2 * b + i) * width + t] = -sum;
                    self.scaled_16[(2 * b + i) * width + t] = sum as f32 * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        let mut x = [0.0f32; BLOCK];
        assert_eq!(round_block(&x, ONE_BYTE), (0.0, [0; BLOCK]));
        (x[0], x[1], x[2], x[3]) = (-254.0, 1.0, 3.0, 5.0);
        // Ties to even.
        let (scale, codes) = round_block(&x, ONE_BYTE);
        assert_eq!((scale, &codes[..5]), (2.0, &[-127, 0, 2, 2, 0][..]));
        assert_eq!(round_block(&x, TWO_BYTES).1[..3], [-16256, 64, 192]);
        x[7] = f32::MIN_POSITIVE / 4.0;
        assert!(round_block(&x[4..], ONE_BYTE).0 == 0.0);
        x[9] = f32::NEG_INFINITY;
        assert!(round_block(&x, ONE_BYTE).0.is_nan());
        x[9] = f32::NAN;
        assert!(round_block(&x, ONE_BYTE).0.is_nan());
        for code in -16256i32..=16256 {
            let low = ((code + 64) & 127) - 64;
            let high = (code - low) >> 7;
            assert!(128 * high + low == code && (-127..=127).contains(&high) && (-64..=63).contains(&low));
        }
    }
}
