//! A read-only memory map of a file. The only unsafe code of the checkpoint readers.

use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// The bytes of a file, mapped read-only.
#[derive(Debug)]
pub(super) struct FileMap(Option<memmap2::Mmap>);

impl FileMap {
    /// Maps `path`. An empty file gives an empty slice.
    #[allow(unsafe_code)]
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(Error::malformed(path, "file type", "a regular file", "something else"));
        }
        if meta.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private to this value, read-only, and lives as long as the slices borrowed from it. What Rust cannot prove is
        // that no other program shortens or rewrites the file meanwhile; that is documented in docs/unsafe.md as the price of mapping, the
        // same every mapping reader pays. No code relies on the bytes for memory safety: every offset is checked against the mapped length.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Ok(Self(Some(map)))
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
