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
        // Group and columns of each block of a row.
        let mut row: Vec<(usize, &[u32])> = Vec::with_capacity(blocks(block.len()));
        for (group, columns) in groups.iter().enumerate() {
            row.extend(columns.chunks(block.len()).map(|columns| (group, columns)));
        }
        let packed_cols = row.len() * block.len();
        let mut map = Vec::with_capacity(packed_cols);
        for (_, columns) in &row {
            map.extend_from_slice(columns);
            map.resize(map.len().next_multiple_of(block.len()), PADDING);
        }
        let in_order = packed_cols == cols && map.iter().enumerate().all(|(i, &column)| i == column as usize);

        let slots = slots(bits, block.len());
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
            for (bytes, &(group, columns)) in bytes.chunks_exact_mut(block.bytes()).zip(&row) {
                bytes[..2].copy_from_slice(&scales[group].to_le_bytes());
                bytes[2..AFFINE_HEADER].copy_from_slice(&zeros[group].to_le_bytes());
                let bytes = &mut bytes[AFFINE_HEADER..];
                for (&column, slot) in columns.iter().zip(&slots) {
                    let code = codes[column as usize];
                    if bits == 3 {
                        bytes[slot.byte] |= (code & 3) << slot.shift;
                        bytes[slot.third] |= (code >> 2) << slot.third_shift;
                    } else {
                        bytes[slot.byte] |= code << slot.shift;
                    }
                }
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

/// Where the parts of a code of a block stand: byte and shift of the low bits, of the third bit of 3.
#[derive(Clone, Copy)]
struct Slot {
    byte: usize,
    shift: u32,
    third: usize,
    third_shift: u32,
}

/// The places of the codes of a block of `len`, as `codes::affine` looks for them.
fn slots(bits: u8, len: usize) -> Vec<Slot> {
    let slot = |i: usize| {
        // Runs that share their bytes: of 32 codes in 16 bytes or 16 in 8; of 64 in 16, 32 in 8 or 16 in 4.
        let (run, share, width) = match bits {
            8 => (1, 1, 8),
            4 => (len.min(32), 2, 4),
            _ => (len.min(64), 4, 2),
        };
        let bytes = run / share;
        Slot {
            byte: i / run * bytes + i % bytes,
            shift: (i % run / bytes * width) as u32,
            third: len / 4 + i / 8,
            third_shift: (i % 8) as u32,
        }
    };
    (0..len).map(slot).collect()
}
