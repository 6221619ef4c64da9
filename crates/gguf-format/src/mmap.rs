//! Memory-mapped files: the only unsafe code of the container.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::fs::File;
use std::path::Path;

/// A memory map of a file, opened read-only.
#[derive(Debug)]
pub struct Mmap(memmap2::Mmap);

impl Mmap {
    /// Maps the whole file.
    ///
    /// The file must not be changed in place while the map lives: its bytes would change under the reader, and cutting it short ends the
    /// process with a bus error on the next access. Files that are replaced by renaming, as [`GgufWriter`](crate::GgufWriter) does, are
    /// safe: the map keeps the old one. Read the file into a `Vec<u8>` where others may write to it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::ErrorKind::IsADirectory.into()));
        }
        // SAFETY: the map is private to this value and read-only. That nobody changes or truncates the file meanwhile cannot be ensured
        // by any program on common systems; the documentation above makes it the caller's duty, as every user of memmap2 does.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self(map))
    }

    /// Says that a part of the map, such as the bytes of a tensor, will not be read soon: its pages leave the process, and are read from the file
    /// again where they are. Nothing is done for bytes of another place, and on systems other than Linux.
    pub fn release(&self, part: &[u8]) {
        #[cfg(target_os = "linux")]
        if let Some(offset) = (part.as_ptr() as usize).checked_sub(self.0.as_ptr() as usize)
            && offset.checked_add(part.len()).is_some_and(|end| end <= self.0.len())
        {
            // SAFETY: a read-only map of a file: after its pages are dropped, a read finds the same bytes in the file. It lies within the map.
            let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, part.len()) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = part;
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
