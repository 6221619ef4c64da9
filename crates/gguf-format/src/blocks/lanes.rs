//! Sub-blocks side by side: lane `j` of every `[f32; W]` belongs to sub-block `j`.
//!
//! ggml's searches add up floats of one sub-block in order, so a sum within a sub-block cannot be split among SIMD lanes without
//! changing its last bits. The sub-blocks of a super-block are independent of each other, though: a transposed super-block is searched
//! `W` sub-blocks at a time with each sum in ggml's order, in fixed-size loops that the compiler turns into SIMD of any width.

/// `W` sub-blocks of `N` values, transposed: `[l][j]` is value `l` of sub-block `j`.
pub(super) type Lanes<const W: usize, const N: usize> = [[f32; W]; N];

/// Transposes `W` sub-blocks of `N` consecutive values; values that `x` does not have are zero.
#[inline(always)]
pub(super) fn transpose<const W: usize, const N: usize>(x: &[f32]) -> Lanes<W, N> {
    let mut lanes = [[0.0; W]; N];
    for (j, sub_block) in x.as_chunks::<N>().0.iter().take(W).enumerate() {
        for (lane, &value) in lanes.iter_mut().zip(sub_block) {
            lane[j] = value;
        }
    }
    lanes
}

/// Sum of each sub-block, in order.
#[inline(always)]
pub(super) fn sums<const W: usize, const N: usize>(x: &Lanes<W, N>) -> [f32; W] {
    let mut sums = [0.0; W];
    for x in x {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += x;
        }
    }
    sums
}

/// Sum of the squares of each sub-block, in order.
#[inline(always)]
pub(super) fn sums_of_squares<const W: usize, const N: usize>(x: &Lanes<W, N>) -> [f32; W] {
    let mut sums = [0.0; W];
    for x in x {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    sums
}

/// `f(a, b)` of each pair.
#[inline(always)]
pub(super) fn zip<const W: usize, const N: usize>(
    a: &Lanes<W, N>,
    b: &Lanes<W, N>,
    f: impl Fn(f32, f32) -> f32,
) -> Lanes<W, N> {
    let mut out = [[0.0; W]; N];
    for l in 0..N {
        for j in 0..W {
            out[l][j] = f(a[l][j], b[l][j]);
        }
    }
    out
}

/// Sum of the squares of a row or super-block, in order.
#[inline(always)]
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, &x| sum + x * x)
}

/// `f` of each element. As `[T; N]::map`, which is not always inlined when the array is long.
#[inline(always)]
pub(super) fn each<A: Copy, B: Copy + Default, const N: usize>(x: &[A; N], f: impl Fn(A) -> B) -> [B; N] {
    build(|i| f(x[i]))
}

/// `f` of each index. As [`std::array::from_fn`], which is not always inlined when the array is long.
#[inline(always)]
pub(super) fn build<B: Copy + Default, const N: usize>(f: impl Fn(usize) -> B) -> [B; N] {
    let mut out = [B::default(); N];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}
