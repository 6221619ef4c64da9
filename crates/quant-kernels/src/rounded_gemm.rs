//! Many tokens, rounded: rows of packed weights become bytes in the cache once and are multiplied with all tokens as integers.
//!
//! No closures in the inner loops: they are functions of their own, and not all would be compiled for the instruction set of their caller.
//!
//! As in [`crate::matmul_int8`] 16 tokens lie side by side, four columns of each, and four columns of a row of weights are multiplied with all of them.
//! After each sub-block the sums are multiplied with both scales and added to sums in f32; a tile of both stays in registers over all columns.

use crate::dispatch::{IntegerOp, Isa};
use crate::lanes::Lanes;
use crate::quants::Quants;
use crate::rounded::{BLOCK, PANEL, Panels, RoundedPanels};
use crate::rounded_dot::half_unit;
use std::marker::PhantomData;

/// Bytes of codes that a task should keep in the second-level cache.
const TASK_BYTES: usize = 256 << 10;
/// Rows of a task are a multiple of this one where they can be.
pub(crate) const ROW_STEP: usize = 4;

/// Rows of a task with rows of `cols` columns.
pub(crate) fn task_rows(cols: usize) -> usize {
    (TASK_BYTES / stride(cols) / ROW_STEP).max(1) * ROW_STEP
}

/// Bytes from row to row of the codes: an odd number of cache lines, so that rows do not compete for the same places of the cache.
fn stride(cols: usize) -> usize {
    (cols.div_ceil(64) | 1) * 64
}

/// Rows of weights as bytes, their scales and mins.
#[derive(Default)]
pub(crate) struct Unpacked {
    codes: Vec<u8>,
    scales: Vec<f32>,
    mins: Vec<f32>,
}

/// `y[t * ldy + r] = w[r] . x[t]` for some rows and all tokens.
pub(crate) struct RoundedGemm<'a, Q> {
    /// `rows` rows of `row_bytes` bytes, each of `cols` columns, a multiple of 32.
    pub(crate) w: *const u8,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) x: &'a RoundedPanels,
    pub(crate) tokens: usize,
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
    pub(crate) unpacked: &'a mut Unpacked,
    pub(crate) quants: PhantomData<Q>,
}

impl<Q: Quants> RoundedGemm<'_, Q> {
    /// Computes with the instruction set.
    pub(crate) fn run(self, isa: Isa) {
        let Self { cols, tokens, y, ldy, x, .. } = self;
        let (stride, per_row) = (stride(cols), cols.next_multiple_of(64) / Q::SUB);
        // Tiles read rows that are not there. Vectors of scales reach beyond the last row.
        let rows = self.rows.next_multiple_of(8);
        let Unpacked { codes, scales, mins } = self.unpacked;
        if codes.len() < rows * stride {
            codes.resize(rows * stride, 0);
        }
        if scales.len() < rows * per_row + 16 {
            scales.resize(rows * per_row + 16, 0.0);
            mins.resize(rows * per_row + 16, 0.0);
        }
        isa.run_integer(Unpack::<Q> {
            w: self.w,
            row_bytes: self.row_bytes,
            rows: self.rows,
            cols,
            stride,
            per_row,
            codes,
            scales,
            mins,
            quants: PhantomData,
        });
        let rows = self.rows;
        let tiles = Tiles { rows, cols, tokens, stride, per_row, codes, scales, mins, x, y, ldy, zero: Q::ZERO };
        match (Q::SUB, Q::MINS, Q::WIDE) {
            (16, false, _) => isa.run_integer(Kind::<16, false, false>(tiles)),
            (16, true, _) => isa.run_integer(Kind::<16, true, false>(tiles)),
            (_, false, false) => isa.run_integer(Kind::<32, false, false>(tiles)),
            (_, false, true) => isa.run_integer(Kind::<32, false, true>(tiles)),
            (_, true, false) => isa.run_integer(Kind::<32, true, false>(tiles)),
            (_, true, true) => isa.run_integer(Kind::<32, true, true>(tiles)),
        }
    }
}

/// By itself, so that the products are not compiled for every type.
struct Unpack<'a, Q> {
    w: *const u8,
    row_bytes: usize,
    rows: usize,
    cols: usize,
    stride: usize,
    per_row: usize,
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    mins: &'a mut [f32],
    quants: PhantomData<Q>,
}

impl<Q: Quants> IntegerOp for Unpack<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let units = self.cols / Q::LEN;
        assert!(self.codes.len() >= self.rows * self.stride && self.stride >= self.cols.next_multiple_of(64));
        assert!(self.scales.len() >= self.rows * self.per_row + 16 && self.mins.len() >= self.scales.len());
        for r in 0..self.rows {
            // SAFETY: units are within the rows, half of one goes through a padded copy; the asserted lengths are what is written.
            unsafe {
                let w = self.w.add(r * self.row_bytes);
                let codes = self.codes.as_mut_ptr().add(r * self.stride);
                let scales = self.scales.as_mut_ptr().add(r * self.per_row);
                let mins = self.mins.as_mut_ptr().add(r * self.per_row);
                for u in 0..units {
                    unpack::<S, Q>(w.add(u * Q::BYTES), u, codes, scales, mins);
                }
                if !self.cols.is_multiple_of(Q::LEN) {
                    let copy = half_unit::<Q>(w.add(units * Q::BYTES));
                    unpack::<S, Q>(copy.as_ptr(), units, codes, scales, mins);
                }
            }
        }
    }
}

/// Unpacks unit `u` of a row. (No closure: that would not be compiled for the instruction set of its caller.)
///
/// # Safety
/// The instruction set of S; a unit at `w`; places for it in the row's codes, scales and mins, and of the latter two for a whole vector, which the
/// next unit writes over.
#[inline(always)]
unsafe fn unpack<S: Lanes, Q: Quants>(w: *const u8, u: usize, codes: *mut u8, scales: *mut f32, mins: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        for j in 0..Q::LEN / 64 {
            S::store_bytes(codes.add(u * Q::LEN + 64 * j), Q::codes::<S>(w, j));
        }
        let (scale, min) = Q::scales::<S>(w);
        S::store(scales.add(u * (Q::LEN / Q::SUB)), scale);
        if Q::MINS {
            S::store(mins.add(u * (Q::LEN / Q::SUB)), min);
        }
    }
}

/// Multiplies unpacked rows with all tokens.
struct Tiles<'a> {
    rows: usize,
    cols: usize,
    tokens: usize,
    stride: usize,
    per_row: usize,
    codes: &'a [u8],
    scales: &'a [f32],
    mins: &'a [f32],
    x: &'a RoundedPanels,
    y: *mut f32,
    ldy: usize,
    zero: i32,
}

/// With scales for each SUB columns, mins or a zero point, and codes from 128 on or none.
struct Kind<'a, const SUB: usize, const MINS: bool, const WIDE: bool>(Tiles<'a>);

impl<const SUB: usize, const MINS: bool, const WIDE: bool> IntegerOp for Kind<'_, SUB, MINS, WIDE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let panels = self.0.x.panels();
        let mut p = 0;
        while p < panels {
            // SAFETY: `RoundedGemm` made the buffers for these rows and its maker owns the places of y; the instruction set is the caller's.
            p += unsafe {
                match (S::BLOCK_TILE, panels - p) {
                    ((4, 3), 3..) => self.column::<S, 4, 3>(p),
                    ((4, _), 2..) => self.column::<S, 4, 2>(p),
                    ((4, _), _) => self.column::<S, 4, 1>(p),
                    _ => self.column::<S, 2, 1>(p),
                }
            };
        }
    }
}

impl<const SUB: usize, const MINS: bool, const WIDE: bool> Kind<'_, SUB, MINS, WIDE> {
    /// All rows with NV vectors of tokens, MR rows at a time; says with how many vectors.
    ///
    /// # Safety
    /// The instruction set of S; panels that are there; buffers for the rows, up to a multiple of 8.
    #[inline(always)]
    unsafe fn column<S: Lanes, const MR: usize, const NV: usize>(&self, panel: usize) -> usize {
        let Tiles { rows, cols, tokens, stride, per_row, y, ldy, zero, .. } = self.0;
        let Panels { codes: x, scales: x_scales, sums: x_sums } = self.0.x.from(panel, NV);
        let first = panel * PANEL;
        let here = (tokens - first).min(NV * PANEL);
        let shift = if MINS { 0 } else { zero.ilog2() };
        for r in (0..rows).step_by(MR) {
            // SAFETY: the caller's.
            unsafe {
                let w = self.0.codes.as_ptr().add(r * stride);
                let (scales, mins) = (self.0.scales.as_ptr().add(r * per_row), self.0.mins.as_ptr().add(r * per_row));
                let mut acc = [[S::splat(0.0); NV]; MR];
                for b in 0..cols / SUB {
                    // Minus the sum of the activations of the sub-block.
                    let mut sums = [S::splat_i(0); NV];
                    let mut start = sums;
                    for v in 0..NV {
                        let at = x_sums.add(v * cols + b * (SUB / 16) * PANEL);
                        sums[v] = S::load_i(at);
                        if SUB == 32 {
                            sums[v] = S::add_i(sums[v], S::load_i(at.add(PANEL)));
                        }
                        if !MINS {
                            start[v] = S::shl_i(sums[v], shift);
                        }
                    }
                    let mut n = [start; MR];
                    let (w, x) = (w.add(b * SUB), x.add(b * SUB * PANEL));
                    for k in 0..SUB / 4 {
                        let mut tokens = [S::splat_b(0); NV];
                        for (v, tokens) in tokens.iter_mut().enumerate() {
                            *tokens = S::bytes(x.add(v * cols * PANEL + 64 * k));
                        }
                        for (i, n) in n.iter_mut().enumerate() {
                            let w = S::word(w.add(i * stride + 4 * k));
                            for v in 0..NV {
                                n[v] = if WIDE { S::dot(n[v], w, tokens[v]) } else { S::dot_7(n[v], w, tokens[v]) };
                            }
                        }
                    }
                    for v in 0..NV {
                        let at = x_scales.add((v * (cols / BLOCK) + b * SUB / BLOCK) * PANEL);
                        for i in 0..MR {
                            let term = S::mul(S::float(n[i][v]), S::load(at));
                            acc[i][v] = S::fma(term, S::splat(*scales.add(i * per_row + b)), acc[i][v]);
                        }
                        if MINS {
                            let sum = S::mul(S::float(sums[v]), S::load(at));
                            for (i, acc) in acc.iter_mut().enumerate() {
                                acc[v] = S::fma(sum, S::splat(*mins.add(i * per_row + b)), acc[v]);
                            }
                        }
                    }
                }
                let mut tile = [[[0.0f32; PANEL]; NV]; MR];
                for i in 0..MR {
                    for v in 0..NV {
                        S::store(tile[i][v].as_mut_ptr(), acc[i][v]);
                    }
                }
                for t in 0..here {
                    let y = y.add((first + t) * ldy + r);
                    for (i, tile) in tile.iter().enumerate().take(rows - r) {
                        *y.add(i) = tile[t / PANEL][t % PANEL];
                    }
                }
            }
        }
        NV
    }
}
