//! Activations rounded to int8, token by token.

use crate::int8_weights::MAX_COLS;
use crate::{Error, Result};
use rayon::prelude::*;

/// Activations in int8, `x[t][c] = scale[t] · (code[t][c] - zero[t])`: one scale and one zero point a token.
///
/// A token of zeros has zeros for codes. A token with a value that is not finite has NaN for a scale, whatever its scale was to be, so that nothing
/// that is computed from it looks sound.
#[derive(Clone, Debug)]
pub struct Int8Activations {
    tokens: usize,
    cols: usize,
    stride: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    sums: Vec<i32>,
}

impl Int8Activations {
    /// Rounds `x`, `[tokens, cols]`: the scale of a token is `max|x| / 127`, a code `x / scale` to nearest, ties to even.
    ///
    /// # Errors
    /// [`Error::Shape`] for no columns, more than 65536, or values that are no whole tokens.
    pub fn per_token(x: &[f32], cols: usize) -> Result<Self> {
        let tokens = tokens_of(x.len(), cols)?;
        let max = |x: &[f32]| x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scales: Vec<f32> = x.par_chunks_exact(cols).map(|x| max(x) / 127.0).collect();
        Self::rounded(x, cols, scales, vec![0; tokens])
    }

    /// Rounds `x`, `[tokens, cols]`, with scales and zero points that are given: one for all tokens (static, per tensor) or one each. A code is
    /// `x / scale` to nearest, ties to even, plus the zero point; what lies beyond -128 or 127 becomes that.
    ///
    /// # Errors
    /// [`Error::Shape`] as for [`Int8Activations::per_token`], for another number of scales or zero points (no zero points: all 0), and for a zero
    /// point beyond -128 to 127.
    pub fn with_scales(x: &[f32], cols: usize, scales: &[f32], zeros: &[i32]) -> Result<Self> {
        let tokens = tokens_of(x.len(), cols)?;
        let scales = one_each("scales", tokens, scales)?;
        let zeros = if zeros.is_empty() { vec![0; tokens] } else { one_each("zero points", tokens, zeros)? };
        Self::rounded(x, cols, scales, zeros)
    }

    fn rounded(x: &[f32], cols: usize, mut scales: Vec<f32>, zeros: Vec<i32>) -> Result<Self> {
        check_zeros(&zeros)?;
        let (tokens, stride) = (scales.len(), stride_of(cols));
        let mut codes = vec![0i8; tokens * stride];
        let rows = codes.par_chunks_exact_mut(stride).zip(x.par_chunks_exact(cols));
        let sums = rows.zip(scales.par_iter_mut().zip(&zeros)).map(|((codes, x), (scale, &zero))| {
            if x.iter().any(|v| !v.is_finite()) {
                *scale = f32::NAN;
                return 0;
            }
            let (divisor, zero) = (*scale, zero as f32);
            if divisor == 0.0 {
                // Whatever the codes, the product is 0; 0 / 0 would be none.
                codes[..cols].fill(zero as i8);
            } else {
                for (code, &v) in codes.iter_mut().zip(x) {
                    *code = ((v / divisor).round_ties_even() + zero) as i8;
                }
            }
            sum(&codes[..cols])
        });
        let sums = sums.collect();
        Ok(Self { tokens, cols, stride, codes, scales, zeros, sums })
    }

    /// Takes codes that somebody else rounded, `[tokens, cols]`, with one scale a token, and one zero point a token or none.
    ///
    /// # Errors
    /// As for [`Int8Activations::with_scales`].
    pub fn from_codes(codes: &[i8], cols: usize, scales: &[f32], zeros: &[i32]) -> Result<Self> {
        let tokens = tokens_of(codes.len(), cols)?;
        let scales = one_each("scales", tokens, scales)?;
        let zeros = if zeros.is_empty() { vec![0; tokens] } else { one_each("zero points", tokens, zeros)? };
        check_zeros(&zeros)?;
        let stride = stride_of(cols);
        let mut padded = vec![0i8; tokens * stride];
        for (row, codes) in padded.chunks_exact_mut(stride).zip(codes.chunks_exact(cols)) {
            row[..cols].copy_from_slice(codes);
        }
        let sums = codes.chunks_exact(cols).map(sum).collect();
        Ok(Self { tokens, cols, stride, codes: padded, scales, zeros, sums })
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The codes of a token.
    ///
    /// # Panics
    /// For a token that is not there.
    pub fn codes(&self, token: usize) -> &[i8] {
        &self.codes[token * self.stride..][..self.cols]
    }

    /// Scale of each token.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Zero point of each token.
    pub fn zeros(&self) -> &[i32] {
        &self.zeros
    }

    /// Sum of the codes of each token.
    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// The codes of a token, followed by zeros up to a multiple of 64.
    pub(crate) fn padded(&self, token: usize) -> &[i8] {
        &self.codes[token * self.stride..][..self.stride]
    }
}

fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|&c| i32::from(c)).sum()
}

fn stride_of(cols: usize) -> usize {
    cols.next_multiple_of(64)
}

fn tokens_of(values: usize, cols: usize) -> Result<usize> {
    if cols == 0 || cols > MAX_COLS {
        return Err(Error::Shape { what: "columns", expected: format!("1 to {MAX_COLS}"), found: cols });
    }
    if !values.is_multiple_of(cols) {
        return Err(Error::Shape { what: "values of x", expected: format!("a multiple of {cols}"), found: values });
    }
    Ok(values / cols)
}

fn one_each<T: Copy>(what: &'static str, tokens: usize, given: &[T]) -> Result<Vec<T>> {
    match given {
        [one] => Ok(vec![*one; tokens]),
        each if each.len() == tokens => Ok(each.to_vec()),
        _ => Err(Error::Shape { what, expected: format!("1 or {tokens}"), found: given.len() }),
    }
}

fn check_zeros(zeros: &[i32]) -> Result<()> {
    match zeros.iter().find(|z| i8::try_from(**z).is_err()) {
        Some(z) => Err(Error::Shape { what: "zero point", expected: "-128 to 127".into(), found: *z as usize }),
        None => Ok(()),
    }
}
