//! One safetensors file: its header checked once, then views into the map.

use super::HfEntry;
use super::map::FileMap;
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The longest header taken. The safetensors crate allows 100 MB, which unfolds to gigabytes of JSON nodes; a header of the largest published
/// models is below 1 MB.
const MAX_HEADER: u64 = 25_000_000;

/// A mapped safetensors file.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    map: FileMap,
    /// In order of offset.
    pub(super) tensors: Vec<ShardTensor>,
    /// `__metadata__`.
    pub(super) metadata: HashMap<String, String>,
}

/// What the header says of one tensor, and where in the file its bytes are (proved in bounds).
#[derive(Debug)]
pub(super) struct ShardTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    range: Range<usize>,
}

impl Shard {
    /// Maps the file and checks its header: JSON of the right form, offsets without holes, sizes that follow from shape and type, data that
    /// ends where the file ends.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map = FileMap::open(path)?;
        let bytes = map.bytes();
        let bad = |what: &str, expected: String, found: String| Error::malformed(path, what, expected, found);

        let Some(length) = bytes.first_chunk::<8>() else {
            return Err(bad(
                "header length at offset 0",
                "8 bytes".into(),
                format!("{} bytes in the file", bytes.len()),
            ));
        };
        let length = u64::from_le_bytes(*length);
        let available = bytes.len() as u64 - 8;
        if length > MAX_HEADER || length > available {
            let expected = format!("at most {} bytes", MAX_HEADER.min(available));
            return Err(bad("header length at offset 0", expected, length.to_string()));
        }
        // Both bounds above fit in usize: the file is mapped.
        let start = 8 + length as usize;
        let header = &bytes[8..start];
        // `Metadata` validates on deserializing. `SafeTensors::deserialize` is not used: it adds the offsets unchecked, which panics in builds
        // with overflow checks.
        let metadata: Metadata = serde_json::from_slice(header)
            .map_err(|e| bad("header at offset 0x8", "a safetensors header".into(), e.to_string()))?;

        let need = metadata.data_len();
        let have = bytes.len() - start;
        let mut names = metadata.offset_keys().into_iter();
        let mut tensors = Vec::with_capacity(names.len());
        for name in names.by_ref() {
            let Some(info) = metadata.info(&name) else { continue };
            let (from, to) = info.data_offsets;
            if to > have || from > to {
                let found = format!("{have} bytes of data (the file is cut short)");
                return Err(bad(&format!("tensor `{name}`"), format!("data at {from}..{to} after the header"), found));
            }
            tensors.push(ShardTensor {
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: start + from..start + to,
                name,
            });
        }
        if need != have {
            return Err(bad("data section", format!("{need} bytes, as the header says"), format!("{have} bytes")));
        }
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.to_path_buf(), map, tensors, metadata })
    }

    /// The tensor at `index` of `tensors`.
    pub(super) fn entry(&self, index: usize) -> Option<HfEntry<'_>> {
        let ShardTensor { name, dtype, shape, range } = self.tensors.get(index)?;
        let offset = range.start as u64;
        Some(HfEntry { name, dtype: *dtype, shape, data: self.data(index), file: &self.path, offset })
    }

    /// Lets the pages of bytes of this file go.
    pub(super) fn release(&self, bytes: &[u8]) {
        self.map.release(bytes);
    }

    /// The bytes of the tensor at `index` of `tensors`; empty for an index out of range.
    pub(super) fn data(&self, index: usize) -> &[u8] {
        self.tensors.get(index).and_then(|t| self.map.bytes().get(t.range.clone())).unwrap_or(&[])
    }
}
