//! A Hugging Face directory: config.json, one or sharded safetensors (memory-mapped), tokenizer files.

use super::TensorView;
use crate::Result;
use std::path::{Path, PathBuf};

/// An opened Hugging Face directory.
#[derive(Debug)]
pub struct HfDir {
    path: PathBuf,
    config: serde_json::Value,
}

#[allow(unused_variables, clippy::todo)]
impl HfDir {
    /// Opens the directory, maps every shard, checks that every tensor of the index is there and in bounds.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        todo!()
    }
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// config.json.
    pub fn config_json(&self) -> &serde_json::Value {
        &self.config
    }
    /// Another json file of the directory (`tokenizer_config.json`, `generation_config.json`), `None` if absent.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>> {
        todo!()
    }
    /// Names as in the files (`model.layers.0.self_attn.q_proj.weight`), in file order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    /// A tensor by its name in the files.
    pub fn tensor(&self, hf_name: &str) -> Result<Option<TensorView<'_>>> {
        todo!()
    }
}
