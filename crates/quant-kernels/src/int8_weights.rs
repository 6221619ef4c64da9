//! Weights of one byte with one scale a row.

use crate::{Error, Result};
use rayon::prelude::*;

/// Most columns: 255 · 128 · 65536 still fits an i32, with any zero point of the activations.
pub(crate) const MAX_COLS: usize = 65_536;

/// An int8 weight matrix, `[rows, cols]` = [out_features, in_features], `w[r][c] = scale[r] · code[r][c]`, in the layout of [`crate::matmul_int8`].
///
/// The only copy that the products need: a row is its codes plus 128, as bytes, padded to whole cache lines (and to an odd number of them, so that
/// rows do not compete for the same places of the cache).
#[derive(Clone, Debug)]
pub struct Int8Weights {
    rows: usize,
    cols: usize,
    stride: usize,
    data: Vec<u8>,
    scales: Vec<f32>,
    /// Sum of the codes of each row: what a zero point of the activations is multiplied with.
    sums: Vec<i32>,
}

impl Int8Weights {
    /// Repacks `codes`, `[rows, cols]`, row-major; `scales` holds one f32 a row. Any code from -128 to 127 will do, and any scale.
    ///
    /// # Errors
    /// [`Error::Shape`] if a length does not fit, for no columns, or more than 65536.
    pub fn pack(rows: usize, cols: usize, codes: &[i8], scales: &[f32]) -> Result<Self> {
        let shape = |what, expected: String, found| Error::Shape { what, expected, found };
        if cols == 0 || cols > MAX_COLS {
            return Err(shape("columns", format!("1 to {MAX_COLS}"), cols));
        }
        if rows.checked_mul(cols) != Some(codes.len()) {
            return Err(shape("codes", format!("{rows} rows of {cols}"), codes.len()));
        }
        if scales.len() != rows {
            return Err(shape("scales", rows.to_string(), scales.len()));
        }
        let stride = (cols.div_ceil(64) | 1) * 64;
        let Some(bytes) = stride.checked_mul(rows).filter(|&n| isize::try_from(n).is_ok()) else {
            return Err(shape("rows", "bytes that fit this machine".into(), rows));
        };
        let mut data = vec![0u8; bytes];
        let packed = data.par_chunks_exact_mut(stride).zip(codes.par_chunks_exact(cols)).map(|(row, codes)| {
            let mut sum = 0;
            for (byte, &code) in row.iter_mut().zip(codes) {
                *byte = code as u8 ^ 128;
                sum += i32::from(code);
            }
            sum
        });
        let sums = packed.collect();
        Ok(Self { rows, cols, stride, data, scales: scales.to_vec(), sums })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.data.len() + 4 * (self.scales.len() + self.sums.len())
    }

    /// Scale of each row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Row `row` as f32: each code times the row's scale.
    ///
    /// # Errors
    /// [`Error::Shape`] for a row out of range or a `dst` whose length is not `cols`.
    pub fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        let Some(&scale) = self.scales.get(row) else {
            return Err(Error::Shape { what: "row", expected: format!("below {}", self.rows), found: row });
        };
        if dst.len() != self.cols {
            return Err(Error::Shape { what: "values of a row", expected: self.cols.to_string(), found: dst.len() });
        }
        for (dst, &byte) in dst.iter_mut().zip(&self.data[row * self.stride..]) {
            *dst = f32::from((byte ^ 128) as i8) * scale;
        }
        Ok(())
    }

    /// Bytes from row to row.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The bytes that a product reads: codes plus 128, row by row, with what pads them.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }
}
