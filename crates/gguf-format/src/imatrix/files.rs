//! Importance matrices as files.

use super::{Imatrix, gguf_form};
#[cfg(not(feature = "mmap"))]
use crate::Error;
use crate::{GgufWriter, Result};
use std::path::Path;

impl Imatrix {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), or [`Error::InFile`](crate::Error::InFile) around what [`Imatrix::parse`] finds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        #[cfg(feature = "mmap")]
        let bytes = crate::Mmap::open(path)?;
        #[cfg(not(feature = "mmap"))]
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        Self::parse(bytes.as_ref()).map_err(|e| e.in_file(path))
    }

    /// Writes what [`Imatrix::to_bytes`] gives, atomically. Returns the file's size.
    ///
    /// # Errors
    /// Those of [`Imatrix::to_bytes`]; [`Error::Io`](crate::Error::Io).
    pub fn write(&self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let (plan, data) = gguf_form::plan(self).map_err(|e| e.in_file(path))?;
        let mut writer = GgufWriter::from_plan(path, plan)?;
        for tensor in &data {
            writer.write(tensor)?;
        }
        writer.finish()
    }
}
