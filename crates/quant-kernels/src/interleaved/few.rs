//! Few tokens with 16 rows side by side: a row a lane.
//!
//! Four columns of 16 rows meet four activations of a token, which every lane takes alike; nothing is added across lanes, and scales are multiplied for
//! 16 rows at a time.

use super::kinds::{Kind, ROWS, codes, whole_factors};
use crate::dispatch::IntegerOp;
use crate::lanes::Lanes;
use crate::quants::Quants;
use crate::rounded::{RoundedRow, RoundedRows, RoundedTiles, Tile};
use std::marker::PhantomData;

/// `y[t * ldy + r] = w[r] . x[t]` for some rows and all tokens.
pub(super) struct FewTokens<'a, K> {
    /// Panels of units of `cols` columns.
    pub(super) panels: &'a [u8],
    /// Of the panels; the last one may be padded.
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) x: &'a RoundedRows,
    pub(super) tokens: usize,
    pub(super) y: *mut f32,
    pub(super) ldy: usize,
    pub(super) kind: PhantomData<K>,
}

impl<K: Kind> IntegerOp for FewTokens<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let bytes = self.cols / K::COLS * K::BYTES;
        assert!(self.panels.len() == self.rows.div_ceil(ROWS) * bytes && self.cols.is_multiple_of(K::COLS));
        for (p, panel) in self.panels.chunks_exact(bytes.max(1)).enumerate() {
            let mut t = 0;
            while t < self.tokens {
                // SAFETY: whole panels; tokens that are there; the places of y belong to who made this value; the instruction set is the caller's.
                t += unsafe {
                    match self.tokens - t {
                        3.. if S::MANY_REGISTERS => self.products::<S, 3>(panel, p, t),
                        2.. => self.products::<S, 2>(panel, p, t),
                        _ => self.products::<S, 1>(panel, p, t),
                    }
                };
            }
        }
    }
}

impl<K: Kind> FewTokens<'_, K> {
    /// A panel with M tokens; says with how many.
    ///
    /// # Safety
    /// The instruction set of S; a panel and tokens that are there.
    #[inline(always)]
    unsafe fn products<S: Lanes, const M: usize>(&self, panel: &[u8], p: usize, t: usize) -> usize {
        let sub = K::Source::SUB;
        let mut x: [RoundedRow; M] = [self.x.row(t, sub); M];
        for (m, x) in x.iter_mut().enumerate() {
            *x = self.x.row(t + m, sub);
        }
        // SAFETY: whole units; `x` has all columns; the places of y are the caller's.
        unsafe {
            let zero = [[S::splat(0.0); 2]; M];
            let (mut all, mut acc) = (zero, zero);
            for u in 0..self.cols / K::COLS {
                let unit = panel.as_ptr().add(u * K::BYTES);
                for b in 0..K::COLS / 32 {
                    acc = block::<S, K, M>(unit, u * (K::COLS / 32) + b, b, &x, acc);
                }
                if K::COMMON {
                    all = with_common::<S, K, M>(unit, acc, all);
                    acc = zero;
                }
            }
            for (m, [products, mins]) in if K::COMMON { all } else { acc }.into_iter().enumerate() {
                let results = if K::Source::MINS { S::sub(products, mins) } else { products };
                store::<S>(results, self.y.add((t + m) * self.ldy + p * ROWS), self.rows - p * ROWS);
            }
        }
        M
    }
}

/// `all` plus what a unit gave, times its common factors.
///
/// # Safety
/// The instruction set of S; a unit at `unit`.
#[inline(always)]
unsafe fn with_common<S: Lanes, K: Kind, const M: usize>(
    unit: *const u8,
    acc: [[S::F; 2]; M],
    mut all: [[S::F; 2]; M],
) -> [[S::F; 2]; M] {
    // SAFETY: the caller's.
    unsafe {
        let (d, dmin) = K::common::<S>(unit);
        for (all, acc) in all.iter_mut().zip(acc) {
            *all = [S::fma(acc[0], d, all[0]), if K::Source::MINS { S::fma(acc[1], dmin, all[1]) } else { all[1] }];
        }
    }
    all
}

/// `acc`, the products and what mins take from them, and with them those of 32 columns: block `b` of the unit, block `at` of the row.
///
/// # Safety
/// The instruction set of S; a unit at `unit`; tokens that have the block.
#[inline(always)]
unsafe fn block<S: Lanes, K: Kind, const M: usize>(
    unit: *const u8,
    at: usize,
    b: usize,
    x: &[RoundedRow; M],
    mut acc: [[S::F; 2]; M],
) -> [[S::F; 2]; M] {
    let sub = K::Source::SUB;
    // SAFETY: the caller's.
    unsafe {
        for h in 0..32 / sub {
            let i = at * (32 / sub) + h;
            let mut n = [[S::splat_i(0); 2]; M];
            if K::Source::rest::<S>() != 0 {
                for (n, x) in n.iter_mut().zip(x) {
                    n[0] = S::splat_i(-*x.totals.add(i) * K::Source::rest::<S>());
                }
            }
            if h == 0 {
                n = four_steps::<S, K, M, 0>(unit, at, b, x, n);
            }
            if h + 1 == 32 / sub && !(M == 1 && sub == 32) {
                n = four_steps::<S, K, M, 4>(unit, at, b, x, n);
            }
            if M == 1 && sub == 32 {
                // Two chains of four products do not wait as long as one of eight.
                let other = four_steps::<S, K, M, 4>(unit, at, b, x, [[S::splat_i(0); 2]; M]);
                n[0] = [S::add_i(n[0][0], other[0][0]), S::add_i(n[0][1], other[0][1])];
            }
            let (scales, mins) = K::factors::<S>(unit, b * (32 / sub) + h);
            for m in 0..M {
                let factor = S::mul(scales, S::splat(*x[m].scales.add(i)));
                acc[m][0] = S::fma(S::float(S::join(n[m])), factor, acc[m][0]);
                if K::Source::MINS {
                    acc[m][1] = S::fma(mins, S::splat(*x[m].scaled_sums.add(i)), acc[m][1]);
                }
            }
        }
    }
    acc
}

/// Columns `32 b + 4 k ..` of a unit as the products take them.
///
/// # Safety
/// As [`codes`].
#[inline(always)]
pub(crate) unsafe fn factor<S: Lanes, K: Kind>(unit: *const u8, b: usize, k: usize) -> S::B {
    // SAFETY: the caller's.
    unsafe { K::Source::factor::<S>(codes::<S, K>(unit, b, k)) }
}

/// `n` plus the products of steps `FIRST` to `FIRST + 3` of a block of 32 columns, unrolled: shifts and masks of the codes are constants.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn four_steps<S: Lanes, K: Kind, const M: usize, const FIRST: usize>(
    unit: *const u8,
    at: usize,
    b: usize,
    x: &[RoundedRow; M],
    mut n: [[S::I; 2]; M],
) -> [[S::I; 2]; M] {
    let column = at / 2 * 128 + at % 2 * 32;
    // SAFETY: the caller's.
    unsafe {
        n = step::<S, M>(factor::<S, K>(unit, b, FIRST), column + 4 * FIRST, x, n);
        n = step::<S, M>(factor::<S, K>(unit, b, FIRST + 1), column + 4 * FIRST + 4, x, n);
        n = step::<S, M>(factor::<S, K>(unit, b, FIRST + 2), column + 4 * FIRST + 8, x, n);
        step::<S, M>(factor::<S, K>(unit, b, FIRST + 3), column + 4 * FIRST + 12, x, n)
    }
}

/// Four columns of 16 rows with all tokens.
///
/// # Safety
/// As [`block`].
#[inline(always)]
unsafe fn step<S: Lanes, const M: usize>(
    w: S::B,
    column: usize,
    x: &[RoundedRow; M],
    mut n: [[S::I; 2]; M],
) -> [[S::I; 2]; M] {
    for (n, x) in n.iter_mut().zip(x) {
        // SAFETY: the caller's.
        *n = unsafe { S::dot_words(*n, w, x.codes.add(column)) };
    }
    n
}

/// Results of the first of 16 rows.
///
/// # Safety
/// The instruction set of S; places for so many rows, at most 16, at `y`.
#[inline(always)]
pub(crate) unsafe fn store<S: Lanes>(results: S::F, y: *mut f32, rows: usize) {
    // SAFETY: the caller's.
    unsafe {
        if rows >= ROWS {
            return S::store(y, results);
        }
        let mut all = [0.0f32; ROWS];
        S::store(all.as_mut_ptr(), results);
        std::ptr::copy_nonoverlapping(all.as_ptr(), y, rows);
    }
}

/// As [`FewTokens`], with activations of one byte, a tile of tokens at a time: for so few that weights are not worth unpacking into the cache.
pub(super) struct FewTiles<'a, K> {
    pub(super) panels: &'a [u8],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) x: &'a RoundedTiles,
    pub(super) y: *mut f32,
    pub(super) ldy: usize,
    pub(super) kind: PhantomData<K>,
}

impl<K: Kind> IntegerOp for FewTiles<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let bytes = self.cols / K::COLS * K::BYTES;
        assert!(self.panels.len() == self.rows.div_ceil(ROWS) * bytes && self.cols.is_multiple_of(K::COLS));
        assert!(self.x.cols() == self.cols);
        for (p, panel) in self.panels.chunks_exact(bytes.max(1)).enumerate() {
            for first in (0..self.x.tokens()).step_by(self.x.width()) {
                // SAFETY: whole panels; a tile that is there; the places of y belong to who made this value; the instruction set is the caller's.
                unsafe {
                    match self.x.width() {
                        6 if S::WIDTHS.1 == 6 => self.products::<S, 6>(panel, p, first),
                        w if S::WIDTHS.0 == 4 || S::WIDTHS.1 == 4 && w == 4 => self.products::<S, 4>(panel, p, first),
                        _ => self.products::<S, 2>(panel, p, first),
                    }
                }
            }
        }
    }
}

impl<K: Kind> FewTiles<'_, K> {
    /// A panel with a tile of T tokens.
    ///
    /// # Safety
    /// The instruction set of S; a panel and a tile of T tokens that are there.
    #[inline(always)]
    unsafe fn products<S: Lanes, const T: usize>(&self, panel: &[u8], p: usize, first: usize) {
        let x = self.x.tile(first, K::Source::SUB);
        // SAFETY: whole units; `x` has all columns; the places of y are the caller's.
        unsafe {
            let mut acc = [S::splat(0.0); T];
            for u in 0..self.cols / K::COLS {
                let unit = panel.as_ptr().add(u * K::BYTES);
                for b in 0..K::COLS / 32 {
                    acc = tile_block::<S, K, T>(unit, u * (K::COLS / 32) + b, b, x, acc);
                }
            }
            for (t, acc) in acc.into_iter().enumerate().take(self.x.tokens() - first) {
                store::<S>(acc, self.y.add((first + t) * self.ldy + p * ROWS), self.rows - p * ROWS);
            }
        }
    }
}

/// `acc` plus the products of 32 columns: block `b` of the unit, block `at` of the row.
///
/// # Safety
/// The instruction set of S; a unit at `unit`; a tile that has the block.
#[inline(always)]
unsafe fn tile_block<S: Lanes, K: Kind, const T: usize>(
    unit: *const u8,
    at: usize,
    b: usize,
    x: Tile,
    mut acc: [S::F; T],
) -> [S::F; T] {
    let sub = K::Source::SUB;
    // SAFETY: the caller's.
    unsafe {
        for h in 0..32 / sub {
            let i = (at * (32 / sub) + h) * T;
            let mut n = [S::splat_i(0); T];
            if K::Source::rest::<S>() != 0 {
                for (t, n) in n.iter_mut().enumerate() {
                    *n = S::splat_i(*x.sums.add(i + t) * K::Source::rest::<S>());
                }
            }
            let codes_at = x.codes.add(32 * at * T);
            if h == 0 {
                n = tile_steps::<S, K, T, 0>(unit, codes_at, b, n);
            }
            if h + 1 == 32 / sub {
                n = tile_steps::<S, K, T, 4>(unit, codes_at, b, n);
            }
            let (scales, mins) = whole_factors::<S, K>(unit, b * (32 / sub) + h);
            for (t, acc) in acc.iter_mut().enumerate() {
                let factor = S::mul(scales, S::splat(*x.scales.add(at * T + t)));
                *acc = S::fma(S::float(n[t]), factor, *acc);
                if K::Source::MINS {
                    *acc = S::fnma(mins, S::splat(*x.scaled_sums.add(i + t)), *acc);
                }
            }
        }
    }
    acc
}

/// As [`four_steps`].
///
/// # Safety
/// As [`tile_block`]; the codes of the block at `x`.
#[inline(always)]
unsafe fn tile_steps<S: Lanes, K: Kind, const T: usize, const FIRST: usize>(
    unit: *const u8,
    x: *const u8,
    b: usize,
    mut n: [S::I; T],
) -> [S::I; T] {
    // SAFETY: the caller's.
    unsafe {
        n = tile_step::<S, K, T>(factor::<S, K>(unit, b, FIRST), x.add(4 * T * FIRST), n);
        n = tile_step::<S, K, T>(factor::<S, K>(unit, b, FIRST + 1), x.add(4 * T * (FIRST + 1)), n);
        n = tile_step::<S, K, T>(factor::<S, K>(unit, b, FIRST + 2), x.add(4 * T * (FIRST + 2)), n);
        tile_step::<S, K, T>(factor::<S, K>(unit, b, FIRST + 3), x.add(4 * T * (FIRST + 3)), n)
    }
}

/// Four columns of 16 rows with a tile of tokens.
///
/// # Safety
/// As [`tile_block`]; four codes of each token at `x`.
#[inline(always)]
unsafe fn tile_step<S: Lanes, K: Kind, const T: usize>(w: S::B, x: *const u8, mut n: [S::I; T]) -> [S::I; T] {
    for (t, n) in n.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *n = unsafe {
            let x = S::word(x.add(4 * t));
            if K::Source::WIDE { S::dot(*n, w, x) } else { S::dot_7(*n, w, x) }
        };
    }
    n
}
