//! A read-only memory map of a file of a checkpoint.

use crate::{Error, Result};
use gguf_format::Mmap;
use std::path::Path;

/// The bytes of a regular file, mapped read-only.
#[derive(Debug)]
pub(super) struct FileMap(Option<Mmap>);

impl FileMap {
    /// Maps `path`. An empty file gives an empty slice.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(Error::malformed(path, "file type", "a regular file", "something else"));
        }
        if meta.len() == 0 {
            return Ok(Self(None));
        }
        let map = Mmap::open(path).map_err(|e| match e {
            gguf_format::Error::Io { source, .. } => Error::io(path, source),
            e => Error::gguf(path, e),
        })?;
        Ok(Self(Some(map)))
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |map| map.as_ref())
    }
    /// As [`Mmap::release`].
    pub(super) fn release(&self, part: &[u8]) {
        if let Some(map) = &self.0 {
            map.release(part);
        }
    }
}
