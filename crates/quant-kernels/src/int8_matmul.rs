//! The product of int8 activations with int8 weights.
//!
//! A weight's byte is its code plus 128, unsigned, as `vpdpbusd` wants one factor; `128 · Σ x` is taken off the sum again, or the 128 off the bytes where
//! products are signed. With few tokens a row of
//! weights meets a row of activations, 64 columns at a time. With many, 16 tokens lie side by side, four columns of each, and four columns of a row of
//! weights are multiplied with all of them: a tile of some rows and some vectors of tokens stays in registers over all columns.

use crate::dispatch::{IntegerOp, Isa};
use crate::lanes::Lanes;
use crate::tasks::{Shared, Task, Tasks, few_rows};
use crate::{Error, Int8Activations, Int8Weights, Result};
use rayon::prelude::*;
use std::cell::RefCell;

/// Up to so many tokens, rows of weights meet rows of activations.
const FEW: usize = 8;
/// Tokens of a vector.
const PANEL: usize = 16;
/// Bytes of weights that a task should keep in the second-level cache.
const TASK_BYTES: usize = 256 << 10;

thread_local! {
    /// The turned activations of the product that this thread has begun.
    static PANELS: RefCell<Vec<i8>> = const { RefCell::new(Vec::new()) };
}

/// `y[t] = [w_0 x[t], w_1 x[t], ...]`: several int8 matrices that read the same activations, one below the other.
///
/// `y` is `[tokens, rows]` where rows counts those of all matrices. With `n = Σ code_w · (code_x - zero)`, exact in i32,
/// `y = n as f32 · (scale_x · scale_w)`: the same bits on every machine, for any number of tokens and threads. Work is spread over the current rayon
/// pool.
///
/// ```
/// use quant_kernels::{Int8Activations, Int8Weights, matmul_int8};
///
/// // [2, 3], scales 0.5 and 0.25.
/// let w = Int8Weights::pack(2, 3, &[1, 2, 3, -128, 0, 127], &[0.5, 0.25])?;
/// // Two tokens: dynamic, one scale each ...
/// let x = Int8Activations::per_token(&[1.0, -2.0, 127.0, 0.0, 0.0, 0.0], 3)?;
/// let mut y = [0.0; 4];
/// matmul_int8(&x, &[&w], &mut y)?;
/// assert_eq!(y, [189.0, 4000.25, 0.0, 0.0]);
/// // ... or static, with a zero point.
/// let x = Int8Activations::with_scales(&[0.0, 10.0, -10.0], 3, &[2.0], &[7])?;
/// assert_eq!(x.codes(0), [7, 12, 2]);
/// let mut y = [0.0; 2];
/// matmul_int8(&x, &[&w], &mut y)?;
/// assert_eq!(y, [-5.0, -317.5]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if the columns of a matrix are not those of `x`, or `y` has another length.
pub fn matmul_int8(x: &Int8Activations, weights: &[&Int8Weights], y: &mut [f32]) -> Result<()> {
    matmul_int8_with(Isa::best(), x, weights, y)
}

/// As [`matmul_int8`], with a chosen instruction set: for tests and benchmarks.
///
/// # Errors
/// As [`matmul_int8`].
pub fn matmul_int8_with(isa: Isa, x: &Int8Activations, weights: &[&Int8Weights], y: &mut [f32]) -> Result<()> {
    let shape = |what, expected: usize, found| Error::Shape { what, expected: expected.to_string(), found };
    if let Some(w) = weights.iter().find(|w| w.cols() != x.cols()) {
        return Err(shape("columns of a matrix", x.cols(), w.cols()));
    }
    let ldy = weights.iter().fold(0usize, |n, w| n.saturating_add(w.rows()));
    if x.tokens().saturating_mul(ldy) != y.len() {
        return Err(shape("values of y", x.tokens().saturating_mul(ldy), y.len()));
    }
    if y.is_empty() {
        return Ok(());
    }
    let few = x.tokens() <= FEW;
    let stride = weights.first().map_or(64, |w| w.stride());
    let rows = match few {
        true => few_rows(ldy, stride),
        false => (TASK_BYTES / stride).min(ldy.div_ceil(4 * rayon::current_num_threads())),
    };
    let rows = rows.next_multiple_of(8);
    let tasks = Tasks::new(weights, rows);
    let y = Shared::new(y);
    if few {
        return tasks.run(|Task { matrix: &weights, first, rows, column }| {
            isa.run_product(FewTokens { x, weights, first, rows, y, ldy, column });
            Ok(())
        });
    }
    // Taken out, so that another product that this thread picks up while it waits finds its own.
    let mut panels = PANELS.take();
    let panel_len = x.cols().div_ceil(4) * 4 * PANEL;
    let need = x.tokens().div_ceil(PANEL) * panel_len;
    if panels.len() < need {
        panels.resize(need, 0);
    }
    panels[..need].par_chunks_exact_mut(panel_len).enumerate().for_each(|(p, dst)| turn(x, p * PANEL, dst));
    let turned = &panels[..need];
    let done = tasks.run(|Task { matrix: &weights, first, rows, column }| {
        isa.run_product(ManyTokens { x, panels: turned, panel_len, weights, first, rows, y, ldy, column });
        Ok(())
    });
    PANELS.set(panels);
    done
}

/// Tokens `first ..` as `[cols / 4][16][4]`; tokens beyond the last are zeros.
fn turn(x: &Int8Activations, first: usize, dst: &mut [i8]) {
    dst.fill(0);
    for t in 0..PANEL.min(x.tokens() - first) {
        let words = x.padded(first + t).chunks_exact(4);
        for (dst, word) in dst.chunks_exact_mut(4 * PANEL).zip(words) {
            dst[4 * t..4 * t + 4].copy_from_slice(word);
        }
    }
}

/// Some rows with all tokens, row by row.
struct FewTokens<'a> {
    x: &'a Int8Activations,
    weights: &'a Int8Weights,
    first: usize,
    rows: usize,
    y: Shared,
    ldy: usize,
    column: usize,
}

impl IntegerOp for FewTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        for r in 0..self.rows {
            let mut t = 0;
            while t < self.x.tokens() {
                // SAFETY: row and tokens are within `weights` and `x`; the instruction set is the caller's.
                t += unsafe {
                    match self.x.tokens() - t {
                        4.. => self.products::<S, 4>(r, t),
                        2.. => self.products::<S, 2>(r, t),
                        _ => self.products::<S, 1>(r, t),
                    }
                };
            }
        }
    }
}

impl FewTokens<'_> {
    /// A row with M tokens; says with how many.
    ///
    /// # Safety
    /// The instruction set of S; a row and tokens that are there.
    #[inline(always)]
    unsafe fn products<S: Lanes, const M: usize>(&self, r: usize, t: usize) -> usize {
        let (weights, x) = (self.weights, self.x);
        let w = weights.data()[(self.first + r) * weights.stride()..].as_ptr();
        // SAFETY: `padded` tokens have whole blocks of 64 bytes, rows at least as many; the places of y are this task's alone.
        unsafe {
            let tokens: [*const u8; M] = std::array::from_fn(|m| x.padded(t + m).as_ptr().cast());
            let mut acc = [S::splat_i(0); M];
            for at in (0..x.cols()).step_by(64) {
                let w = S::centered(S::bytes(w.add(at)));
                for (acc, x) in acc.iter_mut().zip(tokens) {
                    *acc = S::dot(*acc, w, S::bytes(x.add(at)));
                }
            }
            let (scale, sum) = (weights.scales()[self.first + r], weights.sums()[self.first + r]);
            for (m, acc) in acc.into_iter().enumerate() {
                let token = t + m;
                let off = x.sums()[token].wrapping_mul(128 - S::OFF).wrapping_add(x.zeros()[token].wrapping_mul(sum));
                let n = S::sum_i(acc).wrapping_sub(off);
                *self.y.at(token * self.ldy + self.column + r) = n as f32 * (x.scales()[token] * scale);
            }
        }
        M
    }
}

/// Some rows with all tokens, a tile at a time.
struct ManyTokens<'a> {
    x: &'a Int8Activations,
    panels: &'a [i8],
    panel_len: usize,
    weights: &'a Int8Weights,
    first: usize,
    rows: usize,
    y: Shared,
    ldy: usize,
    column: usize,
}

impl IntegerOp for ManyTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self) {
        let panels = self.x.tokens().div_ceil(PANEL);
        let mut p = 0;
        while p < panels {
            // SAFETY: panels and rows that are there; the instruction set is the caller's.
            p += unsafe {
                match (S::TILE, panels - p) {
                    ((8, 3), 3..) => self.column::<S, 8, 3>(p),
                    ((8, _), 2..) => self.column::<S, 8, 2>(p),
                    ((8, _), _) => self.column::<S, 8, 1>(p),
                    ((4, _), _) => self.column::<S, 4, 1>(p),
                    _ => self.column::<S, 2, 1>(p),
                }
            };
        }
    }
}

impl ManyTokens<'_> {
    /// All rows with NV vectors of tokens, MR rows at a time; says with how many vectors.
    ///
    /// # Safety
    /// The instruction set of S; panels that are there.
    #[inline(always)]
    unsafe fn column<S: Lanes, const MR: usize, const NV: usize>(&self, panel: usize) -> usize {
        let (x, weights) = (self.x, self.weights);
        let first_token = panel * PANEL;
        let tokens = (x.tokens() - first_token).min(NV * PANEL);
        // What belongs to the tokens, padded to whole vectors.
        let mut scales = [[0.0f32; PANEL]; NV];
        let (mut sums, mut zeros) = ([[0i32; PANEL]; NV], [[0i32; PANEL]; NV]);
        for t in 0..tokens {
            scales[t / PANEL][t % PANEL] = x.scales()[first_token + t];
            sums[t / PANEL][t % PANEL] = x.sums()[first_token + t].wrapping_mul(128 - S::OFF);
            zeros[t / PANEL][t % PANEL] = x.zeros()[first_token + t];
        }
        let words = x.cols().div_ceil(4);
        for r in (0..self.rows).step_by(MR) {
            // Rows that are not there are the last one again.
            let row: [usize; MR] = std::array::from_fn(|i| self.first + (r + i).min(self.rows - 1));
            // SAFETY: rows have at least 4 `words` bytes, each panel has `words` times 64; the places of y are this task's alone.
            unsafe {
                let w = row.map(|r| weights.data()[r * weights.stride()..].as_ptr());
                let panels = self.panels[panel * self.panel_len..][..NV * self.panel_len].as_ptr().cast::<u8>();
                let mut acc = [[S::splat_i(0); NV]; MR];
                for k in 0..words {
                    let x: [S::B; NV] = std::array::from_fn(|v| S::bytes(panels.add(v * self.panel_len + 64 * k)));
                    for (w, acc) in w.iter().zip(&mut acc) {
                        let w = S::centered(S::word(w.add(4 * k)));
                        for v in 0..NV {
                            acc[v] = S::dot(acc[v], w, x[v]);
                        }
                    }
                }
                let mut tile = [[[0.0f32; PANEL]; NV]; MR];
                for i in 0..MR {
                    let (scale, sum) = (S::splat(weights.scales()[row[i]]), S::splat_i(weights.sums()[row[i]]));
                    for v in 0..NV {
                        let off = S::mul_i(S::load_i(zeros[v].as_ptr()), sum);
                        let n = S::sub_i(acc[i][v], S::add_i(S::load_i(sums[v].as_ptr()), off));
                        let scale = S::mul(S::load(scales[v].as_ptr()), scale);
                        S::store(tile[i][v].as_mut_ptr(), S::mul(S::float(n), scale));
                    }
                }
                for t in 0..tokens {
                    let y = self.y.at((first_token + t) * self.ldy + self.column + r);
                    for (i, tile) in tile.iter().enumerate().take(self.rows - r) {
                        *y.add(i) = tile[t / PANEL][t % PANEL];
                    }
                }
            }
        }
        NV
    }
}
