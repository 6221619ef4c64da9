//! `G += Xᵀ X` into a packed upper triangle: the one dense product this crate needs (BLAS calls it SYRK).
//!
//! Rows of `X` are contiguous, so the product is a sum of outer products and neither factor needs transposing: a block of rows is
//! packed into panels of [`PANEL`] columns, and every pair of panels meets in a register tile. Bands of the triangle go to the threads.
//! The result does not depend on the number of threads: each element is the f32 sum over [`SUM_ROWS`] rows in row order, a few of those
//! summed to a block's, added to the f32 total once per block. It does depend on whether the machine fuses multiply and add.

#![allow(unsafe_code)]

use crate::UpperTriangle;
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 32;
/// Rows of a block: the whole triangle is read and written once for each.
const BLOCK_ROWS: usize = 512;
/// Bands of the triangle that one task works on, at most: each panel is fetched once for all of them.
const BANDS: usize = 8;
/// Rows whose products are summed before they meet a larger sum: f32 sums stay short.
const SUM_ROWS: usize = 256;
/// Rows that a tile is made of at a time: two panels of them (16 KB) stay in the first-level cache.
const STEP_ROWS: usize = 64;

/// One panel, row after row.
type PanelRow = [f32; PANEL];

/// Adds `Xᵀ X` of the row-major `[rows, n]` matrix `x`.
///
/// # Panics
/// If `x` is not whole rows of `gram.dim()` columns: the caller's check is missing.
pub(crate) fn add_gram(gram: &mut UpperTriangle, x: &[f32]) {
    let n = gram.dim();
    if n == 0 || x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(n));
    let kernel = kernel();
    let panels = n.div_ceil(PANEL);
    let mut packed = vec![[0.0f32; PANEL]; panels * BLOCK_ROWS];
    for block in x.chunks(BLOCK_ROWS * n) {
        let rows = block.len() / n;
        let packed = &mut packed[..panels * rows];
        packed.par_chunks_mut(rows).enumerate().for_each(|(p, panel)| {
            let start = p * PANEL;
            let width = PANEL.min(n - start);
            for (dst, src) in panel.iter_mut().zip(block.chunks_exact(n)) {
                dst[..width].copy_from_slice(&src[start..start + width]);
                dst[width..].fill(0.0);
            }
        });
        let packed = &*packed;
        // Each band of PANEL rows of the triangle is contiguous; the first bands are the longest, so hand them out one by one.
        let mut bands = Vec::with_capacity(panels);
        let mut rest = gram.values_mut();
        for p in 0..panels {
            let first = p * PANEL;
            let last = (first + PANEL).min(n);
            let len = (first..last).map(|i| n - i).sum();
            let (band, tail) = rest.split_at_mut(len);
            bands.push((p, band));
            rest = tail;
        }
        // Enough tasks that none of them keeps the others waiting.
        bands.par_chunks_mut((panels / 16).clamp(1, BANDS)).with_max_len(1).for_each(|bands| {
            let first = bands.first().map_or(panels, |(p, _)| *p);
            for q in first..panels {
                let b = &packed[q * rows..][..rows];
                for (p, band) in bands.iter_mut().filter(|(p, _)| *p <= q) {
                    let a = &packed[*p * rows..][..rows];
                    let mut sum = [[0.0f32; PANEL]; PANEL];
                    for (a, b) in a.chunks(SUM_ROWS).zip(b.chunks(SUM_ROWS)) {
                        let mut tile = [[0.0f32; PANEL]; PANEL];
                        kernel(a, b, &mut tile);
                        sum.as_flattened_mut().iter_mut().zip(tile.as_flattened()).for_each(|(sum, v)| *sum += v);
                    }
                    add_tile(band, n, *p * PANEL, q * PANEL, &sum);
                }
            }
        });
    }
}

/// Adds the part of a tile that lies in the upper triangle to its band.
fn add_tile(band: &mut [f32], n: usize, i0: usize, j0: usize, tile: &[[f32; PANEL]; PANEL]) {
    let mut row_at = 0;
    for (i, values) in (i0..n.min(i0 + PANEL)).zip(tile) {
        let j_first = j0.max(i);
        let j_last = n.min(j0 + PANEL);
        let dst = &mut band[row_at + j_first - i..row_at + j_last - i];
        for (d, v) in dst.iter_mut().zip(&values[j_first - j0..]) {
            *d += v;
        }
        row_at += n - i;
    }
}

/// `tile += Aᵀ B` of two panels of equally many rows.
type Kernel = fn(&[PanelRow], &[PanelRow], &mut [[f32; PANEL]; PANEL]);

/// The fastest kernel of this machine.
fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            // SAFETY: avx512f and fma were just detected.
            return |a, b, tile| unsafe { product_avx512(a, b, tile) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: avx2 and fma were just detected.
            return |a, b, tile| unsafe { product_avx2(a, b, tile) };
        }
    }
    product_portable
}

fn product_portable(a: &[PanelRow], b: &[PanelRow], tile: &mut [[f32; PANEL]; PANEL]) {
    // On aarch64 fused multiply-add is always there; elsewhere without it `mul_add` would be a function call.
    product::<4, 8, { cfg!(target_arch = "aarch64") }>(a, b, tile);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn product_avx2(a: &[PanelRow], b: &[PanelRow], tile: &mut [[f32; PANEL]; PANEL]) {
    product::<4, 16, true>(a, b, tile);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn product_avx512(a: &[PanelRow], b: &[PanelRow], tile: &mut [[f32; PANEL]; PANEL]) {
    product::<4, 32, true>(a, b, tile);
}

/// Register tiles of `MR x NR`; `MR * NR / lanes` accumulators hide the latency of the multiply-add.
/// The sizes above are the fastest measured that the compiler keeps in registers (8 rows are not unrolled and are 30 times slower).
#[inline(always)]
fn product<const MR: usize, const NR: usize, const FUSED: bool>(
    a: &[PanelRow],
    b: &[PanelRow],
    tile: &mut [[f32; PANEL]; PANEL],
) {
    for (a, b) in a.chunks(STEP_ROWS).zip(b.chunks(STEP_ROWS)) {
        for i0 in (0..PANEL).step_by(MR) {
            for j0 in (0..PANEL).step_by(NR) {
                let mut acc = [[0.0f32; NR]; MR];
                for (acc, row) in acc.iter_mut().zip(&tile[i0..]) {
                    acc.copy_from_slice(&row[j0..j0 + NR]);
                }
                for (a, b) in a.iter().zip(b) {
                    let (a, b): (&[f32], &[f32]) = (&a[i0..i0 + MR], &b[j0..j0 + NR]);
                    for i in 0..MR {
                        for j in 0..NR {
                            acc[i][j] = if FUSED { a[i].mul_add(b[j], acc[i][j]) } else { acc[i][j] + a[i] * b[j] };
                        }
                    }
                }
                for (row, acc) in tile[i0..].iter_mut().zip(&acc) {
                    row[j0..j0 + NR].copy_from_slice(acc);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_at_every_edge() {
        for n in [1, 2, 31, 32, 33, 64, 100] {
            for rows in [0, 1, 3, 255, 256, 257, 600] {
                let x = values(rows * n);
                let mut gram = UpperTriangle::zeros(n);
                add_gram(&mut gram, &x);
                for i in 0..n {
                    for j in i..n {
                        let exact: f64 = x.chunks_exact(n).map(|r| f64::from(r[i]) * f64::from(r[j])).sum();
                        let error = (f64::from(gram.get(i, j)) - exact).abs();
                        assert!(error <= 1e-5 * (rows as f64).max(1.0), "n {n} rows {rows} at {i},{j}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_agree() {
        for rows in [0, 1, 17, 256] {
            let x = values(2 * rows * PANEL);
            let panels: Vec<PanelRow> = x.chunks_exact(PANEL).map(|c| c.try_into().unwrap()).collect();
            let (mut want, mut got) = ([[1.0; PANEL]; PANEL], [[1.0; PANEL]; PANEL]);
            product_portable(&panels[..rows], &panels[rows..], &mut want);
            kernel()(&panels[..rows], &panels[rows..], &mut got);
            for (w, g) in want.as_flattened().iter().zip(got.as_flattened()) {
                assert!((w - g).abs() < 1e-4, "rows {rows}: {w} {g}");
            }
        }
    }
}
