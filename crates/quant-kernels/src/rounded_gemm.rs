//! Many tokens, rounded: weights become bytes in the cache once and are multiplied with all tokens as integers.
//!
//! 16 rows lie side by side, four columns of each, and meet four activations of a token, which every lane takes alike. After each sub-block the sums are
//! multiplied with both scales and added to sums in f32; a tile of both, some rows times some tokens, stays in registers over all columns.
//!
//! No closures in the inner loops: they are functions of their own, and not all would be compiled for the instruction set of their caller.

use crate::dispatch::{IntegerOp, Isa};
use crate::interleaved::few::{factor, store};
use crate::interleaved::kinds::{Kind, ROWS, whole_factors};
use crate::interleaved::pack::{Codes, sixty_four};
use crate::lanes::Lanes;
use crate::quants::Quants;
use crate::rounded::{RoundedTiles, Tile};
use crate::rounded_dot::half_unit;
use std::marker::PhantomData;

/// Bytes of codes that a task should keep in the second-level cache.
const TASK_BYTES: usize = 256 << 10;
/// Rows of a task are a multiple of this one where they can be: two panels.
pub(crate) const ROW_STEP: usize = 2 * ROWS;

/// Rows of a task with rows of `cols` columns.
pub(crate) fn task_rows(cols: usize) -> usize {
    (TASK_BYTES / cols.max(1) / ROW_STEP).max(1) * ROW_STEP
}

/// A cache line of codes.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

/// One of scales.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Values([f32; ROWS]);

/// Rows of weights as bytes ([`Quants::factor`]), with their scales and mins, 16 rows a panel.
#[derive(Default)]
pub(crate) struct Unpacked {
    /// `[panels][cols / 4]`.
    codes: Vec<Line>,
    /// `[panels][sub-blocks]`.
    scales: Vec<Values>,
    mins: Vec<Values>,
    panels: usize,
    /// Vectors of codes, and of scales, of a panel.
    steps: usize,
    subs: usize,
}

impl Unpacked {
    fn resize(&mut self, rows: usize, cols: usize, sub: usize) {
        (self.panels, self.steps, self.subs) = (rows.div_ceil(ROWS), cols / 4, cols / sub);
        let (codes, values) = (self.panels * self.steps, self.panels * self.subs);
        if self.codes.len() < codes {
            self.codes.resize(codes, Line([0; 64]));
        }
        if self.scales.len() < values {
            self.scales.resize(values, Values([0.0; ROWS]));
            self.mins.resize(values, Values([0.0; ROWS]));
        }
    }

    /// From rows as a [`crate::Matrix`] has them: `rows` of them, all of `w`.
    pub(crate) fn fill_from_rows<Q: Quants>(&mut self, isa: Isa, w: &[u8], rows: usize, cols: usize) {
        self.resize(rows, cols, Q::SUB);
        isa.run_move(FromRows::<Q> { w, row_bytes: w.len() / rows.max(1), cols, to: self, quants: PhantomData });
    }

    /// From panels as an [`crate::Interleaved`] has them.
    pub(crate) fn fill_from_panels<K: Kind>(&mut self, isa: Isa, panels: &[u8], rows: usize, cols: usize) {
        self.resize(rows, cols, K::Source::SUB);
        isa.run_move(FromPanels::<K> { panels, cols, to: self, kind: PhantomData });
    }
}

/// The codes that are multiplied, as the products take them.
struct Own<Q>(PhantomData<Q>);

impl<Q: Quants> Codes for Own<Q> {
    #[inline(always)]
    unsafe fn of<S: Lanes>(unit: *const u8, j: usize) -> S::B {
        // SAFETY: the caller's.
        unsafe { Q::factor::<S>(Q::codes::<S>(unit, j)) }
    }
}

struct FromRows<'a, Q> {
    w: &'a [u8],
    row_bytes: usize,
    cols: usize,
    to: &'a mut Unpacked,
    quants: PhantomData<Q>,
}

impl<Q: Quants> IntegerOp for FromRows<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let Self { w, row_bytes, cols, to, .. } = self;
        let (steps, subs) = (to.steps, to.subs);
        for (r, row) in w.chunks_exact(row_bytes).enumerate() {
            let (panel, lane) = (r / ROWS, r % ROWS);
            let codes = &mut to.codes[panel * steps..][..steps];
            for (codes, first) in codes.chunks_mut(16).zip((0..).step_by(64)) {
                // SAFETY: a row of whole blocks; the instruction set is the caller's.
                let words = unsafe { sixty_four::<S, Q, Own<Q>>(row, cols, first) };
                for (codes, word) in codes.iter_mut().zip(words) {
                    codes.0[4 * lane..][..4].copy_from_slice(&word.to_ne_bytes());
                }
            }
            let scales = &mut to.scales[panel * subs..][..subs];
            let mins = &mut to.mins[panel * subs..][..subs];
            for (u, scales) in scales.chunks_mut(Q::LEN / Q::SUB).enumerate() {
                let unit = &row[u * Q::BYTES..];
                let (mut scale, mut min) = ([0.0f32; 16], [0.0f32; 16]);
                // SAFETY: a whole unit is there, or half of one, which is padded; the instruction set is the caller's.
                unsafe {
                    let (s, m) = if unit.len() >= Q::BYTES {
                        Q::scales::<S>(unit.as_ptr())
                    } else {
                        assert!(unit.len() >= Q::BYTES / 2);
                        Q::scales::<S>(half_unit::<Q>(unit.as_ptr()).as_ptr())
                    };
                    S::store(scale.as_mut_ptr(), s);
                    S::store(min.as_mut_ptr(), m);
                }
                for (to, scale) in scales.iter_mut().zip(scale) {
                    to.0[lane] = scale;
                }
                if Q::MINS {
                    for (to, min) in mins[u * (Q::LEN / Q::SUB)..].iter_mut().zip(min).take(scales.len()) {
                        to.0[lane] = min;
                    }
                }
            }
        }
    }
}

struct FromPanels<'a, K> {
    panels: &'a [u8],
    cols: usize,
    to: &'a mut Unpacked,
    kind: PhantomData<K>,
}

impl<K: Kind> IntegerOp for FromPanels<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let (per_unit, subs) = (K::COLS / 4, K::COLS / K::Source::SUB);
        let units = self.to.panels * (self.cols / K::COLS);
        assert!(self.panels.len() == units * K::BYTES && units * per_unit <= self.to.codes.len());
        assert!(units * subs <= self.to.scales.len() && units * subs <= self.to.mins.len());
        let codes_at = self.to.codes.as_mut_ptr().cast::<u8>();
        let (scales_at, mins_at) = (self.to.scales.as_mut_ptr().cast::<f32>(), self.to.mins.as_mut_ptr().cast::<f32>());
        for u in 0..units {
            // SAFETY: the asserted lengths are what is read and written; the instruction set is the caller's.
            unsafe {
                let unit = self.panels.as_ptr().add(u * K::BYTES);
                for b in 0..K::COLS / 32 {
                    // Unrolled: shifts and masks of the codes are constants.
                    let to = codes_at.add(64 * (u * per_unit + 8 * b));
                    S::store_bytes(to, factor::<S, K>(unit, b, 0));
                    S::store_bytes(to.add(64), factor::<S, K>(unit, b, 1));
                    S::store_bytes(to.add(128), factor::<S, K>(unit, b, 2));
                    S::store_bytes(to.add(192), factor::<S, K>(unit, b, 3));
                    S::store_bytes(to.add(256), factor::<S, K>(unit, b, 4));
                    S::store_bytes(to.add(320), factor::<S, K>(unit, b, 5));
                    S::store_bytes(to.add(384), factor::<S, K>(unit, b, 6));
                    S::store_bytes(to.add(448), factor::<S, K>(unit, b, 7));
                }
                for s in 0..subs {
                    let (scales, mins) = whole_factors::<S, K>(unit, s);
                    S::store(scales_at.add(ROWS * (u * subs + s)), scales);
                    if K::Source::MINS {
                        S::store(mins_at.add(ROWS * (u * subs + s)), mins);
                    }
                }
            }
        }
    }
}

/// `y[t * ldy + r] = w[r] . x[t]` for the rows that are unpacked and all tokens.
pub(crate) struct RoundedGemm<'a> {
    pub(crate) w: &'a Unpacked,
    pub(crate) rows: usize,
    pub(crate) x: &'a RoundedTiles,
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
}

impl RoundedGemm<'_> {
    /// Computes with the instruction set; the weights were unpacked from `Q`.
    pub(crate) fn run<Q: Quants>(self, isa: Isa) {
        let zero = Q::ZERO;
        match (Q::SUB, Q::MINS, Q::WIDE) {
            (16, false, _) => isa.run_product(Product::<16, false, false>(self, zero)),
            (16, true, _) => isa.run_product(Product::<16, true, false>(self, zero)),
            (_, false, false) => isa.run_product(Product::<32, false, false>(self, zero)),
            (_, false, true) => isa.run_product(Product::<32, false, true>(self, zero)),
            (_, true, false) => isa.run_product(Product::<32, true, false>(self, zero)),
            (_, true, true) => isa.run_product(Product::<32, true, true>(self, zero)),
        }
    }
}

/// With scales for each SUB columns, mins or a zero point, and codes from 128 on or none.
struct Product<'a, const SUB: usize, const MINS: bool, const WIDE: bool>(RoundedGemm<'a>, i32);

impl<const SUB: usize, const MINS: bool, const WIDE: bool> IntegerOp for Product<'_, SUB, MINS, WIDE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let RoundedGemm { w, rows, x, .. } = self.0;
        assert!(w.panels == rows.div_ceil(ROWS) && w.steps == x.cols() / 4 && w.subs == x.cols() / SUB);
        assert!(w.codes.len() >= w.panels * w.steps && w.scales.len() >= w.panels * w.subs);
        assert!(w.mins.len() >= w.scales.len());
        for first in (0..x.tokens()).step_by(x.width()) {
            let mut p = 0;
            while p < w.panels {
                // SAFETY: the asserted lengths; the maker of this value owns the places of y; the instruction set is the caller's.
                p += unsafe {
                    match (x.width(), w.panels - p) {
                        (w, _) if S::WIDTHS.1 == 2 || S::WIDTHS.0 == 2 && w == 2 => self.tile::<S, 1, 2>(p, first),
                        (6, 2..) if S::WIDTHS.1 == 6 => self.tile::<S, 2, 6>(p, first),
                        (6, _) if S::WIDTHS.1 == 6 => self.tile::<S, 1, 6>(p, first),
                        (_, 2..) if S::WIDTHS.0 == 4 => self.tile::<S, 2, 4>(p, first),
                        _ => self.tile::<S, 1, 4>(p, first),
                    }
                };
            }
        }
    }
}

impl<const SUB: usize, const MINS: bool, const WIDE: bool> Product<'_, SUB, MINS, WIDE> {
    /// R panels with the T tokens from `first` on; says with how many panels.
    ///
    /// # Safety
    /// The instruction set of S; panels and a tile of T tokens that are there.
    #[allow(clippy::needless_range_loop)] // an index stands for several arrays
    #[inline(always)]
    unsafe fn tile<S: Lanes, const R: usize, const T: usize>(&self, p: usize, first: usize) -> usize {
        let RoundedGemm { w, rows, x, y, ldy } = self.0;
        let Tile { codes, scales, sums, scaled_sums } = x.tile(first, SUB);
        let shift = if MINS { 0 } else { self.1.ilog2() };
        // Already taken from the codes.
        let off = if WIDE { S::OFF } else { 0 };
        let Unpacked { steps, subs, .. } = *w;
        // SAFETY: the caller's.
        unsafe {
            let w_codes = w.codes.as_ptr().add(p * steps).cast::<u8>();
            let w_scales = w.scales.as_ptr().add(p * subs).cast::<f32>();
            let w_mins = w.mins.as_ptr().add(p * subs).cast::<f32>();
            let mut acc = [[S::splat(0.0); T]; R];
            for b in 0..subs {
                let mut n = [[S::splat_i(0); T]; R];
                if !MINS || off > 0 {
                    for t in 0..T {
                        let sum = *sums.add(b * T + t);
                        let start = match off {
                            0 => S::shl_i(S::splat_i(sum), shift),
                            _ => S::splat_i(sum * (self.1 - off)),
                        };
                        for n in &mut n {
                            n[t] = start;
                        }
                    }
                }
                for k in 0..SUB / 4 {
                    let step = b * (SUB / 4) + k;
                    let mut rows = [S::splat_b(0); R];
                    for (r, rows) in rows.iter_mut().enumerate() {
                        *rows = S::bytes(w_codes.add(64 * (r * steps + step)));
                    }
                    for t in 0..T {
                        let token = S::word(codes.add(4 * (step * T + t)));
                        for r in 0..R {
                            n[r][t] =
                                if WIDE { S::dot(n[r][t], rows[r], token) } else { S::dot_7(n[r][t], rows[r], token) };
                        }
                    }
                }
                for r in 0..R {
                    let at = ROWS * (r * subs + b);
                    let row_scales = S::load(w_scales.add(at));
                    for t in 0..T {
                        let scale = S::splat(*scales.add(b * SUB / 32 * T + t));
                        acc[r][t] = S::fma(S::float(n[r][t]), S::mul(row_scales, scale), acc[r][t]);
                    }
                    if MINS {
                        let mins = S::load(w_mins.add(at));
                        for t in 0..T {
                            acc[r][t] = S::fnma(mins, S::splat(*scaled_sums.add(b * T + t)), acc[r][t]);
                        }
                    }
                }
            }
            for t in 0..T.min(x.tokens() - first) {
                for r in 0..R {
                    let row = (p + r) * ROWS;
                    store::<S>(acc[r][t], y.add((first + t) * ldy + row), rows - row);
                }
            }
        }
        R
    }
}
