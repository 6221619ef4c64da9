//! The reader: header parsed once and checked, then views that cannot fail.

use crate::{GgmlType, Metadata, Result};
use std::path::Path;

/// Bounds on what a header may ask for.
#[derive(Clone, Debug)]
pub struct Limits {}

/// Name, shape, type and place of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {}

#[allow(unused_variables, clippy::todo)]
impl TensorInfo {
    pub fn name(&self) -> &str {
        todo!()
    }
    /// Rows first, as in PyTorch: the last dimension is contiguous (GGUF's `ne` reversed). Empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        todo!()
    }
    pub fn ggml_type(&self) -> GgmlType {
        todo!()
    }
    /// Bytes of the data, without padding.
    pub fn byte_len(&self) -> u64 {
        todo!()
    }
    /// Offset from the start of the file.
    pub fn file_offset(&self) -> u64 {
        todo!()
    }
    /// Number of values.
    pub fn element_count(&self) -> u64 {
        todo!()
    }
    /// Values in a row (the last dimension; 1 for a scalar).
    pub fn row_len(&self) -> u64 {
        todo!()
    }
}

/// A GGUF file over any storage of bytes: `&[u8]`, `Vec<u8>`, a memory map.
#[derive(Debug)]
pub struct Gguf<S> {
    _storage: S,
}

/// A memory map of a file, opened read-only.
#[cfg(feature = "mmap")]
#[derive(Debug)]
pub struct Mmap {}

#[cfg(feature = "mmap")]
impl Gguf<Mmap> {
    /// Maps the file and parses its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let _ = path;
        todo!()
    }
}

#[allow(unused_variables, clippy::todo)]
impl<S: AsRef<[u8]>> Gguf<S> {
    pub fn parse(storage: S, limits: &Limits) -> Result<Self> {
        todo!()
    }
    pub fn version(&self) -> u32 {
        todo!()
    }
    pub fn alignment(&self) -> u64 {
        todo!()
    }
    pub fn metadata(&self) -> &Metadata {
        todo!()
    }
    pub fn tensors(&self) -> &[TensorInfo] {
        todo!()
    }
    /// By name, O(1).
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        todo!()
    }
    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        todo!()
    }
}
