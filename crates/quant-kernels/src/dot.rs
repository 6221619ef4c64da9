//! Few tokens: each weight is decoded in registers and multiplied at once. The work is reading the weights; they are read once for up to 4 tokens.

use crate::codes::{Block, Sink};
use crate::dispatch::Op;
use crate::matrix::tail;
use crate::prefetch::prefetch;
use crate::simd::Simd;
use half::f16;
use std::marker::PhantomData;

/// Tokens for which this way is taken; more go to [`crate::gemm`].
pub(crate) const MAX_TOKENS: usize = 8;

/// What activations are read from.
pub(crate) trait Input {
    /// A number.
    type Number: Copy;
    /// `LANES` of them.
    ///
    /// # Safety
    /// The instruction set of `S`; the numbers at `p`.
    unsafe fn read<S: Simd>(p: *const Self::Number) -> S::F;
    /// One of them.
    fn value(number: Self::Number) -> f32;
}

/// As they are.
pub(crate) struct Exact;

impl Input for Exact {
    type Number = f32;
    #[inline(always)]
    unsafe fn read<S: Simd>(p: *const f32) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    fn value(number: f32) -> f32 {
        number
    }
}

/// Binary16: half as many bytes for the first-level cache to hold beside the weights that pass through it.
pub(crate) struct Half;

impl Input for Half {
    type Number = u16;
    #[inline(always)]
    unsafe fn read<S: Simd>(p: *const u16) -> S::F {
        // SAFETY: the caller's.
        unsafe { S::halves(p.cast()) }
    }
    #[inline(always)]
    fn value(number: u16) -> f32 {
        f16::from_bits(u16::from_le(number)).to_f32()
    }
}

/// `y[t * ldy + r] = units[t] * w[r] . x[t]` for `rows` rows and `M` tokens.
pub(crate) struct DotRows<B, X: Input, const M: usize> {
    /// `rows` rows of `row_bytes` bytes.
    pub(crate) w: *const u8,
    pub(crate) row_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// M rows of `cols` numbers.
    pub(crate) x: *const X::Number,
    pub(crate) units: [f32; M],
    pub(crate) y: *mut f32,
    pub(crate) ldy: usize,
    pub(crate) block: PhantomData<B>,
}

/// Sums a token, so that one product need not wait for the one before.
const WAYS: usize = 4;

/// Multiplies with M rows of activations. The first vector goes to sum FIRST, the next to the one behind it; USED of them are used.
struct Multiply<S: Simd, X: Input, const M: usize, const FIRST: usize, const USED: usize> {
    x: *const X::Number,
    stride: usize,
    sums: [[S::F; WAYS]; M],
}

impl<S: Simd, X: Input, const M: usize, const FIRST: usize, const USED: usize> Sink<S>
    for Multiply<S, X, M, FIRST, USED>
{
    #[inline(always)]
    unsafe fn put(&mut self, at: usize, values: S::F) {
        // SAFETY: the caller keeps `at` within the row.
        unsafe {
            let which = (FIRST + at / S::LANES) % USED;
            for t in 0..M {
                let x = X::read::<S>(self.x.add(t * self.stride + at));
                self.sums[t][which] = S::fma(values, x, self.sums[t][which]);
            }
        }
    }
}

impl<B: Block, X: Input, const M: usize> Op for DotRows<B, X, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // SAFETY: who makes this value owns the memory that its fields describe; the instruction set is that of the caller.
        unsafe {
            let blocks = self.cols / B::LEN;
            let rest = self.cols - blocks * B::LEN;
            for r in 0..self.rows {
                let row = self.w.add(r * self.row_bytes);
                let mut sums = [[S::splat(0.0); WAYS]; M];
                let mut b = 0;
                // Blocks of one vector: four at a time, each for its own sum where the registers suffice.
                while B::LEN <= 16 && b + 4 <= blocks {
                    sums = Self::block::<S, 0>(row, self.x, self.cols, b, sums);
                    sums = Self::block::<S, 1>(row, self.x, self.cols, b + 1, sums);
                    sums = Self::block::<S, 2>(row, self.x, self.cols, b + 2, sums);
                    sums = Self::block::<S, 3>(row, self.x, self.cols, b + 3, sums);
                    b += 4;
                }
                while b < blocks {
                    // Whole lines of dense types come by themselves, and quicker.
                    if B::LEN > 16 {
                        prefetch(row.wrapping_add(b * B::BYTES), B::BYTES);
                    }
                    sums = Self::block::<S, 0>(row, self.x, self.cols, b, sums);
                    b += 1;
                }
                let last = if rest > 0 { tail::<S, B>(row.add(blocks * B::BYTES), rest) } else { [0.0; 16] };
                for (t, sums) in sums.iter().enumerate() {
                    let mut y = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
                    for (i, w) in last.iter().enumerate().take(rest) {
                        y += w * X::value(*self.x.add(t * self.cols + blocks * B::LEN + i));
                    }
                    *self.y.add(t * self.ldy + r) = y * self.units[t];
                }
            }
        }
    }
}

impl<B: Block, X: Input, const M: usize> DotRows<B, X, M> {
    /// `sums` plus the products of a block, from sum FIRST on.
    ///
    /// # Safety
    /// The instruction set of S; the block of the row, and of M rows of `cols` values at `x`.
    #[inline(always)]
    unsafe fn block<S: Simd, const FIRST: usize>(
        row: *const u8,
        x: *const X::Number,
        stride: usize,
        b: usize,
        sums: [[S::F; WAYS]; M],
    ) -> [[S::F; WAYS]; M] {
        // SAFETY: the caller's.
        unsafe {
            let (block, x) = (row.add(b * B::BYTES), x.add(b * B::LEN));
            if B::LEN <= 16 && M == 1 {
                let mut sink = Multiply::<S, X, M, FIRST, WAYS> { x, stride, sums };
                B::decode::<S>(block, 0, &mut sink);
                sink.sums
            } else {
                let mut sink = Multiply::<S, X, M, FIRST, 2> { x, stride, sums };
                B::decode::<S>(block, 0, &mut sink);
                sink.sums
            }
        }
    }
}
