//! The product of activations with interleaved weights.

use super::Interleaved;
use super::few::{FewTiles, FewTokens};
use super::kinds::{Kind, ROWS, for_kind};
use crate::Result;
use crate::dispatch::Isa;
use crate::matmul::{FEW_ROUNDED, ROUNDED, ROUNDED_ROWS, UNPACKED, check};
use crate::rounded_gemm::{ROW_STEP, RoundedGemm, task_rows};
use crate::tasks::{Shared, Task, Tasks, few_rows};
use std::marker::PhantomData;

/// With up to so many tokens weights are decoded for each tile.
const FEW_TILES: usize = 8;

/// `y[t] = [w_0 x[t], w_1 x[t], ...]`: several interleaved matrices that read the same activations, one below the other.
///
/// As [`matmul_rounded`](crate::matmul_rounded), with activations of about 15 bits for up to 3 tokens and of 8 bits in blocks of 32 for more, on every
/// instruction set.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a length does not fit.
pub fn matmul_interleaved(x: &[f32], tokens: usize, weights: &[Interleaved<'_>], y: &mut [f32]) -> Result<()> {
    matmul_interleaved_with(Isa::best(), x, tokens, weights, y)
}

/// As [`matmul_interleaved`], with a chosen instruction set: for tests and benchmarks.
///
/// # Errors
/// As [`matmul_interleaved`].
#[allow(clippy::undocumented_unsafe_blocks)] // the lint does not see the comment in the macro's argument
pub fn matmul_interleaved_with(
    isa: Isa,
    x: &[f32],
    tokens: usize,
    weights: &[Interleaved<'_>],
    y: &mut [f32],
) -> Result<()> {
    let cols = weights.first().map_or(0, |w| w.cols);
    let mut ldy = 0usize;
    for w in weights {
        check("columns of a matrix", cols, w.cols)?;
        ldy = ldy.saturating_add(w.rows);
    }
    check("values of x", tokens.saturating_mul(cols), x.len())?;
    check("values of y", tokens.saturating_mul(ldy), y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    if cols == 0 {
        y.fill(0.0);
        return Ok(());
    }
    let few = tokens <= FEW_ROUNDED;
    let rows = match few {
        true => few_rows(ldy, weights[0].data.len() / weights[0].rows.max(1)).next_multiple_of(ROWS),
        false => ldy.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(ROW_STEP).min(task_rows(cols)),
    };
    let tasks = Tasks::new(weights, rows);
    let y = Shared::new(y);
    // Activations are taken out, so that another product that this thread picks up while it waits finds its own.
    if few {
        let mut rounded = ROUNDED_ROWS.take();
        rounded.fill(isa, x, tokens, cols);
        let x = &rounded;
        let done = tasks.run(|Task { matrix: w, first, rows, column }| {
            let panels = w.panels(first / ROWS, rows.div_ceil(ROWS));
            for_kind!(w.ty, K => {
                // SAFETY: the places of y are this task's alone, in rows of ldy and columns from `column` on.
                let y = unsafe { y.at(column) };
                isa.run_integer(FewTokens::<K> { panels, rows, cols, x, tokens, y, ldy, kind: PhantomData });
            });
            Ok(())
        });
        ROUNDED_ROWS.set(rounded);
        return done;
    }
    let mut rounded = ROUNDED.take();
    rounded.fill(isa, x, tokens, cols);
    let x = &rounded;
    let done = tasks.run(|Task { matrix: w, first, rows, column }| {
        let panels = w.panels(first / ROWS, rows.div_ceil(ROWS));
        if tokens <= FEW_TILES {
            for_kind!(w.ty, K => {
                // SAFETY: as above.
                let y = unsafe { y.at(column) };
                isa.run_integer(FewTiles::<K> { panels, rows, cols, x, y, ldy, kind: PhantomData });
            });
            return Ok(());
        }
        UNPACKED.with_borrow_mut(|unpacked| {
            for_kind!(w.ty, K => {
                unpacked.fill_from_panels::<K>(isa, panels, rows, cols);
                // SAFETY: as above.
                let y = unsafe { y.at(column) };
                RoundedGemm { w: unpacked, rows, x, y, ldy }.run::<<K as Kind>::Source>(isa);
            });
        });
        Ok(())
    });
    ROUNDED.set(rounded);
    done
}
