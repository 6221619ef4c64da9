//! Activations rounded to integers, in blocks of 32 with an f32 scale each.
//!
//! A block's scale is its largest magnitude divided by [`ONE_BYTE`] or [`TWO_BYTES`], a code the value divided by it, to nearest, ties to even. A block
//! whose largest magnitude is below 1e-34 is rounded to zeros; one with a value that is not finite has NaN for a scale, so that what is computed from
//! it is NaN.

use crate::dispatch::{IntegerOp, Isa};
use crate::lanes::Lanes;
use rayon::prelude::*;

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;
/// The largest code of one byte.
const ONE_BYTE: f32 = 127.0;
/// The largest code of two bytes: `128 high + low` with high up to 127.
const TWO_BYTES: f32 = 127.0 * 128.0;

/// A block's scale and codes, 16 each.
///
/// # Safety
/// The instruction set of S; a block at `x`.
#[inline(always)]
unsafe fn round_block<S: Lanes>(x: *const f32, largest: f32) -> (f32, [S::I; 2]) {
    // SAFETY: the caller's.
    unsafe {
        let x = [S::load(x), S::load(x.add(16))];
        let max = S::largest_bits(x[0], x[1]);
        let not_finite = max >= f32::INFINITY.to_bits();
        let max = f32::from_bits(max);
        let to_code = largest / max;
        if not_finite || !to_code.is_finite() {
            return (if not_finite { f32::NAN } else { 0.0 }, [S::splat_i(0); 2]);
        }
        let to_code = S::splat(to_code);
        (max / largest, [S::round(S::mul(x[0], to_code)), S::round(S::mul(x[1], to_code))])
    }
}

/// Rows of few tokens, for [`crate::rounded_dot`]. Two bytes a code.
#[derive(Default)]
pub(crate) struct RoundedRows {
    tokens: usize,
    /// Columns, up to a multiple of 64.
    padded: usize,
    /// `[tokens][padded / 64][128]`: 64 codes as the instruction set wants them ([`Lanes::put_words`]).
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
    /// Rounds `x`, `[tokens, cols]`, with `cols` a multiple of 32, in the memory that there is.
    pub(crate) fn fill(&mut self, isa: Isa, x: &[f32], tokens: usize, cols: usize) {
        let padded = cols.next_multiple_of(64);
        (self.tokens, self.padded) = (tokens, padded);
        // What lies beyond the columns and after a token is zeros.
        fn zeros<T: Clone + Default>(v: &mut Vec<T>, len: usize) {
            v.clear();
            v.resize(len, T::default());
        }
        let (of_32, of_16) = (tokens * (padded / 32 + 16), tokens * (padded / 16 + 16));
        zeros(&mut self.codes, 2 * tokens * padded);
        zeros(&mut self.sums, tokens * padded / 4);
        [&mut self.scales_32, &mut self.sums_32].into_iter().for_each(|v| zeros(v, of_32));
        [&mut self.scales_16, &mut self.sums_16].into_iter().for_each(|v| zeros(v, of_16));
        zeros(&mut self.totals_32, of_32);
        zeros(&mut self.totals_16, of_16);
        isa.run_integer(FillRows { rows: self, x, cols });
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
            let (of_32, of_16) = (t * (padded / 32 + 16), t * (padded / 16 + 16));
            let codes = &mut rows.codes[2 * t * padded..][..2 * padded];
            let scales_32 = &mut rows.scales_32[of_32..][..padded / 32];
            let scales_16 = &mut rows.scales_16[of_16..][..padded / 16];
            let (x, _) = x.as_chunks::<BLOCK>();
            for (b, (x, scale)) in x.iter().zip(scales_32.iter_mut()).enumerate() {
                let (first, second) = codes[b / 2 * 128..][..128].split_at_mut(64);
                let (first, second) = (&mut first[b % 2 * 32..][..32], &mut second[b % 2 * 32..][..32]);
                // SAFETY: a block of 32 values, and 32 bytes in each half; the instruction set is the caller's.
                *scale = unsafe {
                    let (scale, codes) = round_block::<S>(x.as_ptr(), TWO_BYTES);
                    S::put_words(first.as_mut_ptr(), second.as_mut_ptr(), codes[0]);
                    S::put_words(first.as_mut_ptr().add(16), second.as_mut_ptr().add(16), codes[1]);
                    scale
                };
                scales_16[2 * b..][..2].fill(*scale);
            }
            // By itself: what was just written in parts is read as a whole only after a wait.
            let sums = rows.sums[t * padded / 4..][..padded / 4].as_chunks_mut::<16>().0;
            let totals_16 = &mut rows.totals_16[of_16..][..padded / 16];
            for ((codes, sums), totals) in
                codes.as_chunks::<128>().0.iter().zip(sums).zip(totals_16.as_chunks_mut::<4>().0)
            {
                let mut each = [0; 16];
                // SAFETY: 128 bytes of codes, 16 sums; the instruction set is the caller's.
                unsafe {
                    let of_4 = S::dot_16(S::splat_i(0), S::splat_b(1), codes.as_ptr());
                    S::store_i(sums.as_mut_ptr(), S::shl_i(S::sub_i(S::splat_i(0), of_4), 7));
                    S::store_i(each.as_mut_ptr(), of_4);
                }
                *totals = [0, 4, 8, 12].map(|i| each[i] + each[i + 1] + each[i + 2] + each[i + 3]);
            }
            let totals_32 = &mut rows.totals_32[of_32..][..padded / 32];
            for (total, parts) in totals_32.iter_mut().zip(totals_16.as_chunks::<2>().0) {
                *total = parts[0] + parts[1];
            }
            let scaled = |scaled: &mut [f32], sums: &[i32], scales: &[f32]| {
                for (scaled, (sum, scale)) in scaled.iter_mut().zip(sums.iter().zip(scales)) {
                    *scaled = *sum as f32 * scale;
                }
            };
            scaled(&mut rows.sums_16[of_16..], totals_16, scales_16);
            scaled(&mut rows.sums_32[of_32..], totals_32, scales_32);
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
                let mut codes = [0u8; BLOCK];
                // SAFETY: a block of 32 values, and 32 bytes; the instruction set is the caller's.
                let (scale, halves) = unsafe {
                    let (scale, block) = round_block::<S>(x[b * BLOCK..][..BLOCK].as_ptr(), ONE_BYTE);
                    S::put_bytes(codes.as_mut_ptr(), block[0]);
                    S::put_bytes(codes.as_mut_ptr().add(16), block[1]);
                    (scale, [S::sum_i(block[0]), S::sum_i(block[1])])
                };
                let words = self.codes[b * BLOCK * width..][..BLOCK * width].chunks_exact_mut(4 * width);
                for (word, codes) in words.zip(codes.as_chunks::<4>().0) {
                    word[4 * t..4 * t + 4].copy_from_slice(&codes.map(|c| c as i8));
                }
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

    /// A block's scale and codes.
    struct Round<'a>(&'a [f32; BLOCK], f32);

    impl IntegerOp for Round<'_> {
        type Output = (f32, [i32; BLOCK]);

        #[inline(always)]
        fn run<S: Lanes>(self) -> Self::Output {
            let mut codes = [0; BLOCK];
            // SAFETY: 32 values, in and out; the instruction set is the caller's.
            let scale = unsafe {
                let (scale, rounded) = round_block::<S>(self.0.as_ptr(), self.1);
                S::store_i(codes.as_mut_ptr(), rounded[0]);
                S::store_i(codes[16..].as_mut_ptr(), rounded[1]);
                scale
            };
            (scale, codes)
        }
    }

    #[test]
    fn blocks() {
        for isa in Isa::available() {
            let round = |x: &[f32; BLOCK], largest| isa.run_integer(Round(x, largest));
            let mut x = [0.0f32; BLOCK];
            assert_eq!(round(&x, ONE_BYTE), (0.0, [0; BLOCK]));
            (x[0], x[1], x[2], x[3], x[31]) = (-254.0, 1.0, 3.0, 5.0, 7.0);
            // Ties to even.
            let (scale, codes) = round(&x, ONE_BYTE);
            assert_eq!((scale, &codes[..5], codes[31]), (2.0, &[-127, 0, 2, 2, 0][..], 4));
            assert_eq!(round(&x, TWO_BYTES).1[..3], [-16256, 64, 192]);
            x[9] = f32::NEG_INFINITY;
            assert!(round(&x, ONE_BYTE).0.is_nan());
            x[9] = f32::NAN;
            assert!(round(&x, ONE_BYTE).0.is_nan());
            assert_eq!(round(&x, ONE_BYTE).1, [0; BLOCK]);
            x = [0.0; BLOCK];
            x[20] = f32::MIN_POSITIVE / 4.0;
            assert_eq!(round(&x, ONE_BYTE), (0.0, [0; BLOCK]));
        }
    }

    /// 64 codes of 16 bits, written and read by `dot_16`.
    struct Words<'a>(&'a [i32; 64]);

    impl IntegerOp for Words<'_> {
        type Output = [i32; 64];

        #[inline(always)]
        fn run<S: Lanes>(self) -> [i32; 64] {
            let mut bytes = [0u8; 128];
            let mut back = [0; 64];
            // SAFETY: 64 codes in 128 bytes; the instruction set is the caller's.
            unsafe {
                for i in (0..64).step_by(16) {
                    let p = bytes.as_mut_ptr().add(i);
                    S::put_words(p, p.add(64), S::load_i(self.0[i..].as_ptr()));
                }
                for j in 0..4 {
                    let one: [u8; 64] = std::array::from_fn(|i| u8::from(i % 4 == j));
                    let mut codes = [0; 16];
                    let dot = S::dot_16(S::splat_i(0), S::bytes(one.as_ptr()), bytes.as_ptr());
                    S::store_i(codes.as_mut_ptr(), dot);
                    (0..16).for_each(|i| back[4 * i + j] = codes[i]);
                }
            }
            back
        }
    }

    #[test]
    fn words() {
        for first in (-16256..=16256).step_by(64) {
            let codes: [i32; 64] = std::array::from_fn(|i| (first + i as i32).min(16256));
            for isa in Isa::available() {
                assert_eq!(isa.run_integer(Words(&codes)), codes, "{isa:?}");
            }
        }
    }

    #[test]
    fn rows_and_tiles() {
        let cols = 96;
        let x: Vec<f32> = (0..5 * cols).map(|i| ((i * 7919) % 1000) as f32 * 0.01 - 5.0).collect();
        let rows_of = |isa| {
            let mut rows = RoundedRows::default();
            // In memory that held something else.
            rows.fill(isa, &[f32::NAN; 5 * 96], 1, 5 * cols);
            rows.fill(isa, &x[..2 * cols], 2, cols);
            rows
        };
        for isa in Isa::available() {
            let rows = rows_of(isa);
            let plain = rows_of(Isa::Portable);
            let mut tiles = RoundedTiles::default();
            tiles.fill(isa, &x, 5, cols);
            for (t, x) in x.chunks_exact(cols).enumerate() {
                for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
                    let (scale, codes) = Isa::Portable.run_integer(Round(x, ONE_BYTE));
                    let (tile, lane) = (t / tiles.width(), t % tiles.width());
                    let at =
                        |i: usize| ((tile * (cols / BLOCK) + b) * BLOCK + i / 4 * 4) * tiles.width() + 4 * lane + i % 4;
                    let found: [i32; BLOCK] = std::array::from_fn(|i| i32::from(tiles.codes[at(i)]));
                    let of = (tile * (cols / BLOCK) + b) * tiles.width() + lane;
                    let (sum, last) = (codes.iter().sum::<i32>(), codes[16..].iter().sum::<i32>());
                    let of_16 = (2 * (tile * (cols / BLOCK) + b) + 1) * tiles.width() + lane;
                    assert_eq!((found, tiles.scales[of], tiles.sums_32[of]), (codes, scale, -sum), "{isa:?}");
                    assert_eq!(tiles.scaled_32[of], sum as f32 * scale, "{isa:?}");
                    assert_eq!((tiles.sums_16[of_16], tiles.scaled_16[of_16]), (-last, last as f32 * scale), "{isa:?}");
                }
            }
            let numbers = |rows: &RoundedRows| {
                let floats = [&rows.scales_32, &rows.scales_16, &rows.sums_32, &rows.sums_16].map(Vec::clone);
                (floats, [&rows.sums, &rows.totals_32, &rows.totals_16].map(Vec::clone))
            };
            assert_eq!(numbers(&rows), numbers(&plain), "{isa:?}");
        }
        let codes = Isa::Portable.run_integer(Round(x.first_chunk().unwrap_or(&[0.0; BLOCK]), TWO_BYTES)).1;
        let rows = rows_of(Isa::Portable);
        assert_eq!(rows.totals_32[0], codes.iter().sum::<i32>());
        assert_eq!(rows.totals_16[1], codes[16..].iter().sum::<i32>());
        assert_eq!(rows.sums[1], -128 * codes[4..8].iter().sum::<i32>());
    }
}
