//! Few tokens: each weight is decoded in registers and multiplied at once. The work is reading the weights; they are read once for up to 4 tokens.

use crate::codes::{Block, Sink};
use crate::dispatch::Op;
use crate::matrix::tail;
use crate::prefetch::prefetch;
use crate::simd::Simd;
use std::marker::PhantomData;

/// Tokens for which this way is taken; more go to [`crate::gemm`].
pub(crate) const MAX_TOKENS: usize = 8;

/// `y[t * ldy + r] = w[r] . x[t]` for `rows` rows and `M` tokens.
pub(crate) struct DotRows<B, const M: usize> {
    /// `rows` rows of `row_bytes` bytes.
    pub(crate) w: *const u8,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// M rows of `cols` values.
    pub(crate) x: *const f32,
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
    pub(crate) block: PhantomData<B>,
}

/// Multiplies with M rows of activations. Two sums a token, so that one product need not wait for the one before.
struct Multiply<S: Simd, const M: usize> {
    x: *const f32,
    stride: usize,
    sums: [[S::F; 2]; M],
}

impl<S: Simd, const M: usize> Sink<S> for Multiply<S, M> {
    #[inline(always)]
    unsafe fn put(&mut self, at: usize, values: S::F) {
        // SAFETY: the caller keeps `at` within the row.
        unsafe {
            let which = at / S::LANES % 2;
            for t in 0..M {
                let x = S::load(self.x.add(t * self.stride + at));
                self.sums[t][which] = S::fma(values, x, self.sums[t][which]);
            }
        }
    }
}

impl<B: Block, const M: usize> Op for DotRows<B, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // SAFETY: who makes this value owns the memory that its fields describe; the instruction set is that of the caller.
        unsafe {
            let blocks = self.cols / B::LEN;
            let rest = self.cols - blocks * B::LEN;
            for r in 0..self.rows {
                let row = self.w.add(r * self.row_bytes);
                let mut sums = [[S::splat(0.0); 2]; M];
                for b in 0..blocks {
                    let mut sink = Multiply::<S, M> { x: self.x.add(b * B::LEN), stride: self.cols, sums };
                    // Whole lines of dense types come by themselves, and quicker.
                    if B::LEN > 16 {
                        prefetch(row.wrapping_add(b * B::BYTES), B::BYTES);
                    }
                    B::decode::<S>(row.add(b * B::BYTES), 0, &mut sink);
                    sums = sink.sums;
                }
                let last = if rest > 0 { tail::<S, B>(row.add(blocks * B::BYTES), rest) } else { [0.0; 16] };
                for (t, sums) in sums.iter().enumerate() {
                    let mut y = S::sum(S::add(sums[0], sums[1]));
                    for (i, w) in last.iter().enumerate().take(rest) {
                        y += w * *self.x.add(t * self.cols + blocks * B::LEN + i);
                    }
                    *self.y.add(t * self.ldy + r) = y;
                }
            }
        }
    }
}
