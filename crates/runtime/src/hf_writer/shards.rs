//! Tensors from several files, written to shards.

use crate::Result;
use crate::checkpoint::HfEntry;
use crate::safetensors_io::{RawSpec, SafetensorsWriter};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A directory that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenDir {
    /// Where it is.
    pub path: PathBuf,
    /// Files with weights.
    pub shards: usize,
    /// Bytes of the files with weights.
    pub bytes: u64,
    /// Tensors in them.
    pub tensors: usize,
}

/// A tensor to be written, in the map of the file it comes from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: Cow<'a, [usize]>,
    pub(super) data: Cow<'a, [u8]>,
}

impl<'a> From<HfEntry<'a>> for Source<'a> {
    fn from(entry: HfEntry<'a>) -> Self {
        let HfEntry { name, dtype, shape, data, .. } = entry;
        Self { name, dtype, shape: Cow::Borrowed(shape), data: Cow::Borrowed(data) }
    }
}

/// All tensors of a directory, in order.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    tensors: Vec<Source<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn add(&mut self, tensor: Source<'a>) {
        self.tensors.push(tensor);
    }

    /// Writes `model.safetensors`, or shards and their index where all do not fit in one of `most` bytes.
    pub(super) fn write(&self, folder: &Path, most: u64) -> Result<WrittenDir> {
        let mut shards: Vec<Vec<&Source<'_>>> = vec![Vec::new()];
        let mut filled = 0u64;
        for tensor in &self.tensors {
            let bytes = tensor.data.len() as u64;
            if filled > 0 && filled.saturating_add(bytes) > most {
                shards.push(Vec::new());
                filled = 0;
            }
            filled = filled.saturating_add(bytes);
            if let Some(shard) = shards.last_mut() {
                shard.push(tensor);
            }
        }
        let (count, mut bytes) = (shards.len(), 0);
        let mut placed = BTreeMap::new();
        for (i, shard) in shards.iter_mut().enumerate() {
            let file = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            // Wide elements first, so that each lies at a multiple of its size, as Python's readers need it.
            shard.sort_by_key(|t| (std::cmp::Reverse(t.dtype.bitsize()), t.name));
            bytes += write_shard(&folder.join(&file), shard)?;
            placed.extend(shard.iter().map(|t| (t.name, file.clone())));
        }
        if count > 1 {
            let total: u64 = self.tensors.iter().map(|t| t.data.len() as u64).sum();
            let map: Map<String, Value> = placed.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            super::write_json(&folder.join("model.safetensors.index.json"), &index)?;
        }
        Ok(WrittenDir { path: folder.to_path_buf(), shards: count, bytes, tensors: self.tensors.len() })
    }
}

fn write_shard(path: &Path, tensors: &[&Source<'_>]) -> Result<u64> {
    let specs = tensors.iter().map(|t| RawSpec {
        name: t.name,
        dtype: t.dtype.to_string(),
        shape: t.shape.iter().map(|&d| d as u64).collect(),
        bytes: t.data.len() as u64,
    });
    // What transformers looks for before it loads a file.
    let mut out = SafetensorsWriter::create_raw(path, specs, &[("format".into(), "pt".into())])?;
    for tensor in tensors {
        out.write(&tensor.data)?;
    }
    out.finish()
}
