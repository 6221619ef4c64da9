//! The tensors of one quantized module.

use super::PackedLayout;
use crate::checkpoint::HfEntry;
use crate::{Error, Result};
use quant_core::checkpoint::{CheckpointError, DType, StoredTensor};
use safetensors::Dtype;
use std::path::Path;

/// The tensors of one quantized module, in the map of a file.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'f, 'a> {
    /// `model.layers.0.mlp.up_proj`.
    pub(crate) module: &'f str,
    /// The file of the first tensor.
    file: &'a Path,
    find: &'f dyn Fn(&str) -> Option<HfEntry<'a>>,
    marker: &'static str,
}

impl std::fmt::Debug for Parts<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("module", &self.module).field("file", &self.file).finish_non_exhaustive()
    }
}

impl<'f, 'a> Parts<'f, 'a> {
    /// The tensors of a module, `None` if it is not quantized; `find` finds a tensor by its name.
    ///
    /// # Errors
    /// [`Error::Malformed`] if its weight is there too, or if the config leaves it in full precision.
    pub(crate) fn new(
        layout: &dyn PackedLayout,
        module: &'f str,
        find: &'f dyn Fn(&str) -> Option<HfEntry<'a>>,
    ) -> Result<Option<Self>> {
        if !layout.holds(module, &|name| find(name).map(|entry| entry.dtype)) {
            return Ok(None);
        }
        let first = |suffix: &&'static str| find(&format!("{module}{suffix}")).map(|entry| (*suffix, entry.file));
        let Some((marker, file)) = layout.suffixes().iter().find_map(first) else { return Ok(None) };
        let marker_name = marker.trim_start_matches('.');
        let parts = Self { module, file, find, marker };
        if !layout.is_quantized(module).map_err(|e| parts.error(e))? {
            let found = format!("`{marker_name}` in place of `weight`");
            return Err(Error::malformed(
                file,
                format!("module `{module}`"),
                "full precision, as the config says",
                found,
            ));
        }
        let keeps_weight = layout.keeps_weight(module).map_err(|e| parts.error(e))?;
        if !keeps_weight && marker != ".weight" && find(&format!("{module}.weight")).is_some() {
            let expected = format!("none beside `{marker_name}`");
            return Err(Error::malformed(file, format!("tensor `{module}.weight`"), expected, "both"));
        }
        Ok(Some(parts))
    }

    /// A tensor that may be there.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a type that no layout has.
    pub(crate) fn get(&self, suffix: &str) -> Result<Option<StoredTensor<'a>>> {
        (self.find)(&format!("{}.{suffix}", self.module)).map(stored).transpose()
    }

    /// A tensor that must be there.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is missing, or of a type that no layout has.
    pub(crate) fn need(&self, suffix: &str) -> Result<StoredTensor<'a>> {
        self.get(suffix)?.ok_or_else(|| {
            let expected = format!("one beside `{}`", self.marker.trim_start_matches('.'));
            Error::malformed(self.file, format!("tensor `{}.{suffix}`", self.module), expected, "nothing")
        })
    }

    /// What is wrong with the module.
    pub(crate) fn error(&self, source: CheckpointError) -> Error {
        error(self.file, &format!("module `{}`: ", self.module), source)
    }
}

fn stored(entry: HfEntry<'_>) -> Result<StoredTensor<'_>> {
    let dtype = match entry.dtype {
        Dtype::I8 => DType::I8,
        Dtype::F8_E4M3 => DType::F8E4M3,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        other => {
            let what = format!("tensor `{}`", entry.name);
            let expected = "type I8, I16, I32, I64, F8_E4M3, F16, BF16 or F32";
            return Err(Error::malformed(entry.file, what, expected, other.to_string()));
        }
    };
    Ok(StoredTensor { dtype, shape: entry.shape, data: entry.data })
}

/// What is wrong with a module or a config in `path`; `what` is followed by `: `, or empty.
pub(crate) fn error(path: &Path, what: &str, source: CheckpointError) -> Error {
    Error::Packed { path: path.to_path_buf(), what: what.to_owned(), source: Box::new(source) }
}
