//! Weights where they lie: a place in the checkpoint's map, checked once.

use super::config::Architecture;
use crate::checkpoint::hf_name;
use crate::{Checkpoint, Error, ModelConfig, Result};
use gguf_format::{GgmlType, TensorInfo, blocks};
use quant_kernels::Matrix;
use std::collections::HashSet;

/// A weight matrix in the map of its checkpoint, which it keeps open.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    checkpoint: Checkpoint,
    place: Place,
    pub(super) ty: GgmlType,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

#[derive(Clone, Debug)]
enum Place {
    Gguf(TensorInfo),
    Hf((usize, usize)),
}

impl Weight {
    /// The bytes, in the map.
    pub(super) fn data(&self) -> &[u8] {
        match (&self.checkpoint, &self.place) {
            (Checkpoint::Gguf(file), Place::Gguf(info)) => file.gguf.data(info),
            (Checkpoint::HfDir(dir), Place::Hf(place)) => dir.data_at(*place),
            _ => &[],
        }
    }

    /// For the kernels.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        Matrix { ty: self.ty, rows: self.rows, cols: self.cols, data: self.data() }
    }
}

/// Reads the tensors of a checkpoint with the shapes that the configuration gives them.
pub(super) struct Loader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a ModelConfig,
}

impl Loader<'_> {
    /// Checks that the checkpoint holds every tensor of the model in its shape, and none that the model would have to use but does not know.
    pub(super) fn check_tensors(&self) -> Result<()> {
        let mut known = HashSet::new();
        for (name, shape, optional) in self.config.expected_tensors() {
            match self.checkpoint.tensor(&name)? {
                Some(view) => self.check_shape(&name, &shape, &view.shape)?,
                None if optional => {}
                None => return Err(self.missing(&name)),
            }
            known.insert(self.checkpoint.own_name(&name));
        }
        for name in self.checkpoint.own_names() {
            let harmless = name == "rope_freqs.weight"
                || name.ends_with("rotary_emb.inv_freq")
                || name.ends_with("attn_rot_embd.weight")
                || (self.config.tied && name == "lm_head.weight");
            if !known.contains(name) && !harmless {
                let architecture = match self.config.architecture {
                    Architecture::Llama => "Llama",
                    Architecture::Mistral => "Mistral",
                    Architecture::Qwen2 => "Qwen2",
                    Architecture::Qwen3 => "Qwen3",
                };
                let path = self.checkpoint.path().display();
                return Err(Error::Unsupported(format!("{path}: tensor `{name}`, which {architecture} does not have")));
            }
        }
        Ok(())
    }

    /// A weight matrix.
    pub(super) fn matrix(&self, gguf_name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let view = self.checkpoint.tensor(gguf_name)?.ok_or_else(|| self.missing(gguf_name))?;
        self.check_shape(gguf_name, &[rows, cols], &view.shape)?;
        if !quant_kernels::is_supported(view.ty) {
            let path = self.checkpoint.path().display();
            let name = self.checkpoint.own_name(gguf_name);
            return Err(Error::Unsupported(format!("{path}: tensor `{name}` of type {}", view.ty)));
        }
        self.check_bytes(gguf_name, view.ty, rows * cols, view.data.len())?;
        let place = match self.checkpoint {
            Checkpoint::Gguf(file) => file.gguf.tensor(gguf_name).map(|info| Place::Gguf(info.clone())),
            Checkpoint::HfDir(dir) => hf_name(gguf_name).and_then(|name| dir.locate(&name)).map(Place::Hf),
        };
        let place = place.ok_or_else(|| self.missing(gguf_name))?;
        Ok(Weight { checkpoint: self.checkpoint.clone(), place, ty: view.ty, rows, cols })
    }

    /// A vector as f32.
    pub(super) fn vector(&self, gguf_name: &str, len: usize) -> Result<Vec<f32>> {
        self.optional_vector(gguf_name, len)?.ok_or_else(|| self.missing(gguf_name))
    }

    /// A vector as f32, if it is there.
    pub(super) fn optional_vector(&self, gguf_name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.checkpoint.tensor(gguf_name)? else { return Ok(None) };
        self.check_shape(gguf_name, &[len], &view.shape)?;
        self.check_bytes(gguf_name, view.ty, len, view.data.len())?;
        let mut values = vec![0.0; len];
        blocks::dequantize(view.ty, view.data, &mut values).map_err(|e| {
            Error::malformed(self.checkpoint.path(), self.what(gguf_name), "values that can be read", e.to_string())
        })?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(Some(values)),
            Some(i) => {
                let found = format!("{} at index {i}", values[i]);
                Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), "finite values", found))
            }
        }
    }

    fn what(&self, gguf_name: &str) -> String {
        format!("tensor `{}`", self.checkpoint.own_name(gguf_name))
    }

    fn missing(&self, gguf_name: &str) -> Error {
        Error::malformed(self.checkpoint.path(), self.what(gguf_name), "the tensor", "nothing")
    }

    fn check_shape(&self, gguf_name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let (expected, found) = (format!("shape {expected:?}"), format!("{found:?}"));
        Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), expected, found))
    }

    fn check_bytes(&self, gguf_name: &str, ty: GgmlType, values: usize, found: usize) -> Result<()> {
        match ty.bytes_for(values as u64) {
            Some(bytes) if bytes == found as u64 => Ok(()),
            bytes => {
                let expected = bytes.map_or(format!("whole blocks of {ty}"), |b| format!("{b} bytes of {ty}"));
                Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), expected, format!("{found} bytes")))
            }
        }
    }
}
