//! From stored rows to rows of the file: one slab, on all threads.

use crate::convert::{RowOrder, SourceTensor};
use crate::fold::TensorFold;
use gguf_format::{Error, GgmlType, Result, blocks};
use quant_core::error_metrics::ErrorAccumulator;
use rayon::prelude::*;
use std::cell::RefCell;

/// Values that one task takes at a time: small enough to stay in the cache of a core between reading, quantizing and measuring.
const TASK_VALUES: u64 = 1 << 15;

/// What to do with the rows of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowJob<'a> {
    pub(super) stored: GgmlType,
    pub(super) ty: GgmlType,
    pub(super) row_len: usize,
    /// Bytes of a row where it is, and in the file.
    pub(super) stored_bytes: usize,
    pub(super) bytes: usize,
    pub(super) rows_per_matrix: u64,
    pub(super) order: RowOrder,
    /// For all matrices, one after the other.
    pub(super) importance: Option<&'a [f32]>,
    pub(super) fold: Option<&'a TensorFold>,
    /// A vector is a matrix of one column to the fold.
    pub(super) is_vector: bool,
    pub(super) measure: bool,
}

/// Where in a tensor something is wrong.
#[derive(Debug)]
pub(super) struct RowError {
    /// Row of the tensor that the index of `source` counts from.
    pub(super) first_row: u64,
    pub(super) source: Error,
}

thread_local! {
    /// Values of a task, and what its quantized rows stand for.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl<'a> RowJob<'a> {
    /// `None` if a row has no known size in one of the types.
    pub(super) fn new(
        tensor: &SourceTensor,
        ty: GgmlType,
        importance: Option<&'a [f32]>,
        fold: Option<&'a TensorFold>,
        measure: bool,
    ) -> Option<Self> {
        let size = |ty: GgmlType| usize::try_from(ty.bytes_for(tensor.row_len())?).ok();
        Some(Self {
            stored: tensor.stored,
            ty,
            row_len: usize::try_from(tensor.row_len()).ok()?,
            stored_bytes: size(tensor.stored)?,
            bytes: size(ty)?,
            rows_per_matrix: tensor.rows_per_matrix().max(1),
            order: tensor.order,
            importance,
            fold,
            is_vector: tensor.shape.len() < 2,
            measure,
        })
    }

    /// Fills `dst` with the rows from `first_row` on; `src` holds the same rows as they are stored. Both are whole groups of
    /// [`RowOrder::group`].
    pub(super) fn run(&self, first_row: u64, src: &[u8], dst: &mut [u8]) -> Result<ErrorAccumulator, RowError> {
        let rows_per_task = (TASK_VALUES / self.row_len.max(1) as u64).max(1);
        dst.par_chunks_mut(rows_per_task as usize * self.bytes.max(1))
            .enumerate()
            .map(|(task, out)| {
                let start = task as u64 * rows_per_task;
                SCRATCH.with_borrow_mut(|(values, back)| self.task(first_row, start, src, out, values, back))
            })
            .try_reduce(ErrorAccumulator::new, |mut a, b| {
                a.merge(&b);
                Ok(a)
            })
    }

    /// Rows from `start` of the slab on.
    fn task(
        &self,
        first_row: u64,
        start: u64,
        src: &[u8],
        out: &mut [u8],
        values: &mut Vec<f32>,
        back: &mut Vec<f32>,
    ) -> Result<ErrorAccumulator, RowError> {
        let mut errors = ErrorAccumulator::new();
        let rows = (out.len() / self.bytes.max(1)) as u64;
        let mut done = 0;
        while done < rows {
            // A stack of matrices has importance for each: a call stays within one.
            let row = first_row + start + done;
            let matrix = row / self.rows_per_matrix;
            let count = (rows - done).min(self.rows_per_matrix - row % self.rows_per_matrix);
            let at = |source| RowError { first_row: row, source };
            values.resize(count as usize * self.row_len, 0.0);
            self.read(first_row, start + done, src, values).map_err(at)?;
            match self.fold {
                Some(fold) if self.is_vector => fold.apply(0, 1, values),
                Some(fold) => fold.apply(row as usize, self.row_len, values),
                None => {}
            }
            let part = &mut out[done as usize * self.bytes..(done + count) as usize * self.bytes];
            let importance = self.importance.map(|all| {
                let from = matrix as usize * self.row_len;
                &all[from..from + self.row_len]
            });
            blocks::quantize(self.ty, values, self.row_len, importance, part).map_err(at)?;
            if self.measure {
                back.resize(values.len(), 0.0);
                blocks::dequantize(self.ty, part, back).map_err(at)?;
                // The lengths are equal by construction.
                let _ = match importance {
                    Some(importance) => errors.add_weighted(values, back, importance),
                    None => errors.add(values, back),
                };
            }
            done += count;
        }
        Ok(errors)
    }

    /// Values of rows from `start` of the slab on, in the file's order.
    fn read(&self, first_row: u64, start: u64, src: &[u8], values: &mut [f32]) -> Result<()> {
        if self.order == RowOrder::AsStored {
            let from = start as usize * self.stored_bytes;
            let length = values.len() / self.row_len.max(1) * self.stored_bytes;
            return blocks::dequantize(self.stored, &src[from..from + length], values);
        }
        for (i, row) in values.chunks_exact_mut(self.row_len.max(1)).enumerate() {
            // Rows move only within their group, and slabs are whole groups.
            let stored = self.order.stored_row(first_row + start + i as u64) - first_row;
            let from = stored as usize * self.stored_bytes;
            blocks::dequantize(self.stored, &src[from..from + self.stored_bytes], row)?;
        }
        Ok(())
    }
}

/// Index of the first value that is not finite, in a type that holds plain numbers; other types are not looked into.
pub(super) fn first_not_finite(ty: GgmlType, bytes: &[u8]) -> Option<usize> {
    match ty {
        GgmlType::F32 => bytes.as_chunks::<4>().0.iter().position(|b| !f32::from_le_bytes(*b).is_finite()),
        GgmlType::F16 => bytes.as_chunks::<2>().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00),
        GgmlType::BF16 => bytes.as_chunks::<2>().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7f80 == 0x7f80),
        _ => None,
    }
}
