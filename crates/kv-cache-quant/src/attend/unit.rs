//! A unit of work: some rows of one key/value head over a run of blocks.

use super::Task;
use super::keys::{E4M3, E5M2, Half, Next, STRIDE, channel_keys, float_keys, int_keys};
use super::queries::{MAX_ROWS, Queries};
use super::values::{Rows, float_values, int_values};
use super::waves::Waves;
use crate::block::Block;
use crate::layout::{Float8, IntCode, Region, Storage};
use crate::simd::{Op, Simd, exp};
use half::f16;
use std::ops::Range;

pub(crate) struct Unit<'a> {
    pub(crate) task: Task<'a>,
    pub(crate) kv_head: usize,
    /// Of the rows of the key/value head, and how many.
    pub(crate) first: usize,
    pub(crate) rows: usize,
    pub(crate) blocks: Range<usize>,
    /// `[rows, padded][row_len]`: sums over the channels, maximum, sum of weights.
    pub(crate) sums: &'a mut [f32],
    pub(crate) row_len: usize,
}

impl Op for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // SAFETY: `Isa::run` has the instruction set.
        unsafe {
            match self.sums.len() / self.row_len {
                // What cannot be is not compiled.
                8 if S::ROWS >= 8 => self.over_blocks::<S, 8>(),
                4 if S::ROWS >= 4 => self.over_blocks::<S, 4>(),
                2 if S::ROWS >= 2 => self.over_blocks::<S, 2>(),
                _ => self.over_blocks::<S, 1>(),
            }
        }
    }
}

impl Unit<'_> {
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    unsafe fn over_blocks<S: Simd, const R: usize>(self) {
        let Self { task, kv_head, first, rows, blocks, sums, row_len } = self;
        let plan = &task.cache.plan;
        let n = plan.channels;
        let options = task.options;
        let sees: [Range<usize>; R] = std::array::from_fn(|r| match r < rows {
            true => task.sees(task.place(kv_head, first + r).0),
            false => 0..0,
        });
        let mut most = [f32::NEG_INFINITY; R];
        let mut weight = [0.0f32; R];
        let mut queries = Queries::default();
        let mut prepared = None;
        let mut waves = Waves::new(&plan.centres, kv_head);
        let mut logits = [0.0f32; STRIDE * MAX_ROWS];
        let mut start: usize = task.cache.blocks.iter().take(blocks.start).map(|slot| slot.block.len).sum();
        let mut slots = task.cache.blocks.range(blocks).peekable();
        while let Some(slot) = slots.next() {
            let block: &Block = &slot.block;
            let here = start..start + block.len;
            start = here.end;
            // The tokens of this block that a row sees, and the first ones that it sees always.
            let always = options.always.clamp(here.start, here.end) - here.start;
            let visible: [Range<usize>; R] = std::array::from_fn(|r| {
                let to = sees[r].end.clamp(here.start, here.end) - here.start;
                let from = sees[r].start.clamp(here.start, here.end) - here.start;
                from.min(to)..to
            });
            let any = |r: usize| !visible[r].is_empty() || always.min(visible[r].end) > 0;
            if !(0..R).any(any) {
                continue;
            }
            if prepared != Some(slot.shift) {
                // SAFETY: the caller's instruction set.
                unsafe { queries.prepare::<S>(&task, kv_head, first, rows, R, slot.shift) };
                prepared = Some(slot.shift);
            }
            let layout = plan.layout(block.coded);
            let bytes = block.head(plan, kv_head);
            let (keys, rest) = bytes.split_at(layout.key.len);
            let values = &rest[..layout.value.len];
            let tiles = block.len.div_ceil(16);
            let next = slots.peek().map(|slot| (plan.layout(slot.block.coded).key.len, slot.block.head(plan, kv_head)));
            let next = next.map(|(keys, head)| head.split_at(keys));
            let next = (Next::new(next.map(|n| n.0)), Next::new(next.map(|n| n.1)));
            // SAFETY: the caller's instruction set; the regions are those of the layout; 64 logits per row hold a block's.
            unsafe { block_logits::<S, R>(&layout.key, keys, tiles, &queries, next.0, logits.as_mut_ptr()) };
            if let Some(waves) = &mut waves {
                // SAFETY: as above; the queries are this head's.
                unsafe { waves.add::<S, R>(&queries, block.position, logits.as_mut_ptr()) };
            }

            let mut decay = [1.0f32; R];
            for r in 0..R {
                let l = &mut logits[r * STRIDE..][..STRIDE];
                if !any(r) {
                    l[..16 * tiles].fill(0.0);
                    continue;
                }
                let mut offset = queries.offset[r];
                if let Some(at) = layout.mean {
                    let mean = bytes[at..].as_chunks::<2>().0;
                    let q = &queries.whole[r * n..][..n];
                    offset += q.iter().zip(mean).map(|(q, m)| q * f16::from_le_bytes(*m).to_f32()).sum::<f32>();
                }
                if offset != 0.0 {
                    l[..16 * tiles].iter_mut().for_each(|x| *x += offset);
                }
                if let Some(cap) = options.softcap {
                    l[..block.len].iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
                }
                let visible = &visible[r];
                if always < visible.start {
                    l[always..visible.start].fill(f32::NEG_INFINITY);
                }
                l[visible.end..16 * tiles].fill(f32::NEG_INFINITY);
                // SAFETY: the caller's instruction set; whole 16s of the row.
                unsafe {
                    let mut largest = S::splat(most[r]);
                    for t in 0..tiles {
                        largest = S::max(S::load(l.as_ptr().add(16 * t)), largest);
                    }
                    let largest = S::largest(largest);
                    decay[r] = match most[r] {
                        f32::NEG_INFINITY => 0.0,
                        same if same == largest => 1.0,
                        less => (less - largest).exp(),
                    };
                    most[r] = largest;
                    let largest = S::splat(largest);
                    let mut sum = S::splat(0.0);
                    for t in 0..tiles {
                        let p = l.as_mut_ptr().add(16 * t);
                        let e = exp::<S>(S::sub(S::load(p), largest));
                        sum = S::add(sum, e);
                        S::store(p, e);
                    }
                    weight[r] = weight[r] * decay[r] + S::sum(sum);
                }
            }
            let rows = Rows { p: sums.as_mut_ptr(), row_len };
            // SAFETY: the caller's instruction set; `sums` has R rows of `row_len`, which is more than the channels.
            unsafe { block_values::<S, R>(&layout.value, values, block.len, logits.as_ptr(), &decay, next.1, rows) };
        }
        for (r, row) in sums.chunks_exact_mut(row_len).enumerate() {
            (row[n], row[n + 1]) = (most[r], weight[r]);
        }
    }
}

/// A kernel for integer codes by bits, whether there are grids, and whether all scales are positive.
macro_rules! by_bits {
    ($code:expr, $S:ty, $R:expr, int_keys($($arg:expr),*)) => {
        match ($code.bits, $code.paired) {
            (8, _) => int_keys::<$S, $R, 8, false>($($arg),*),
            (5, _) => int_keys::<$S, $R, 5, false>($($arg),*),
            (4, false) => int_keys::<$S, $R, 4, false>($($arg),*),
            (4, true) => int_keys::<$S, $R, 4, true>($($arg),*),
            (3, _) => int_keys::<$S, $R, 3, true>($($arg),*),
            (_, false) => int_keys::<$S, $R, 2, false>($($arg),*),
            (_, true) => int_keys::<$S, $R, 2, true>($($arg),*),
        }
    };
    ($code:expr, $S:ty, $R:expr, int_values($($arg:expr),*)) => {
        match ($code.bits, $code.paired, $code.positive) {
            (8, _, true) => int_values::<$S, $R, 8, false, true>($($arg),*),
            (8, _, false) => int_values::<$S, $R, 8, false, false>($($arg),*),
            (5, ..) => int_values::<$S, $R, 5, false, false>($($arg),*),
            (4, false, _) => int_values::<$S, $R, 4, false, false>($($arg),*),
            (4, true, _) => int_values::<$S, $R, 4, true, true>($($arg),*),
            (3, ..) => int_values::<$S, $R, 3, true, true>($($arg),*),
            (_, false, _) => int_values::<$S, $R, 2, false, false>($($arg),*),
            (_, true, _) => int_values::<$S, $R, 2, true, true>($($arg),*),
        }
    };
}

/// # Safety
/// As for [`int_keys`].
#[inline(always)]
unsafe fn block_logits<S: Simd, const R: usize>(
    region: &Region,
    bytes: &[u8],
    tiles: usize,
    q: &Queries,
    next: Next,
    out: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        match &region.storage {
            Storage::Half => float_keys::<S, R, Half>(region, bytes, tiles, q, next, out),
            Storage::Float8(Float8::E4M3) => float_keys::<S, R, E4M3>(region, bytes, tiles, q, next, out),
            Storage::Float8(Float8::E5M2) => float_keys::<S, R, E5M2>(region, bytes, tiles, q, next, out),
            Storage::PerChannel { bits } => channel_keys::<S, R>(region, *bits, bytes, tiles, q, next, out),
            Storage::Int(code) => {
                let code: &IntCode = code;
                by_bits!(code, S, R, int_keys(region, code, bytes, tiles, q, next, out))
            }
        }
    }
}

/// # Safety
/// As for [`int_values`].
#[inline(always)]
unsafe fn block_values<S: Simd, const R: usize>(
    region: &Region,
    bytes: &[u8],
    len: usize,
    weights: *const f32,
    decay: &[f32; R],
    next: Next,
    sums: Rows,
) {
    // SAFETY: the caller's.
    unsafe {
        match &region.storage {
            Storage::Half => float_values::<S, R, Half>(region, bytes, len, weights, decay, next, sums),
            Storage::Float8(Float8::E4M3) => float_values::<S, R, E4M3>(region, bytes, len, weights, decay, next, sums),
            Storage::Float8(Float8::E5M2) => float_values::<S, R, E5M2>(region, bytes, len, weights, decay, next, sums),
            Storage::PerChannel { .. } => {}
            Storage::Int(code) => {
                let code: &IntCode = code;
                by_bits!(code, S, R, int_values(region, code, bytes, len, weights, decay, next, sums))
            }
        }
    }
}
