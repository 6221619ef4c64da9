//! Attention of the last tokens of a cache over all of it, straight on the codes.
//!
//! One pass with the online softmax (arXiv 1805.02867): block by block, logits of all rows, new maxima, what was summed so far scaled down to
//! them, the weighted values added. A row is a query head of a token. All rows of a unit of work share one key/value head, and with it each load and
//! decoding of a code.
//!
//! - Logits: the codes stand for whole numbers, the query is rounded to 16-bit whole numbers ([`simd::FACTOR_MAX`](crate::simd::FACTOR_MAX)) by its
//!   largest value: an error 256 times below that of int8 keys. The sum over a group is exact, then multiplied by the token's scale.
//! - Values: the same with the roles turned: a token's weight times its scale is rounded to 15 bits and a sign by the largest in the block.
//! - Half precision and 8-bit floats take f32 products.
//!
//! A long context with few rows is cut into runs of blocks, whose sums are joined at the end; where depends on the shapes alone, so that results do
//! not depend on the number of threads.

mod keys;
mod queries;
mod unit;
mod values;
mod waves;

use crate::Result;
use crate::cache::LayerCache;
use crate::error::shape;
use crate::simd::{Isa, Op, Simd};
use rayon::prelude::*;
use unit::Unit;

/// What attention does besides the products.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Logits are multiplied by it: usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A token sees itself and those before it, together at most so many.
    pub window: Option<usize>,
    /// The first so many tokens held are seen whatever the window is.
    pub always: usize,
    /// Logits become `cap tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// One logit per query head that takes part in the softmax with no value (gpt-oss).
    pub sink_logits: Option<&'a [f32]>,
}

impl Attend<'_> {
    /// Plain causal attention.
    pub fn causal(scale: f32) -> Self {
        Self { scale, window: None, always: 0, softcap: None, sink_logits: None }
    }
}

/// Tokens in a run of blocks.
const RUN: usize = 1024;
/// Units of work from which on runs are not cut.
const ENOUGH: usize = 16;
/// Products below which one thread does all.
const SMALL: usize = 1 << 18;

impl LayerCache {
    /// Causal attention of the last `tokens` tokens held.
    ///
    /// Row `t` of the queries, turned for their positions, is `q[t * stride..][..heads * head_dim]`; `out` is `[tokens, heads * head_dim]`. Query head `h`
    /// reads key/value head `h / (heads / kv_heads)`. Work is spread over the current rayon pool. Values that are not finite give values that are not.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit.
    pub fn attend(
        &self,
        q: &[f32],
        stride: usize,
        tokens: usize,
        heads: usize,
        options: &Attend<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        self.attend_with(Isa::best(), q, stride, tokens, heads, options, out)
    }

    /// As [`attend`](Self::attend), with a chosen instruction set: for tests and benchmarks.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    #[allow(clippy::too_many_arguments)]
    pub fn attend_with(
        &self,
        isa: Isa,
        q: &[f32],
        stride: usize,
        tokens: usize,
        heads: usize,
        options: &Attend<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        let (kv_heads, d) = (self.plan.spec.kv_heads, self.plan.spec.head_dim);
        if heads == 0 || !heads.is_multiple_of(kv_heads) {
            return shape("heads", format!("a multiple of {kv_heads}"), heads);
        }
        if tokens > self.len() {
            return shape("tokens", format!("at most the {} held", self.len()), tokens);
        }
        let width = heads.checked_mul(d);
        let need = width.and_then(|w| tokens.checked_sub(1).map_or(Some(0), |t| t.checked_mul(stride)?.checked_add(w)));
        if need.is_none_or(|need| q.len() < need) || (tokens > 1 && width.is_none_or(|w| stride < w)) {
            return shape("values of q", format!("{tokens} rows of {heads} heads of {d}, {stride} apart"), q.len());
        }
        if Some(out.len()) != width.and_then(|w| w.checked_mul(tokens)) {
            return shape("values of out", format!("{tokens} rows of {heads} heads of {d}"), out.len());
        }
        if let Some(sinks) = options.sink_logits.filter(|s| s.len() != heads) {
            return shape("sink logits", heads.to_string(), sinks.len());
        }
        if tokens == 0 {
            return Ok(());
        }
        let task = Task { cache: self, q, stride, tokens, heads, options };
        isa.run(Rows { task }).finish(&task, out);
        Ok(())
    }
}

/// The arguments, checked.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) cache: &'a LayerCache,
    pub(crate) q: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) options: &'a Attend<'a>,
}

impl Task<'_> {
    /// Query heads of a key/value head.
    pub(crate) fn group(&self) -> usize {
        self.heads / self.cache.plan.spec.kv_heads
    }

    /// Token and query head of a row of a key/value head.
    pub(crate) fn place(&self, kv_head: usize, row: usize) -> (usize, usize) {
        (row / self.group(), kv_head * self.group() + row % self.group())
    }

    /// The tokens held that a token sees, but for those always seen.
    pub(crate) fn sees(&self, token: usize) -> std::ops::Range<usize> {
        let end = self.cache.len() - self.tokens + token + 1;
        self.options.window.map_or(0, |w| end.saturating_sub(w))..end
    }
}

/// How the work is cut: `[kv_heads][parts of rows][runs of blocks]`.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rows of a key/value head, of a part, and parts.
    rows: usize,
    part: usize,
    parts: usize,
    runs: usize,
    /// Blocks of a run.
    run: usize,
    /// Values of a row's sums: the channels, the maximum, the sum of weights.
    row_len: usize,
}

/// The sums of all units.
struct Sums {
    cut: Cut,
    values: Vec<f32>,
}

/// All units, by the instruction set whose rows they take.
struct Rows<'a> {
    task: Task<'a>,
}

impl Op for Rows<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self) -> Sums {
        let task = self.task;
        let plan = &task.cache.plan;
        let rows = task.tokens * task.group();
        // The smallest power of two that takes all rows, or the most.
        let part = rows.next_power_of_two().min(S::ROWS);
        let parts = rows.div_ceil(part);
        let blocks = task.cache.blocks.len();
        let runs_of = if plan.spec.kv_heads * parts >= ENOUGH { usize::MAX } else { RUN / plan.spec.block };
        let run = runs_of.min(blocks);
        let cut = Cut { rows, part, parts, runs: blocks.div_ceil(run), run, row_len: plan.channels + 2 };
        let units = plan.spec.kv_heads * parts * cut.runs;
        let mut values = vec![0.0; units * part * cut.row_len];
        let one = |(i, sums): (usize, &mut [f32])| {
            let (head_and_part, run) = (i / cut.runs, i % cut.runs);
            let (kv_head, first) = (head_and_part / parts, head_and_part % parts * part);
            let blocks = run * cut.run..((run + 1) * cut.run).min(blocks);
            let unit = Unit { task, kv_head, first, rows: part.min(rows - first), blocks, sums, row_len: cut.row_len };
            // Each instruction set enters its own compiled unit: threads of a pool start outside of this one.
            S::isa().run(unit);
        };
        let work = task.cache.len() * rows * plan.channels;
        if units == 1 || work < SMALL {
            values.chunks_exact_mut(part * cut.row_len).enumerate().for_each(one);
        } else {
            values.par_chunks_exact_mut(part * cut.row_len).enumerate().with_max_len(1).for_each(one);
        }
        Sums { cut, values }
    }
}

impl Sums {
    /// Joins the runs, divides, turns the values back.
    fn finish(self, task: &Task<'_>, out: &mut [f32]) {
        let Self { cut, values } = self;
        let plan = &task.cache.plan;
        let (d, n) = (plan.spec.head_dim, plan.channels);
        let mut joined = vec![0.0; n];
        for kv_head in 0..plan.spec.kv_heads {
            for row in 0..cut.rows {
                let (token, head) = task.place(kv_head, row);
                let unit = |run: usize| {
                    let unit = (kv_head * cut.parts + row / cut.part) * cut.runs + run;
                    &values[(unit * cut.part + row % cut.part) * cut.row_len..][..cut.row_len]
                };
                let sink = task.options.sink_logits.map(|s| s[head]);
                let most = (0..cut.runs).map(|run| unit(run)[n]).chain(sink).fold(f32::NEG_INFINITY, f32::max);
                let mut weight = sink.map_or(0.0, |sink| (sink - most).exp());
                joined.fill(0.0);
                for run in 0..cut.runs {
                    let sums = unit(run);
                    // No token of the run was seen.
                    if sums[n] == f32::NEG_INFINITY {
                        continue;
                    }
                    let factor = (sums[n] - most).exp();
                    weight += factor * sums[n + 1];
                    joined.iter_mut().zip(sums).for_each(|(x, s)| *x += factor * s);
                }
                joined[..d].iter_mut().for_each(|x| *x /= weight);
                plan.value_rotation.apply(&mut joined[..d]);
                out[(token * task.heads + head) * d..][..d].copy_from_slice(&joined[..d]);
            }
        }
    }
}
