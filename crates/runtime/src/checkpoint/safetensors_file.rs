//! One safetensors file by itself, without a directory's config.json.

use super::HfEntry;
use super::shard::Shard;
use crate::Result;
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
        self.0.tensors.iter().enumerate().map(|(i, tensor)| HfEntry {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            data: self.0.data(i),
            file: &self.0.path,
            offset: tensor.offset(),
        })
    }
}
