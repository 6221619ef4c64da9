//! The functions between the products: RMS norm, rotary embedding, gated SiLU.

use crate::dispatch::{Isa, Op};
use crate::simd::{Simd, exp};
use crate::{Error, Result};
use rayon::prelude::*;

/// Values below which a function runs on one thread.
const ONE_THREAD: usize = 1 << 15;

/// `y = x / sqrt(mean(x^2) + eps) * weight`, for each row of `weight.len()` values. `y` and `x` have the same length.
///
/// The mean is summed in f64.
///
/// # Errors
/// [`Error::Shape`] if the lengths do not fit.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) -> Result<()> {
    let n = weight.len();
    if n == 0 || !x.len().is_multiple_of(n) || y.len() != x.len() {
        return Err(Error::Shape {
            what: "values to norm",
            expected: format!("rows of {n}, in and out"),
            found: x.len(),
        });
    }
    let row = |(x, y): (&[f32], &mut [f32])| {
        let scale = rms_scale(x, eps);
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * w;
        }
    };
    if x.len() < ONE_THREAD {
        x.chunks_exact(n).zip(y.chunks_exact_mut(n)).for_each(row);
    } else {
        x.par_chunks_exact(n).zip(y.par_chunks_exact_mut(n)).for_each(row);
    }
    Ok(())
}

/// As [`rms_norm`], with `y` in the place of `x`, on one thread.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) -> Result<()> {
    let n = weight.len();
    if n == 0 || !x.len().is_multiple_of(n) {
        return Err(Error::Shape { what: "values to norm", expected: format!("rows of {n}"), found: x.len() });
    }
    for x in x.chunks_exact_mut(n) {
        let scale = rms_scale(x, eps);
        x.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * scale * w);
    }
    Ok(())
}

/// `1 / sqrt(mean(x^2) + eps)`.
fn rms_scale(x: &[f32], eps: f32) -> f32 {
    let mut sums = [0.0f64; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (sum, &v) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(v) * f64::from(v);
        }
    }
    let sum: f64 = sums.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
    1.0 / ((sum / x.len() as f64) as f32 + eps).sqrt()
}

/// Rotates one head of `2 * cos.len()` channels in place, by the angles whose cosines and sines are given.
///
/// With `adjacent` channels 2i and 2i + 1 rotate together, else i and i + d/2.
///
/// # Errors
/// [`Error::Shape`] if the lengths do not fit.
pub fn rope(x: &mut [f32], cos: &[f32], sin: &[f32], adjacent: bool) -> Result<()> {
    let half = cos.len();
    if x.len() != 2 * half || sin.len() != half {
        return Err(Error::Shape { what: "channels of a head", expected: (2 * half).to_string(), found: x.len() });
    }
    if adjacent {
        for ((pair, &c), &s) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            *pair = [pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c];
        }
    } else {
        let (low, high) = x.split_at_mut(half);
        for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
        }
    }
    Ok(())
}

/// `y[t][i] = silu(x[t][i]) * x[t][n + i]`: `x` is `[tokens, 2 n]`, gate beside up; `y` is `[tokens, n]`. silu(g) = g / (1 + e^-g).
///
/// # Errors
/// [`Error::Shape`] if the lengths do not fit.
pub fn silu_mul(x: &[f32], n: usize, y: &mut [f32]) -> Result<()> {
    silu_mul_with(Isa::best(), x, n, y)
}

/// As [`silu_mul`], with a chosen instruction set: for tests and benchmarks.
///
/// # Errors
/// As [`silu_mul`].
pub fn silu_mul_with(isa: Isa, x: &[f32], n: usize, y: &mut [f32]) -> Result<()> {
    if n == 0 || !y.len().is_multiple_of(n) || x.len() != 2 * y.len() {
        return Err(Error::Shape {
            what: "values of gate and up",
            expected: format!("rows of 2 times {n}"),
            found: x.len(),
        });
    }
    let row = |(x, y): (&[f32], &mut [f32])| {
        let (gate, up) = x.split_at(n);
        isa.run(SiluMul { gate, up, y });
    };
    if x.len() < ONE_THREAD {
        x.chunks_exact(2 * n).zip(y.chunks_exact_mut(n)).for_each(row);
    } else {
        x.par_chunks_exact(2 * n).zip(y.par_chunks_exact_mut(n)).for_each(row);
    }
    Ok(())
}

struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Op for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = S::LANES;
        let mut y = self.y.chunks_exact_mut(n);
        let mut gate = self.gate.chunks_exact(n);
        let mut up = self.up.chunks_exact(n);
        for ((y, g), u) in y.by_ref().zip(gate.by_ref()).zip(up.by_ref()) {
            // SAFETY: each chunk has `LANES` values; the instruction set is that of the caller.
            unsafe { S::store(y.as_mut_ptr(), silu_mul_vector::<S>(S::load(g.as_ptr()), S::load(u.as_ptr()))) };
        }
        let (mut g, mut u, mut out) = ([0.0f32; 16], [0.0f32; 16], [0.0f32; 16]);
        let rest = gate.remainder().len();
        g[..rest].copy_from_slice(gate.remainder());
        u[..rest].copy_from_slice(&up.remainder()[..rest]);
        // SAFETY: the arrays have 16 values, at least `LANES`.
        unsafe { S::store(out.as_mut_ptr(), silu_mul_vector::<S>(S::load(g.as_ptr()), S::load(u.as_ptr()))) };
        y.into_remainder().copy_from_slice(&out[..rest]);
    }
}

#[inline(always)]
unsafe fn silu_mul_vector<S: Simd>(g: S::F, u: S::F) -> S::F {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let e = exp::<S>(S::sub(S::splat(0.0), g));
        S::mul(S::div(g, S::add(S::splat(1.0), e)), u)
    }
}
