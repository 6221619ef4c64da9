//! Weights with 16 rows side by side, packed once for the products.

pub(crate) mod few;
pub(crate) mod kinds;
pub(crate) mod pack;
mod product;

pub use product::{matmul_interleaved, matmul_interleaved_with};

use crate::dispatch::Isa;
use crate::encoding::Encoding;
use crate::matrix::Matrix;
use crate::{Error, Result};
use kinds::{Kind, ROWS, for_kind};
use pack::{Pack, unpack_values};
use rayon::prelude::*;
use std::marker::PhantomData;

/// A packed weight matrix whose rows lie 16 side by side, borrowed from wherever it is kept.
///
/// It has the codes and scales of a [`Matrix`], neither more nor less exact, in an order in which four columns of 16 rows are multiplied at a time, and
/// nothing has to be added across the lanes of a vector. Types with 6-bit scales take 1 to 4 % more bytes here, the others as many as before, if the
/// rows are a multiple of 16. Packing is done once, when a model is loaded.
///
/// ```
/// use gguf_format::GgmlType;
/// use quant_kernels::{Interleaved, Matrix, matmul_interleaved};
///
/// // 20 rows of 32 weights: scale 0.5 (binary16), codes 3.
/// let row: Vec<u8> = [0x00, 0x38].into_iter().chain([3; 32]).collect();
/// let bytes = row.repeat(20);
/// let matrix = Matrix::new(GgmlType::Q8_0, 20, 32, &bytes)?;
/// let mut packed = vec![0; Interleaved::bytes(GgmlType::Q8_0, 20, 32).unwrap()];
/// Interleaved::pack(&matrix, &mut packed)?;
/// let weights = Interleaved::new(GgmlType::Q8_0, 20, 32, &packed)?;
/// let mut y = [0.0; 20];
/// matmul_interleaved(&[1.0; 32], 1, &[weights], &mut y)?;
/// assert!(y.iter().all(|y| (y - 48.0).abs() < 1e-3));
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Interleaved<'a> {
    ty: Encoding,
    rows: usize,
    cols: usize,
    data: &'a [u8],
}

impl<'a> Interleaved<'a> {
    /// Rows that lie side by side. A run of rows that begins at a multiple of it, and its bytes, can be packed by themselves.
    pub const ROWS: usize = ROWS;

    /// Bytes of so many rows and columns. `None` for an encoding that has no such layout (all but those of [`is_integer`](crate::is_integer)), columns
    /// that are not whole blocks, or more bytes than fit this machine.
    pub fn bytes(ty: impl Into<Encoding>, rows: usize, cols: usize) -> Option<usize> {
        let ty = ty.into();
        let (block, bytes) = for_kind!(ty, K => (K::COLS, K::BYTES))?;
        let panel = cols.is_multiple_of(block).then(|| (cols / block).checked_mul(bytes))??;
        rows.div_ceil(ROWS).checked_mul(panel).filter(|&n| isize::try_from(n).is_ok())
    }

    /// Packs a matrix into `data`, of [`Interleaved::bytes`]. Work is spread over the current rayon pool.
    ///
    /// # Errors
    /// [`Error::Type`] for an encoding without this layout, [`Error::Shape`] if a length does not fit.
    pub fn pack(matrix: &Matrix<'_>, data: &mut [u8]) -> Result<()> {
        Self::pack_with(Isa::best(), matrix, data)
    }

    /// As [`Interleaved::pack`], with a chosen instruction set: for tests.
    ///
    /// # Errors
    /// As [`Interleaved::pack`].
    pub fn pack_with(isa: Isa, matrix: &Matrix<'_>, data: &mut [u8]) -> Result<()> {
        let row_bytes = matrix.row_bytes()?;
        let Matrix { ty, rows, cols, data: source } = *matrix;
        check(ty, rows, cols, data.len())?;
        if row_bytes == 0 || rows == 0 {
            return Ok(());
        }
        let panel = data.len() / rows.div_ceil(ROWS);
        let rows = source.par_chunks(ROWS * row_bytes);
        data.par_chunks_exact_mut(panel).zip(rows).for_each(|(units, rows)| {
            for_kind!(ty, K => isa.run_move(Pack::<K> { rows, row_bytes, cols, units, kind: PhantomData }));
        });
        Ok(())
    }

    /// What [`Interleaved::pack`] has written.
    ///
    /// # Errors
    /// As [`Interleaved::pack`].
    pub fn new(ty: impl Into<Encoding>, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self> {
        let ty = ty.into();
        check(ty, rows, cols, data.len())?;
        Ok(Self { ty, rows, cols, data })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `row` as f32, with the bits that [`Matrix::row`] gives. Takes as long as 16 rows.
    ///
    /// # Errors
    /// [`Error::Shape`] for a row out of range or a `dst` whose length is not `cols`.
    pub fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(Error::Shape { what: "row", expected: format!("below {}", self.rows), found: row });
        }
        if dst.len() != self.cols {
            return Err(Error::Shape { what: "values of a row", expected: self.cols.to_string(), found: dst.len() });
        }
        let mut values = vec![0.0; (row % ROWS + 1) * self.cols];
        let (ty, cols) = (self.ty, self.cols);
        for_kind!(ty, K => unpack_values::<K>(self.panels(row / ROWS, 1), cols, row % ROWS + 1, &mut values));
        dst.copy_from_slice(&values[row % ROWS * cols..]);
        Ok(())
    }

    /// All rows as f32, `[rows, cols]`, with the bits of [`Interleaved::row`].
    ///
    /// # Errors
    /// [`Error::Shape`] for a `dst` of another length.
    pub fn dequantize(&self, dst: &mut [f32]) -> Result<()> {
        let (ty, cols) = (self.ty, self.cols);
        if Some(dst.len()) != self.rows.checked_mul(cols) {
            let expected = format!("{} rows of {cols}", self.rows);
            return Err(Error::Shape { what: "values of the matrix", expected, found: dst.len() });
        }
        dst.par_chunks_mut((ROWS * cols).max(1)).enumerate().for_each(|(p, dst)| {
            for_kind!(ty, K => unpack_values::<K>(self.panels(p, 1), cols, dst.len() / cols, dst));
        });
        Ok(())
    }

    /// Panels `first ..`.
    fn panels(&self, first: usize, count: usize) -> &'a [u8] {
        let panel = self.data.len() / self.rows.div_ceil(ROWS).max(1);
        &self.data[first * panel..][..count * panel]
    }
}

fn check(ty: Encoding, rows: usize, cols: usize, found: usize) -> Result<()> {
    if for_kind!(ty, K => K::COLS).is_none() {
        return Err(Error::Type(ty));
    }
    match Interleaved::bytes(ty, rows, cols) {
        Some(bytes) if bytes == found => Ok(()),
        bytes => {
            let expected = bytes.map_or_else(|| "whole blocks that fit this machine".to_owned(), |n| n.to_string());
            Err(Error::Shape { what: "bytes of the interleaved matrix", expected, found })
        }
    }
}
