//! What a header says about one tensor.

use crate::GgmlType;
use alloc::boxed::Box;

/// Name, shape, type and place of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo(pub(crate) Box<Entry>);

/// Behind a pointer, so that a list of tensors grows by less than their entries take in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Box<str>,
    pub(crate) shape: Box<[u64]>,
    pub(crate) ty: GgmlType,
    pub(crate) part: u32,
    /// From the start of the data section.
    pub(crate) offset: u64,
    pub(crate) file_offset: u64,
    pub(crate) byte_len: u64,
}

impl TensorInfo {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Rows first, as in PyTorch: the last dimension is contiguous (GGUF's `ne` reversed). Empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.0.shape
    }

    /// Type of the data, known or not.
    pub fn ggml_type(&self) -> GgmlType {
        self.0.ty
    }

    /// Bytes of the data, without padding.
    ///
    /// For a type without a known size: all bytes up to the next tensor or the end of the file, so that the tensor can be copied.
    pub fn byte_len(&self) -> u64 {
        self.0.byte_len
    }

    /// Offset from the start of the file.
    pub fn file_offset(&self) -> u64 {
        self.0.file_offset
    }

    /// Offset from the start of the data section, as written in the file.
    pub fn data_offset(&self) -> u64 {
        self.0.offset
    }

    /// Which file of a split model it is in, from 0; 0 in a file of its own.
    pub fn part(&self) -> u32 {
        self.0.part
    }

    /// Number of values.
    pub fn element_count(&self) -> u64 {
        // Checked when the header was parsed.
        element_count(&self.0.shape).unwrap_or(0)
    }

    /// Values in a row (the last dimension; 1 for a scalar).
    pub fn row_len(&self) -> u64 {
        self.0.shape.last().copied().unwrap_or(1)
    }
}

/// Number of values of a shape; `None` above `i64::MAX`, ggml's limit. A dimension of 0 gives 0, but does not excuse the others.
pub(crate) fn element_count(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().try_fold(1u64, |product, &dim| {
        i64::try_from(dim).ok()?;
        product.checked_mul(dim.max(1))
    })?;
    i64::try_from(product).ok()?;
    Some(if shape.contains(&0) { 0 } else { product })
}
