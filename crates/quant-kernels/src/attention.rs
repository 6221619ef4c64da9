//! Keys and values of one layer in f32, and causal attention over them.
//!
//! Positions are kept in blocks of 32, which are never moved or copied. In a block, a head's keys lie turned over, `[head_dim][32]`, and its values
//! as they are, `[32][head_dim]`: both products of attention then are the inner product of [`crate::micro`], q K^T with the queries' values and
//! p V with the probabilities as the single values.

use crate::dispatch::{Isa, Op};
use crate::micro::{PANEL, tile};
use crate::simd::{Simd, exp};
use crate::tasks::Shared;
use crate::{Error, Result};
use rayon::prelude::*;
use std::cell::RefCell;

/// Positions in a block.
const BLOCK: usize = PANEL;

/// Keys and values of the positions so far of one layer of one sequence.
#[derive(Clone, Debug)]
pub struct KvStore {
    kv_heads: usize,
    head_dim: usize,
    /// `head_dim` up to whole panels.
    padded: usize,
    len: usize,
    /// Each `[kv_heads]` of keys `[head_dim][32]` and values `[32][padded]`.
    blocks: Vec<Box<[f32]>>,
}

impl KvStore {
    /// An empty store.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        Self { kv_heads, head_dim, padded: head_dim.next_multiple_of(PANEL), len: 0, blocks: Vec::new() }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that a position costs.
    pub fn bytes_per_position(&self) -> usize {
        self.kv_heads * (self.head_dim + self.padded) * size_of::<f32>()
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// Appends `tokens` positions. Row `t` of keys is `k[t * stride..][..kv_heads * head_dim]`, of values the same of `v`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a slice is too short for its rows.
    pub fn append(&mut self, k: &[f32], v: &[f32], stride: usize, tokens: usize) -> Result<()> {
        let (d, width) = (self.head_dim, self.kv_heads * self.head_dim);
        let need = rows_len(tokens, stride, width);
        for slice in [k, v] {
            if slice.len() < need {
                let expected = format!("at least {need}");
                return Err(Error::Shape { what: "values of k or v", expected, found: slice.len() });
            }
        }
        for t in 0..tokens {
            let slot = self.len % BLOCK;
            if slot == 0 {
                self.blocks.push(vec![0.0; self.kv_heads * self.head_len()].into_boxed_slice());
            }
            let head_len = self.head_len();
            if let Some(block) = self.blocks.last_mut() {
                for (h, head) in block.chunks_exact_mut(head_len).enumerate() {
                    let (keys, values) = head.split_at_mut(d * BLOCK);
                    for (c, &x) in k[t * stride + h * d..][..d].iter().enumerate() {
                        keys[c * BLOCK + slot] = x;
                    }
                    values[slot * self.padded..][..d].copy_from_slice(&v[t * stride + h * d..][..d]);
                }
            }
            self.len += 1;
        }
        Ok(())
    }

    /// Values of a head in a block.
    fn head_len(&self) -> usize {
        BLOCK * (self.head_dim + self.padded)
    }
}

/// Values that `rows` rows need, `stride` apart and `width` wide.
fn rows_len(rows: usize, stride: usize, width: usize) -> usize {
    rows.checked_sub(1).map_or(0, |r| r.saturating_mul(stride).saturating_add(width))
}

/// Causal attention of the last `tokens` positions of `store`.
///
/// Row `t` of the queries is `q[t * stride..][..heads * head_dim]`; `out` is `[tokens, heads * head_dim]`. Query head `h` reads key/value head
/// `h / (heads / kv_heads)`. A position sees itself and all before it, or the last `window` of these. Scores are multiplied by `scale`. Work is
/// spread over the current rayon pool.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    q: &[f32],
    stride: usize,
    tokens: usize,
    heads: usize,
    store: &KvStore,
    window: Option<usize>,
    scale: f32,
    out: &mut [f32],
) -> Result<()> {
    attention_with(Isa::best(), q, stride, tokens, heads, store, window, scale, out)
}

/// As [`attention`], with a chosen instruction set: for tests and benchmarks.
///
/// # Errors
/// As [`attention`].
#[allow(clippy::too_many_arguments)]
pub fn attention_with(
    isa: Isa,
    q: &[f32],
    stride: usize,
    tokens: usize,
    heads: usize,
    store: &KvStore,
    window: Option<usize>,
    scale: f32,
    out: &mut [f32],
) -> Result<()> {
    let (d, kv_heads) = (store.head_dim, store.kv_heads);
    let shape = |what, expected: String, found| Err(Error::Shape { what, expected, found });
    if kv_heads == 0 || d == 0 || !heads.is_multiple_of(kv_heads) {
        return shape("heads", format!("a multiple of {kv_heads}"), heads);
    }
    if tokens > store.len {
        return shape("tokens", format!("at most the {} of the store", store.len), tokens);
    }
    let need = rows_len(tokens, stride, heads * d);
    if q.len() < need {
        return shape("values of q", format!("at least {need}"), q.len());
    }
    if out.len() != tokens * heads * d {
        return shape("values of out", (tokens * heads * d).to_string(), out.len());
    }
    if out.is_empty() {
        return Ok(());
    }
    let group = heads / kv_heads;
    // A task takes some rows (token, query head) of one key/value head, so many that their scores stay in the second-level cache.
    let most = ((1 << 16) / store.len).clamp(12, 48).next_multiple_of(12);
    let rows = tokens * group;
    let per_head = rows.div_ceil(most);
    let out = Shared::new(out);
    let run = |task: usize| {
        let (kv_head, first) = (task / per_head, task % per_head * most);
        let rows = most.min(rows - first);
        let part = Rows { q, stride, tokens, group, store, window, scale, out, kv_head, first, rows };
        SCRATCH.with_borrow_mut(|scratch| isa.run(Attend { part, scratch }));
    };
    match kv_heads * per_head {
        1 => run(0),
        n => (0..n).into_par_iter().with_max_len(1).for_each(run),
    }
    Ok(())
}

thread_local! {
    /// Queries, scores and sums of the task that this thread is in.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// What a task computes. The shapes are checked by `attention_with`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    q: &'a [f32],
    stride: usize,
    tokens: usize,
    group: usize,
    store: &'a KvStore,
    window: Option<usize>,
    scale: f32,
    out: Shared,
    kv_head: usize,
    first: usize,
    rows: usize,
}

impl Rows<'_> {
    /// Token and query head of a row.
    fn place(&self, row: usize) -> (usize, usize) {
        let row = self.first + row;
        (row / self.group, self.kv_head * self.group + row % self.group)
    }

    /// The positions that a token sees.
    fn sees(&self, token: usize) -> std::ops::Range<usize> {
        let end = self.store.len - self.tokens + token + 1;
        self.window.map_or(0, |w| end.saturating_sub(w))..end
    }
}

struct Attend<'a> {
    part: Rows<'a>,
    scratch: &'a mut Vec<f32>,
}

impl Op for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let part = self.part;
        let (store, rows) = (part.store, part.rows);
        let (d, padded) = (store.head_dim, store.padded);
        let (first_block, end) = (part.sees(part.place(0).0).start / BLOCK, part.sees(part.place(rows - 1).0).end);
        let blocks = first_block..end.div_ceil(BLOCK);
        let n = blocks.len() * BLOCK;
        let need = rows * (d + n + padded);
        if self.scratch.len() < need {
            self.scratch.resize(need, 0.0);
        }
        let (queries, rest) = self.scratch.split_at_mut(rows * d);
        let (scores, rest) = rest.split_at_mut(rows * n);
        let sums = &mut rest[..rows * padded];

        for (r, dst) in queries.chunks_exact_mut(d).enumerate() {
            let (token, head) = part.place(r);
            let src = &part.q[token * part.stride + head * d..][..d];
            dst.iter_mut().zip(src).for_each(|(dst, &x)| *dst = x * part.scale);
        }
        let head = |b: usize| &store.blocks[b][part.kv_head * store.head_len()..][..store.head_len()];
        for (i, b) in blocks.clone().enumerate() {
            let keys = head(b);
            // SAFETY: `queries` is [rows][d], the block's keys [d][32], `scores` [rows][n] with 32 (i + 1) <= n.
            unsafe {
                tile::<S>(
                    rows,
                    d,
                    queries.as_ptr(),
                    d,
                    keys.as_ptr(),
                    BLOCK,
                    scores.as_mut_ptr().add(i * BLOCK),
                    n,
                    false,
                )
            };
        }
        let offset = first_block * BLOCK;
        for (r, scores) in scores.chunks_exact_mut(n).enumerate() {
            let sees = part.sees(part.place(r).0);
            // SAFETY: the instruction set is that of the caller.
            unsafe { softmax::<S>(scores, sees.start - offset..sees.end - offset) };
        }
        for (i, b) in blocks.enumerate() {
            let values = &head(b)[d * BLOCK..];
            // Behind `end` a block may hold what was truncated: not read.
            let k = BLOCK.min(end - b * BLOCK);
            for panel in (0..padded).step_by(PANEL) {
                // SAFETY: `scores` is [rows][n], the block's values [32][padded], `sums` [rows][padded].
                unsafe {
                    let (a, b) = (scores.as_ptr().add(i * BLOCK), values.as_ptr().add(panel));
                    tile::<S>(rows, k, a, n, b, padded, sums.as_mut_ptr().add(panel), padded, i > 0);
                }
            }
        }
        for (r, src) in sums.chunks_exact(padded).enumerate() {
            let (token, head) = part.place(r);
            // SAFETY: `out` is [tokens][heads * d], and this row and head are this task's alone.
            unsafe {
                let dst = part.out.at((token * store.kv_heads * part.group + head) * d);
                std::ptr::copy_nonoverlapping(src.as_ptr(), dst, d);
            }
        }
    }
}

/// Softmax of the values in `valid`, zero elsewhere. The length is a multiple of 32.
///
/// # Safety
/// The instruction set of S.
#[inline(always)]
unsafe fn softmax<S: Simd>(x: &mut [f32], valid: std::ops::Range<usize>) {
    x[..valid.start].fill(f32::NEG_INFINITY);
    x[valid.end..].fill(f32::NEG_INFINITY);
    // SAFETY: `LANES` divides the length.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for chunk in x.chunks_exact(S::LANES) {
            largest = S::max(largest, S::load(chunk.as_ptr()));
        }
        let largest = S::splat(S::largest(largest));
        let mut sum = S::splat(0.0);
        for chunk in x.chunks_exact_mut(S::LANES) {
            let e = exp::<S>(S::sub(S::load(chunk.as_ptr()), largest));
            sum = S::add(sum, e);
            S::store(chunk.as_mut_ptr(), e);
        }
        let factor = S::splat(1.0 / S::sum(sum));
        for chunk in x.chunks_exact_mut(S::LANES) {
            S::store(chunk.as_mut_ptr(), S::mul(S::load(chunk.as_ptr()), factor));
        }
    }
    x[..valid.start].fill(0.0);
    x[valid.end..].fill(0.0);
}
