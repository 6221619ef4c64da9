//! The writer: strict ggml layout, atomic.

use crate::{GgmlType, Metadata, Result};
use std::path::Path;

/// Writes a GGUF v3 file: the header first, from declared tensors, then the data of each in order, then an atomic rename.
///
/// Until [`GgufWriter::finish`] the target is untouched; dropping the writer removes the temporary file.
#[derive(Debug)]
pub struct GgufWriter {}

/// A tensor to be written: name, shape (rows first), type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, at most 63 bytes (ggml's limit).
    pub name: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// Type of the data.
    pub ty: GgmlType,
}

#[allow(unused_variables, clippy::todo)]
impl GgufWriter {
    /// Checks everything ggml's strict reader checks, and writes the header to a temporary file beside `path`.
    /// The alignment is `general.alignment` of `metadata`, 32 if absent.
    pub fn create(path: impl AsRef<Path>, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self> {
        todo!()
    }
    /// The data of the next tensor, whole or in pieces; pads after the last byte. Err if more than declared.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        todo!()
    }
    /// Checks that all data came, syncs, and renames to the target. Returns the file's size.
    pub fn finish(self) -> Result<u64> {
        todo!()
    }
}
