//! Affine matrices repacked for the products.

use crate::codes::AFFINE_HEADER;
use crate::encoding::{AffineBlock, Encoding};
use crate::{Error, Matrix, Result};
use quant_core::affine::AffineMatrix;
use rayon::prelude::*;

/// In [`AffineWeights::gather`]: no input feature, but 0.
const PADDING: u32 = u32::MAX;

/// The weights of an [`AffineMatrix`] in blocks for the products: rows one after the other, each block of one group, with its scale and zero point
/// beside its codes. Some 4.25 bits a weight for codes of 4 bits in groups of 128, read once per product, never expanded as a whole.
///
/// Where the groups of the columns are not in order, or are no whole blocks, the columns are moved and padded, and the activations have to be
/// gathered the same way: [`AffineWeights::gather`].
#[derive(Clone, Debug)]
pub struct AffineWeights {
    block: AffineBlock,
    rows: usize,
    cols: usize,
    packed_cols: usize,
    data: Vec<u8>,
    gather: Option<Vec<u32>>,
}

impl AffineWeights {
    /// Repacks a matrix. Blocks are as long as makes the fewest bytes; codes of 5, 6 and 7 bits take a byte each.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than 2^32 - 2 columns, or bytes that do not fit this machine.
    pub fn pack(matrix: &AffineMatrix) -> Result<Self> {
        let bits = match matrix.bits().get() {
            5..=7 => 8,
            bits => bits,
        };
        let (rows, cols) = (matrix.out_features(), matrix.in_features());
        if cols >= PADDING as usize {
            return Err(Error::Shape { what: "columns", expected: format!("below {PADDING}"), found: cols });
        }
        // The columns of each group, in order.
        let mut groups = vec![Vec::new(); matrix.groups()];
        for column in 0..cols {
            groups[matrix.group_of(column)].push(column as u32);
        }
        let blocks = |len: usize| groups.iter().map(|g| g.len().div_ceil(len)).sum::<usize>();
        let candidates = AffineBlock::LENGTHS.map(|len| AffineBlock { bits, len });
        let mut block = candidates[0];
        for candidate in candidates {
            if blocks(candidate.len()) * candidate.bytes() < blocks(block.len()) * block.bytes() {
                block = candidate;
            }
        }
        let mut row: Vec<RowBlock<'_>> = Vec::with_capacity(blocks(block.len()));
        for (group, columns) in groups.iter().enumerate() {
            row.extend(columns.chunks(block.len()).map(|columns| RowBlock::new(group, columns, block.len())));
        }
        let packed_cols = row.len() * block.len();
        let mut map = Vec::with_capacity(packed_cols);
        for RowBlock { columns, .. } in &row {
            map.extend_from_slice(columns);
            map.resize(map.len().next_multiple_of(block.len()), PADDING);
        }
        let in_order = packed_cols == cols && map.iter().enumerate().all(|(i, &column)| i == column as usize);

        let row_bytes = row.len() * block.bytes();
        let bytes = row_bytes.checked_mul(rows).filter(|n| isize::try_from(*n).is_ok());
        let Some(bytes) = bytes else {
            return Err(Error::Shape { what: "rows", expected: "bytes that fit this machine".into(), found: rows });
        };
        let mut data = vec![0u8; bytes];
        data.par_chunks_mut(row_bytes).enumerate().for_each(|(r, bytes)| {
            let codes = &matrix.codes()[r * cols..][..cols];
            let scales = &matrix.scales()[r * matrix.groups()..][..matrix.groups()];
            let zeros = &matrix.zeros()[r * matrix.groups()..][..matrix.groups()];
            let mut moved = [0; AffineBlock::LENGTHS[0] as usize];
            for (bytes, &RowBlock { group, columns, from }) in bytes.chunks_exact_mut(block.bytes()).zip(&row) {
                bytes[..2].copy_from_slice(&scales[group].to_le_bytes());
                bytes[2..AFFINE_HEADER].copy_from_slice(&zeros[group].to_le_bytes());
                let codes = match from {
                    Some(from) => &codes[from..][..block.len()],
                    None => {
                        moved.iter_mut().zip(columns).for_each(|(moved, &column)| *moved = codes[column as usize]);
                        moved[columns.len()..].fill(0);
                        &moved[..block.len()]
                    }
                };
                put_codes(bits, codes, &mut bytes[AFFINE_HEADER..]);
            }
        });
        let gather = (!in_order).then_some(map);
        Ok(Self { block, rows, cols, packed_cols, data, gather })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the blocks are made.
    pub fn block(&self) -> AffineBlock {
        self.block
    }

    /// Bytes of the blocks.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// For the products: its columns are those that [`AffineWeights::gather`] lists, or the input features in order.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix { ty: Encoding::Affine(self.block), rows: self.rows, cols: self.packed_cols, data: &self.data }
    }

    /// The input feature that each column of [`AffineWeights::matrix`] takes, for [`gather`]; `None` if they are in order.
    pub fn gather(&self) -> Option<&[u32]> {
        self.gather.as_deref()
    }

    /// Row `row` as f32, in the order of the input features, with the bits that [`AffineMatrix::dequantize_row_into`] gives.
    ///
    /// # Errors
    /// [`Error::Shape`] for a row out of range or a `dst` whose length is not `cols`.
    pub fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        let Some(map) = &self.gather else { return self.matrix().row(row, dst) };
        if dst.len() != self.cols {
            return Err(Error::Shape { what: "values of a row", expected: self.cols.to_string(), found: dst.len() });
        }
        let mut packed = vec![0.0; self.packed_cols];
        self.matrix().row(row, &mut packed)?;
        for (&value, &column) in packed.iter().zip(map) {
            if let Some(dst) = dst.get_mut(column as usize) {
                *dst = value;
            }
        }
        Ok(())
    }
}

/// Gathers the columns of `x`, `[tokens, cols]`, to `dst`, `[tokens, map.len()]`; a column that the map does not name is 0.
///
/// # Errors
/// [`Error::Shape`] if a length does not fit.
pub fn gather(x: &[f32], cols: usize, map: &[u32], dst: &mut [f32]) -> Result<()> {
    if cols == 0 || map.is_empty() || !x.len().is_multiple_of(cols) {
        return Err(Error::Shape { what: "values of x", expected: format!("a multiple of {cols}"), found: x.len() });
    }
    let expected = (x.len() / cols).saturating_mul(map.len());
    if dst.len() != expected {
        return Err(Error::Shape { what: "gathered values", expected: expected.to_string(), found: dst.len() });
    }
    for (x, dst) in x.chunks_exact(cols).zip(dst.chunks_exact_mut(map.len())) {
        for (dst, &column) in dst.iter_mut().zip(map) {
            *dst = x.get(column as usize).copied().unwrap_or(0.0);
        }
    }
    Ok(())
}

/// A block of every row.
struct RowBlock<'a> {
    group: usize,
    columns: &'a [u32],
    /// The first of the columns, if they are in order and fill the block.
    from: Option<usize>,
}

impl<'a> RowBlock<'a> {
    fn new(group: usize, columns: &'a [u32], len: usize) -> Self {
        let first = columns.first().map_or(0, |&column| column as usize);
        let in_order = columns.iter().enumerate().all(|(i, &column)| column as usize == first + i);
        Self { group, columns, from: (in_order && columns.len() == len).then_some(first) }
    }
}

/// The codes of a block, as `codes::affine` looks for them.
fn put_codes(bits: u8, codes: &[u8], bytes: &mut [u8]) {
    match (bits, codes.len()) {
        (8, _) => bytes.copy_from_slice(codes),
        (4, 16) => put_runs::<4, 8>(codes, bytes),
        (4, _) => put_runs::<4, 16>(codes, bytes),
        (_, 16) => put_runs::<2, 4>(codes, bytes),
        (_, 32) => put_runs::<2, 8>(codes, bytes),
        _ => put_runs::<2, 16>(codes, bytes),
    }
    if bits == 3 {
        for (codes, byte) in codes.chunks_exact(8).zip(&mut bytes[codes.len() / 4..]) {
            *byte = codes.iter().rev().fold(0, |byte, code| byte << 1 | code >> 2 & 1);
        }
    }
}

/// Runs of codes that share `BYTES` bytes: the low `WIDTH` bits of the first `BYTES` codes in their lowest bits, then those of the next ones.
fn put_runs<const WIDTH: usize, const BYTES: usize>(codes: &[u8], bytes: &mut [u8]) {
    for (codes, bytes) in codes.chunks_exact(8 / WIDTH * BYTES).zip(bytes.chunks_exact_mut(BYTES)) {
        let mut sum = [0u8; BYTES];
        for (i, codes) in codes.chunks_exact(BYTES).enumerate() {
            for (sum, code) in sum.iter_mut().zip(codes) {
                *sum |= (code & (0xff >> (8 - WIDTH))) << (i * WIDTH);
            }
        }
        bytes.copy_from_slice(&sum);
    }
}
