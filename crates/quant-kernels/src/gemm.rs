//! Many tokens: rows of weights are decoded into the cache once and multiplied with all tokens.
//!
//! The activations are packed first, token by token side by side: panel `p` holds tokens `32 p ..` as `[cols][32]`, so that a step of the inner
//! product reads one line. A task then takes some rows of W, and for each `KC` of its columns decodes them to f32 in scratch that stays in the
//! second-level cache, multiplies them with every panel and adds to its part of C, which it lastly writes to y, turned over.

use crate::codes::Block;
use crate::dispatch::{Isa, Op};
use crate::matrix::decode_row;
use crate::micro::{PANEL, tile};
use crate::simd::Simd;
use std::marker::PhantomData;

/// Columns decoded at a time: a multiple of every block length.
const KC: usize = 512;
/// From row to row of the decoded weights: not a power of two, so that rows do not compete for the same cache lines.
const LDW: usize = KC + 16;
/// Most rows of a task.
pub(crate) const MAX_ROWS: usize = 96;
/// Rows of a task are a multiple of this one where they can be.
pub(crate) const ROW_STEP: usize = 12;

/// Values of the packed activations.
pub(crate) fn packed_len(tokens: usize, cols: usize) -> usize {
    tokens.div_ceil(PANEL) * PANEL * cols
}

/// Packs panel `panel` of `x`, `[tokens, cols]`, to `dst`, `[cols][32]`; tokens beyond the last are zero.
pub(crate) fn pack_panel(x: &[f32], tokens: usize, cols: usize, panel: usize, dst: &mut [f32]) {
    let first = panel * PANEL;
    let here = tokens.saturating_sub(first).min(PANEL);
    if here < PANEL {
        dst.fill(0.0);
    }
    // Blocks of 16 columns: a block of each token is one cache line, and the lines of `dst` stay in the cache.
    for c0 in (0..cols).step_by(16) {
        let c1 = (c0 + 16).min(cols);
        for t in 0..here {
            let src = &x[(first + t) * cols..][..cols];
            for c in c0..c1 {
                dst[c * PANEL + t] = src[c];
            }
        }
    }
}

/// Scratch of one task.
pub(crate) fn scratch_len(tokens: usize) -> usize {
    MAX_ROWS * (LDW + ldc(tokens))
}

/// From row to row of C.
fn ldc(tokens: usize) -> usize {
    tokens.div_ceil(PANEL) * PANEL + 16
}

/// `y[t * ldy + r] = w[r] . x[t]` for `rows <= MAX_ROWS` rows and all tokens.
pub(crate) struct GemmRows<'a, B> {
    /// `rows` rows of `row_bytes` bytes.
    pub(crate) w: *const u8,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// The packed activations.
    pub(crate) packed: &'a [f32],
    pub(crate) tokens: usize,
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
    pub(crate) scratch: &'a mut [f32],
    pub(crate) block: PhantomData<B>,
}

impl<B: Block> GemmRows<'_, B> {
    /// Computes with the instruction set.
    pub(crate) fn run(self, isa: Isa) {
        let Self { rows, cols, tokens, .. } = self;
        let ldc = ldc(tokens);
        assert!(rows <= MAX_ROWS && self.scratch.len() >= scratch_len(tokens));
        assert!(self.packed.len() >= packed_len(tokens, cols));
        let (w, c) = self.scratch.split_at_mut(MAX_ROWS * LDW);
        for k0 in (0..cols).step_by(KC) {
            let kc = KC.min(cols - k0);
            // SAFETY: who made this value owns the rows; k0 is a multiple of the block length, so its blocks begin at this byte.
            let src = unsafe { self.w.add(k0 / B::LEN * B::BYTES) };
            isa.run(DecodeRows::<B> { src, row_bytes: self.row_bytes, rows, kc, dst: w, block: PhantomData });
            isa.run(Tiles { rows, kc, w, packed: self.packed, cols, k0, panels: tokens.div_ceil(PANEL), c, ldc });
        }
        for t0 in (0..tokens).step_by(16) {
            for t in t0..(t0 + 16).min(tokens) {
                for r in 0..rows {
                    // SAFETY: who makes this value owns these places of y.
                    unsafe { *self.y.add(t * self.ldy + r) = c[r * ldc + t] };
                }
            }
        }
    }
}

/// Decodes `kc <= KC` columns of `rows <= MAX_ROWS` rows to `dst`, LDW apart. By itself, so that the products are not compiled for every block type.
struct DecodeRows<'a, B> {
    src: *const u8,
    row_bytes: usize,
    rows: usize,
    kc: usize,
    dst: &'a mut [f32],
    block: PhantomData<B>,
}

impl<B: Block> Op for DecodeRows<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for (r, row) in self.dst.chunks_exact_mut(LDW).take(self.rows).enumerate() {
            // SAFETY: `GemmRows` owns the rows, and kc <= LDW.
            unsafe { decode_row::<S, B>(self.src.add(r * self.row_bytes), self.kc, row.as_mut_ptr()) };
        }
    }
}

/// Multiplies the decoded columns with every panel of the activations.
struct Tiles<'a> {
    rows: usize,
    kc: usize,
    w: &'a [f32],
    packed: &'a [f32],
    cols: usize,
    k0: usize,
    panels: usize,
    c: &'a mut [f32],
    ldc: usize,
}

impl Op for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { rows, kc, w, packed, cols, k0, panels, c, ldc } = self;
        for panel in 0..panels {
            // SAFETY: the panel's `kc` rows of 32 from `k0` on are within `packed`; C has `rows` rows of at least 32 (panel + 1) values.
            unsafe {
                let b = packed.as_ptr().add((panel * cols + k0) * PANEL);
                let c = c.as_mut_ptr().add(panel * PANEL);
                tile::<S>(rows, kc, w.as_ptr(), LDW, b, PANEL, c, ldc, k0 > 0);
            }
        }
    }
}
