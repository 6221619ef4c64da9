//! One safetensors file by itself, without a directory's config.json.

use super::HfEntry;
use super::shard::Shard;
use crate::Result;
use std::collections::HashMap;
use std::path::Path;

/// A mapped safetensors file whose header was checked.
#[derive(Debug)]
pub struct SafetensorsFile(Shard);

impl SafetensorsFile {
    /// Maps the file and checks its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), or [`Error::Malformed`](crate::Error::Malformed) for a header that is not one, offsets with holes or
    /// out of bounds, and data that is cut short.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Shard::open(path.as_ref()).map(Self)
    }

    /// Every tensor, in order of offset.
    pub fn entries(&self) -> impl Iterator<Item = HfEntry<'_>> {
        (0..self.0.tensors.len()).filter_map(|i| self.0.entry(i))
    }

    /// `__metadata__`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }
}
