//! The inner product of all matrix products: a small tile of C in registers.

use crate::simd::Simd;

/// `C[MR][NV * LANES] = A[MR][k] B[k][NV * LANES]`, or `+=` with `add`; `lda`, `ldb`, `ldc` values from row to row.
///
/// Each step takes one row of B in NV registers and MR single values of A.
///
/// # Safety
/// The instruction set of S; the memory that the shapes describe.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn micro<S: Simd, const MR: usize, const NV: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    // SAFETY: the indices run over the shapes that the caller owns.
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; MR];
        for p in 0..k {
            let mut row = [S::splat(0.0); NV];
            for (v, x) in row.iter_mut().enumerate() {
                *x = S::load(b.add(p * ldb + v * S::LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = S::splat(*a.add(r * lda + p));
                for v in 0..NV {
                    acc[v] = S::fma(x, row[v], acc[v]);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, &x) in acc.iter().enumerate() {
                let at = c.add(r * ldc + v * S::LANES);
                S::store(at, if add { S::add(S::load(at), x) } else { x });
            }
        }
    }
}

/// Columns of the tiles that [`tile`] computes: all instruction sets pack B in panels of this width.
pub(crate) const PANEL: usize = 32;

/// As [`micro`], for any number of rows and PANEL columns.
///
/// # Safety
/// As for [`micro`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn tile<S: Simd>(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    // SAFETY: passed on.
    unsafe {
        // 16 lanes come with 32 registers, 8 lanes with 16: 24 sums + 2 + 1, 12 sums + 2 + 1.
        if S::LANES == 16 {
            rows_of::<S, 12>(rows, k, a, lda, b, ldb, c, ldc, add);
        } else {
            rows_of::<S, 6>(rows, k, a, lda, b, ldb, c, ldc, add);
            let (b, c) = (b.add(2 * S::LANES), c.add(2 * S::LANES));
            rows_of::<S, 6>(rows, k, a, lda, b, ldb, c, ldc, add);
        }
    }
}

/// All rows, MR at a time, the rest in parts of 4, 2 and 1.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn rows_of<S: Simd, const MR: usize>(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    // SAFETY: each part covers rows that the caller owns.
    unsafe {
        let mut r = 0;
        macro_rules! part {
            ($n:expr) => {{
                micro::<S, { $n }, 2>(k, a.add(r * lda), lda, b, ldb, c.add(r * ldc), ldc, add);
                r += $n;
            }};
        }
        while r + MR <= rows {
            micro::<S, MR, 2>(k, a.add(r * lda), lda, b, ldb, c.add(r * ldc), ldc, add);
            r += MR;
        }
        while r + 4 <= rows {
            part!(4);
        }
        if r + 2 <= rows {
            part!(2);
        }
        if r < rows {
            part!(1);
        }
        let _ = r;
    }
}
