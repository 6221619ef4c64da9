//! The rows of a unit of work, made ready to meet codes.

use super::Task;
use crate::encode::MAX_CHANNELS;
use crate::layout::Storage;
use crate::rotate::rotate;
use crate::simd::{FACTOR_MAX, Simd};

/// Most rows of a unit.
pub(crate) const MAX_ROWS: usize = 8;

/// Rows of queries of one key/value head.
#[derive(Default)]
pub(crate) struct Queries {
    /// Scaled and rotated, `[rows][channels]`.
    pub(crate) whole: Vec<f32>,
    /// The same as whole numbers times `unit`, `[rows][channels / 4]`.
    pub(crate) factors: Vec<u64>,
    pub(crate) unit: [f32; MAX_ROWS],
    /// Sums of the whole numbers over the channels that share a scale, `[rows][parts]`.
    pub(crate) sums: Vec<i32>,
    pub(crate) parts: usize,
    /// What the constant part of the centre adds to the logits.
    pub(crate) offset: [f32; MAX_ROWS],
    /// What its turning part adds, `[rows][2][pairs]`.
    pub(crate) waves: Vec<f32>,
}

impl Queries {
    /// Rows `first..first + rows` of a key/value head, turned back by `shift` positions; rows up to `padded` are zero.
    ///
    /// # Safety
    /// The instruction set of S.
    #[inline(always)]
    pub(crate) unsafe fn prepare<S: Simd>(
        &mut self,
        task: &Task<'_>,
        kv_head: usize,
        first: usize,
        rows: usize,
        padded: usize,
        shift: i64,
    ) {
        let plan = &task.cache.plan;
        let (d, n) = (plan.spec.head_dim, plan.channels);
        let part = match plan.coded.key.storage {
            Storage::Int(code) => code.part(),
            _ => n,
        };
        self.parts = n.div_ceil(part);
        self.whole.clear();
        self.whole.resize(padded * n, 0.0);
        self.factors.clear();
        self.factors.resize(padded * n / 4, 0);
        self.sums.clear();
        self.waves.clear();
        (self.unit, self.offset) = ([0.0; MAX_ROWS], [0.0; MAX_ROWS]);
        let mut row = [0.0; MAX_CHANNELS];
        for r in 0..padded {
            let x = &mut row[..n];
            x.fill(0.0);
            if r < rows {
                let (token, head) = task.place(kv_head, first + r);
                let q = &task.q[token * task.stride + head * d..][..d];
                x.iter_mut().zip(q).for_each(|(x, q)| *x = q * task.options.scale);
                self.turn(task, shift, x);
            }
            self.offset[r] = plan.centres.constant_logit(kv_head, &x[..d]);
            if let Some(pairs) = plan.centres.pairs(kv_head) {
                pairs.waves(&x[..d], &mut self.waves);
            }
            // SAFETY: the caller's.
            unsafe { rotate::<S>(&plan.key_rotation, &mut x[..d]) };
            self.whole[r * n..][..n].copy_from_slice(x);
            let largest = crate::encode::largest(x);
            self.unit[r] = largest / FACTOR_MAX;
            // Below 1e-30 the quotient would not be finite.
            let inverse = if largest > 1e-30 { FACTOR_MAX / largest } else { 0.0 };
            for (g, x) in x.chunks(part).enumerate() {
                let mut sum = 0i32;
                for (i, x) in x.as_chunks::<16>().0.iter().enumerate() {
                    let at = r * n / 4 + g * part / 4 + 4 * i;
                    // SAFETY: four quads from `at` on are in `factors`.
                    unsafe {
                        let x = S::mul(S::load(x.as_ptr()), S::splat(inverse));
                        // Wraps only for a query that is not finite.
                        sum = sum.wrapping_add(S::quads(x, self.factors[at..at + 4].as_mut_ptr()));
                    }
                }
                self.sums.push(sum);
            }
        }
    }

    /// Turns a query back by `shift` positions.
    fn turn(&self, task: &Task<'_>, shift: i64, x: &mut [f32]) {
        let Some(rope) = task.cache.plan.spec.rope.as_ref().filter(|_| shift != 0) else { return };
        for (i, f) in rope.frequencies.iter().enumerate() {
            let (sin, cos) = (-(shift as f64) * f).sin_cos();
            let (sin, cos) = (sin as f32, cos as f32);
            let (a, b) = rope.channels(i);
            (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
        }
    }
}
