//! The product of activations with packed weights.

use crate::codes::{self, Block, for_block_type};
use crate::dispatch::Isa;
use crate::dot::{DotRows, Exact, Half, Input, MAX_TOKENS};
use crate::encoding::{Encoding, is_fast, is_integer};
use crate::gemm::{GemmRows, MAX_ROWS, ROW_STEP, pack_panel, packed_len, scratch_len};
use crate::half_activations::HalfRows;
use crate::matrix::{Matrix, dequantize};
use crate::micro::PANEL;
use crate::quants::{Quants, for_quants};
use crate::rounded::{RoundedRows, RoundedTiles};
use crate::rounded_dot::RoundedDot;
use crate::rounded_gemm::{self, RoundedGemm, Unpacked};
use crate::tasks::{Shared, Task, Tasks, few_rows};
use crate::{Error, Result};
use gguf_format::GgmlType;
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;

/// `y[t] = [w_0 x[t], w_1 x[t], ...]`: several matrices that read the same activations, one below the other.
///
/// `x` is `[tokens, cols]`, `y` is `[tokens, rows]` where rows counts those of all matrices. Products and sums are in f32: weights have exactly
/// their dequantized values and activations are not rounded. The order of the sums depends on the instruction set and on whether there are more
/// than 8 tokens, not on the number of threads. Work is spread over the current rayon pool.
///
/// # Errors
/// [`Error::Shape`] if a length does not fit, [`Error::Type`] for a type without kernels.
pub fn matmul(x: &[f32], tokens: usize, weights: &[Matrix<'_>], y: &mut [f32]) -> Result<()> {
    matmul_with(Isa::best(), x, tokens, weights, y)
}

/// As [`matmul`], with a chosen instruction set: for tests and benchmarks.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_with(isa: Isa, x: &[f32], tokens: usize, weights: &[Matrix<'_>], y: &mut [f32]) -> Result<()> {
    product(isa, Rounding::Never, x, tokens, weights, y)
}

/// As [`matmul`], with the activations rounded to integers, which are multiplied with the codes of the weights: the quick way.
///
/// Each 32 columns of a token are divided by a scale and rounded to nearest, ties to even. With up to 3 tokens (8 without VNNI or dotprod) the scale is
/// `max|x| / 16256`: reading the weights takes longer than multiplying, and next to nothing is lost. With more it is `max|x| / 127`, as ggml has it
/// for weights in blocks of 32. Columns whose largest magnitude is below 1e-34 count as zeros; a value that is not finite makes the token's results
/// not finite.
///
/// With rounded activations `x'` a result differs from the exact sum of `w · x'` by less than `1e-6 Σ |w x'|`, or, where blocks have mins or zero
/// points, `1e-6 Σ (|scale · code · x'| + |min · x'|)`.
///
/// With up to 8 tokens and weights that are floats (F32, F16, BF16, E4M3) activations are rounded to binary16, 11 bits, after a multiplication of each token's by
/// a power of two that keeps them in its range: the memory that they take is what slows these products down.
///
/// Other weights are multiplied as [`matmul`] does it if they have no integer kernels ([`is_integer`](crate::is_integer)), and if this machine does that as
/// quickly: with few tokens codes of 8 bits (not with dotprod); with many, without VNNI or dotprod, those and scales for each 16 columns, on NEON all;
/// without AVX2 or NEON all.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_rounded(x: &[f32], tokens: usize, weights: &[Matrix<'_>], y: &mut [f32]) -> Result<()> {
    product(Isa::best(), Rounding::Quicker, x, tokens, weights, y)
}

/// As [`matmul_rounded`], with a chosen instruction set, and integers wherever there are kernels: for tests and benchmarks.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_rounded_with(isa: Isa, x: &[f32], tokens: usize, weights: &[Matrix<'_>], y: &mut [f32]) -> Result<()> {
    product(isa, Rounding::Always, x, tokens, weights, y)
}

/// Calls `$body` with `$B` bound to the block type of an encoding whose weights are floats; `None` for others.
macro_rules! for_floats {
    ($ty:expr, $B:ident => $body:expr) => {{
        macro_rules! with {
            ($T:ty) => {{
                type $B = $T;
                Some($body)
            }};
        }
        match $ty {
            Encoding::Ggml(GgmlType::F16) => with!(codes::F16),
            Encoding::Ggml(GgmlType::BF16) => with!(codes::Bf16),
            Encoding::Ggml(GgmlType::F32) => with!(codes::F32),
            Encoding::E4M3 => with!(codes::E4M3),
            _ => None,
        }
    }};
}
/// When a product rounds its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    Never,
    /// Where that is quicker.
    Quicker,
    /// Where there are integer kernels.
    Always,
}

impl Rounding {
    /// True if a product with this encoding does.
    fn applies(self, isa: Isa, encoding: Encoding, many: bool) -> bool {
        // A token's product with codes of a byte takes as long in f32.
        let quick = |eight_bits: bool, wide: bool, sub: usize| match isa {
            Isa::Portable => false,
            // By count of instructions, not measured: `sdot` makes 16 products of bytes, and without it 16 take four operations, as in f32.
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon if many => false,
            _ if many => isa.has_dot() || !wide && sub == 32,
            _ => !eight_bits,
        };
        match self {
            Self::Never => false,
            Self::Quicker => for_quants!(encoding, Q => quick(Q::BYTES > Q::LEN, Q::WIDE, Q::SUB)).unwrap_or(false),
            Self::Always => is_integer(encoding),
        }
    }

    /// True if a product of few tokens with this encoding takes binary16 activations.
    fn halves(self, isa: Isa, encoding: Encoding) -> bool {
        // Plain Rust has no instruction for them; the kernels read both as little endian.
        let quick = self != Self::Never && isa != Isa::Portable && cfg!(target_endian = "little");
        quick && for_floats!(encoding, B => B::LEN).is_some()
    }
}

/// With VNNI or dotprod more tokens than these take less time side by side.
pub(crate) const FEW_ROUNDED: usize = 3;

fn product(
    isa: Isa,
    rounding: Rounding,
    x: &[f32],
    tokens: usize,
    weights: &[Matrix<'_>],
    y: &mut [f32],
) -> Result<()> {
    let Some(first) = weights.first() else { return check("values of y", 0, y.len()) };
    let cols = first.cols;
    let mut ldy = 0usize;
    for w in weights {
        check("columns of a matrix", cols, w.cols)?;
        w.row_bytes()?;
        ldy = ldy.saturating_add(w.rows);
    }
    check("values of x", tokens.saturating_mul(cols), x.len())?;
    check("values of y", tokens.saturating_mul(ldy), y.len())?;
    if tokens == 0 || ldy == 0 {
        return Ok(());
    }
    if cols == 0 {
        y.fill(0.0);
        return Ok(());
    }
    let all_rounded = weights.iter().all(|w| rounding.applies(isa, w.ty, true));
    if tokens <= if all_rounded && isa.has_dot() { FEW_ROUNDED } else { MAX_TOKENS } {
        few_tokens(isa, rounding, x, tokens, cols, weights, y, ldy)
    } else {
        many_tokens(isa, rounding, x, tokens, cols, weights, y, ldy)
    }
}

pub(crate) fn check(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Shape { what, expected: expected.to_string(), found }) }
}

#[allow(clippy::undocumented_unsafe_blocks)] // the lint does not see the comment in the macro's argument
#[allow(clippy::too_many_arguments)]
fn few_tokens(
    isa: Isa,
    rounding: Rounding,
    x: &[f32],
    tokens: usize,
    cols: usize,
    weights: &[Matrix<'_>],
    y: &mut [f32],
    ldy: usize,
) -> Result<()> {
    let tasks = Tasks::new(weights, few_rows(ldy, weights[0].row_bytes()?));
    let y = Shared::new(y);
    // Taken out, so that another product that this thread picks up while it waits finds its own.
    let (mut rounded, mut halves) = (ROUNDED_ROWS.take(), HALVES.take());
    if weights.iter().any(|w| rounding.applies(isa, w.ty, false)) {
        rounded.fill(isa, x, tokens, cols);
    }
    if weights.iter().any(|w| rounding.halves(isa, w.ty)) {
        halves.fill(x, cols);
    }
    let (of_integers, of_halves) = (&rounded, &halves);
    let done = tasks.run(|task: Task<'_, Matrix<'_>>| {
        let (ty, row_bytes) = (task.matrix.ty, task.row_bytes());
        if rounding.applies(isa, ty, false) {
            let (w, x) = (task.bytes().as_ptr(), of_integers);
            for_quants!(ty, Q => {
                // SAFETY: the places of y are this task's alone, in rows of ldy and columns from task.column on.
                let y = unsafe { y.at(task.column) };
                let (rows, quants) = (task.rows, PhantomData);
                isa.run_integer(RoundedDot::<Q> { w, row_bytes, rows, cols, x, tokens, y, ldy, quants });
            });
            return Ok(());
        }
        if rounding.halves(isa, ty) {
            let (shape, x) = (Rows { w: task.bytes().as_ptr(), row_bytes, rows: task.rows, cols }, of_halves);
            for_floats!(ty, B => {
                let mut t = 0;
                while t < tokens {
                    let (values, units) = x.from(t);
                    // SAFETY: whole rows of the task; `values` has the tokens from t on; the places of y are this task's alone.
                    t += unsafe {
                        let y = y.at(t * ldy + task.column);
                        dot::<B, Half>(isa, shape, units, values.as_ptr().cast(), y, ldy)
                    };
                }
            });
            return Ok(());
        }
        let ones = [1.0; MAX_TOKENS];
        task.each_run(MAX_ROWS, isa, |ty, w, row_bytes, first, rows| {
            for_block_type!(ty, B => {
                let mut t = 0;
                while t < tokens {
                    // SAFETY: `each_run` gives whole rows of the task; x holds tokens * cols values; the places of y are this task's alone, in
                    // rows t.. and columns task.column + first...
                    t += unsafe {
                        let y = y.at(t * ldy + task.column + first);
                        let shape = Rows { w, row_bytes, rows, cols };
                        dot::<B, Exact>(isa, shape, &ones[..tokens - t], x.as_ptr().add(t * cols), y, ldy)
                    };
                }
            });
        })
    });
    ROUNDED_ROWS.set(rounded);
    HALVES.set(halves);
    done
}

/// Rows of weights as the kernels take them.
#[derive(Clone, Copy)]
struct Rows {
    w: *const u8,
    row_bytes: usize,
    rows: usize,
    cols: usize,
}

impl Task<'_, Matrix<'_>> {
    /// The lengths are checked.
    fn row_bytes(&self) -> usize {
        self.matrix.data.len() / self.matrix.rows.max(1)
    }

    /// Of the rows.
    fn bytes(&self) -> &[u8] {
        &self.matrix.data[self.first * self.row_bytes()..][..self.rows * self.row_bytes()]
    }

    /// Calls `f` with type, pointer, row bytes, first row (within the task) and number of rows: once with all rows where the type has a decoder, else
    /// with up to `most` rows at a time, dequantized to f32.
    fn each_run(
        &self,
        most: usize,
        isa: Isa,
        mut f: impl FnMut(Encoding, *const u8, usize, usize, usize),
    ) -> Result<()> {
        let (bytes, row_bytes) = (self.bytes(), self.row_bytes());
        if is_fast(self.matrix.ty) {
            f(self.matrix.ty, bytes.as_ptr(), row_bytes, 0, self.rows);
            return Ok(());
        }
        let cols = self.matrix.cols;
        DECODED.with_borrow_mut(|values| {
            for first in (0..self.rows).step_by(most) {
                let rows = most.min(self.rows - first);
                if values.len() < rows * cols {
                    values.resize(rows * cols, 0.0);
                }
                let values = &mut values[..rows * cols];
                dequantize(isa, self.matrix.ty, &bytes[first * row_bytes..][..rows * row_bytes], values)?;
                // On a big-endian machine F32 weights would have to be swapped; the kernels read them as little endian.
                if cfg!(target_endian = "big") {
                    values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits().swap_bytes()));
                }
                f(GgmlType::F32.into(), values.as_ptr().cast(), cols * size_of::<f32>(), first, rows);
            }
            Ok(())
        })
    }
}

/// Multiplies with the first 4, 2 or 1 of the tokens, which have these units, and says with how many.
///
/// # Safety
/// The rows that `shape` describes, `units.len() * cols` numbers at `x`, their places at `y`.
unsafe fn dot<B: Block, X: Input>(
    isa: Isa,
    shape: Rows,
    units: &[f32],
    x: *const X::Number,
    y: *mut f32,
    ldy: usize,
) -> usize {
    let (Rows { w, row_bytes, rows, cols }, block) = (shape, PhantomData);
    if let Some(&units) = units.first_chunk() {
        isa.run(DotRows::<B, X, 4> { w, row_bytes, rows, cols, x, units, y, ldy, block });
        4
    } else if let Some(&units) = units.first_chunk() {
        isa.run(DotRows::<B, X, 2> { w, row_bytes, rows, cols, x, units, y, ldy, block });
        2
    } else {
        let units = [units.first().copied().unwrap_or(1.0)];
        isa.run(DotRows::<B, X, 1> { w, row_bytes, rows, cols, x, units, y, ldy, block });
        1
    }
}

thread_local! {
    /// The rounded activations of the product that this thread has begun.
    pub(crate) static ROUNDED: RefCell<RoundedTiles> = RefCell::default();
    /// The same of few tokens, and as binary16.
    pub(crate) static ROUNDED_ROWS: RefCell<RoundedRows> = RefCell::default();
    static HALVES: RefCell<HalfRows> = RefCell::default();
    /// Weights of the task that this thread is in, as bytes.
    pub(crate) static UNPACKED: RefCell<Unpacked> = RefCell::default();
    /// The packed activations of the product that this thread has begun.
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// Weights of a type without a decoder, as f32.
    static DECODED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// Decoded weights and sums of the task that this thread is in.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

#[allow(clippy::undocumented_unsafe_blocks)] // as above
#[allow(clippy::too_many_arguments)]
fn many_tokens(
    isa: Isa,
    rounding: Rounding,
    x: &[f32],
    tokens: usize,
    cols: usize,
    weights: &[Matrix<'_>],
    y: &mut [f32],
    ldy: usize,
) -> Result<()> {
    let threads = rayon::current_num_threads();
    let of_floats = weights.iter().any(|w| !rounding.applies(isa, w.ty, true));
    let of_integers = weights.iter().any(|w| rounding.applies(isa, w.ty, true));
    let rows = ldy.div_ceil(4 * threads);
    let rows = match of_integers {
        true => rows.next_multiple_of(rounded_gemm::ROW_STEP).min(rounded_gemm::task_rows(cols)),
        false => rows.next_multiple_of(ROW_STEP).min(MAX_ROWS),
    };
    let tasks = Tasks::new(weights, rows);

    // Taken out, so that another product that this thread picks up while it waits finds its own.
    let mut packed = PACKED.take();
    let mut rounded = ROUNDED.take();
    let need = if of_floats { packed_len(tokens, cols) } else { 0 };
    if packed.len() < need {
        packed.resize(need, 0.0);
    }
    packed[..need]
        .par_chunks_exact_mut(PANEL * cols)
        .enumerate()
        .for_each(|(panel, dst)| pack_panel(x, tokens, cols, panel, dst));
    if of_integers {
        rounded.fill(isa, x, tokens, cols);
    }

    let y = Shared::new(y);
    let (packed_x, rounded_x) = (&packed[..need], &rounded);
    let done = tasks.run(|task| {
        let ty = task.matrix.ty;
        if rounding.applies(isa, ty, true) {
            UNPACKED.with_borrow_mut(|unpacked| {
                for_quants!(ty, Q => {
                    unpacked.fill_from_rows::<Q>(isa, task.bytes(), task.rows, cols);
                    // SAFETY: as in `few_tokens`.
                    let y = unsafe { y.at(task.column) };
                    RoundedGemm { w: unpacked, rows: task.rows, x: rounded_x, y, ldy }.run::<Q>(isa);
                });
            });
            return Ok(());
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let need = scratch_len(tokens);
            if scratch.len() < need {
                scratch.resize(need, 0.0);
            }
            task.each_run(MAX_ROWS, isa, |ty, w, row_bytes, first, rows| {
                for_block_type!(ty, B => {
                    // SAFETY: as in `few_tokens`.
                    let y = unsafe { y.at(task.column + first) };
                    let mut part = 0;
                    while part < rows {
                        let here = MAX_ROWS.min(rows - part);
                        GemmRows::<B> {
                            w: w.wrapping_add(part * row_bytes),
                            row_bytes,
                            rows: here,
                            cols,
                            packed: packed_x,
                            tokens,
                            y: y.wrapping_add(part),
                            ldy,
                            scratch: &mut *scratch,
                            block: PhantomData,
                        }
                        .run(isa);
                        part += here;
                    }
                });
            })
        })
    });
    PACKED.set(packed);
    ROUNDED.set(rounded);
    done
}
