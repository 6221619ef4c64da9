//! A packed weight matrix, and reading its rows.

use crate::codes::{Block, Store, for_block_type};
use crate::dispatch::{Isa, Op};
use crate::encoding::{Encoding, is_fast, is_supported};
use crate::simd::Simd;
use crate::{Error, Result};
use gguf_format::blocks;

/// A packed weight matrix, `[rows, cols]` = [out_features, in_features], borrowed from wherever it lies, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Of the blocks.
    pub ty: Encoding,
    /// Out features.
    pub rows: usize,
    /// In features.
    pub cols: usize,
    /// The bytes, row-major.
    pub data: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// A matrix over `data`.
    ///
    /// # Errors
    /// [`Error::Type`] for a type without kernels; [`Error::Shape`] if `cols` is not whole blocks or `data` is not exactly the rows.
    pub fn new(ty: impl Into<Encoding>, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self> {
        let matrix = Self { ty: ty.into(), rows, cols, data };
        matrix.row_bytes()?;
        Ok(matrix)
    }

    /// Bytes of a row, after checking everything that the kernels rely on.
    pub(crate) fn row_bytes(&self) -> Result<usize> {
        if !is_supported(self.ty) {
            return Err(Error::Type(self.ty));
        }
        let Some(row) = self.ty.bytes_for(self.cols) else {
            return Err(Error::Shape {
                what: "columns",
                expected: format!("whole blocks of {}", self.ty),
                found: self.cols,
            });
        };
        match row.checked_mul(self.rows) {
            Some(need) if need == self.data.len() => Ok(row),
            need => {
                let expected = need.map_or("less than the address space".to_owned(), |n| n.to_string());
                Err(Error::Shape { what: "bytes of the matrix", expected, found: self.data.len() })
            }
        }
    }

    /// Dequantizes row `row` to `dst`, with the bits that `gguf_format::blocks::dequantize` or `AffineMatrix::dequantize_row_into` gives.
    ///
    /// # Errors
    /// [`Error::Shape`] for a row out of range or a `dst` whose length is not `cols`, and what [`Matrix::new`] refuses.
    pub fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        let bytes = self.row_bytes()?;
        if row >= self.rows {
            return Err(Error::Shape { what: "row", expected: format!("below {}", self.rows), found: row });
        }
        if dst.len() != self.cols {
            return Err(Error::Shape { what: "values of a row", expected: self.cols.to_string(), found: dst.len() });
        }
        dequantize(Isa::best(), self.ty, &self.data[row * bytes..][..bytes], dst)
    }
}

/// Dequantizes `src` to `dst`, whose lengths must fit.
pub(crate) fn dequantize(isa: Isa, ty: Encoding, src: &[u8], dst: &mut [f32]) -> Result<()> {
    assert_eq!(ty.bytes_for(dst.len()), Some(src.len()), "bytes of the values");
    if let Encoding::Ggml(ty) = ty
        && !is_fast(ty)
    {
        return Ok(blocks::dequantize(ty, src, dst)?);
    }
    for_block_type!(ty, B => isa.run(Dequantize::<B> { src, dst, block: std::marker::PhantomData }));
    Ok(())
}

struct Dequantize<'a, B> {
    src: &'a [u8],
    dst: &'a mut [f32],
    block: std::marker::PhantomData<B>,
}

impl<B: Block> Op for Dequantize<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // SAFETY: `dequantize` checked that `src` holds the bytes of `dst`'s values, and `run` is called with the instruction set of S.
        unsafe { decode_row::<S, B>(self.src.as_ptr(), self.dst.len(), self.dst.as_mut_ptr()) }
    }
}

/// Decodes `n` values from `src` to `dst`.
///
/// # Safety
/// The instruction set of S; the bytes of `n` values at `src`; `n` values at `dst`.
#[inline(always)]
pub(crate) unsafe fn decode_row<S: Simd, B: Block>(src: *const u8, n: usize, dst: *mut f32) {
    // SAFETY: whole blocks are within both buffers; the rest goes through a padded copy.
    unsafe {
        let blocks = n / B::LEN;
        for b in 0..blocks {
            B::decode::<S>(src.add(b * B::BYTES), b * B::LEN, &mut Store(dst));
        }
        let rest = n - blocks * B::LEN;
        if rest > 0 {
            let values = tail::<S, B>(src.add(blocks * B::BYTES), rest);
            std::ptr::copy_nonoverlapping(values.as_ptr(), dst.add(blocks * B::LEN), rest);
        }
    }
}

/// The last `rest` values of a dense row, fewer than 16. (Block types have none.)
///
/// # Safety
/// The instruction set of S; the bytes of `rest` values at `src`; `rest < B::LEN <= 16` .
#[inline(always)]
pub(crate) unsafe fn tail<S: Simd, B: Block>(src: *const u8, rest: usize) -> [f32; 16] {
    let mut bytes = [0u8; 64];
    let mut values = [0.0f32; 16];
    if B::LEN <= 16 {
        // SAFETY: `rest` values of `BYTES / LEN` bytes fit in 64 bytes; a whole block is decoded from the padded copy.
        unsafe {
            std::ptr::copy_nonoverlapping(src, bytes.as_mut_ptr(), rest * (B::BYTES / B::LEN));
            B::decode::<S>(bytes.as_ptr(), 0, &mut Store(values.as_mut_ptr()));
        }
    }
    values
}
