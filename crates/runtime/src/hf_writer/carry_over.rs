//! The files of a model that are not weights.

use super::staging::write_synced;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Endings of weights in any format: they are of the source, not of what is written.
const WEIGHTS: [&str; 12] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".onnx",
    ".h5",
    ".msgpack",
    ".npz",
];

/// Files that describe the source's weights.
const REPLACED: [&str; 3] = ["config.json", "quantize_config.json", "quantization_config.json"];

/// Copies the regular files of `from` (a link counts as what it points to, as in the hub's cache) but weights, hidden files and those in `own`.
pub(super) fn copy_files(from: &Path, to: &Path, own: &BTreeSet<&str>) -> Result<()> {
    for item in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let item = item.map_err(|e| Error::io(from, e))?;
        let (path, name) = (item.path(), item.file_name());
        let Some(text) = name.to_str() else { continue };
        if text.starts_with('.')
            || own.contains(text)
            || REPLACED.contains(&text)
            || WEIGHTS.iter().any(|ending| text.ends_with(ending))
            || !std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?.is_file()
        {
            continue;
        }
        // Not `fs::copy`: a file of the cache may be read-only.
        let mut file = std::fs::File::open(&path).map_err(|e| Error::io(&path, e))?;
        write_synced(&to.join(&name), &mut file)?;
    }
    Ok(())
}
