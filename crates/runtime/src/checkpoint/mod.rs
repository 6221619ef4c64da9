//! A model on disk, whichever form it has: a GGUF file or a Hugging Face directory.

mod hf_dir;

pub use hf_dir::HfDir;

use crate::{ModelConfig, Result};
use gguf_format::{GgmlType, Gguf, Mmap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened model: memory-mapped, nothing loaded yet. Recognized from the content, not the name.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A GGUF file.
    Gguf(Arc<GgufFile>),
    /// A directory with config.json and safetensors.
    HfDir(Arc<HfDir>),
}

/// A mapped GGUF file and where it is.
#[derive(Debug)]
pub struct GgufFile {
    /// Where it is.
    pub path: PathBuf,
    /// The file.
    pub gguf: Gguf<Mmap>,
}

/// One tensor of a checkpoint, borrowed from the map.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Type of the bytes (safetensors F32/F16/BF16 map to the ggml types of these names).
    pub ty: GgmlType,
    /// Rows first.
    pub shape: Vec<usize>,
    /// The bytes, little endian.
    pub data: &'a [u8],
}

#[allow(unused_variables, clippy::todo)]
impl Checkpoint {
    /// Opens a GGUF file or a Hugging Face directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        todo!()
    }
    /// The path given to `open`.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Hyper-parameters.
    pub fn config(&self) -> Result<ModelConfig> {
        todo!()
    }
    /// A tensor by its GGUF name (`blk.0.attn_q.weight`, `token_embd.weight`), in the checkpoint's own row order
    /// (a Hugging Face q/k is not permuted; `ModelConfig::rope.layout` says which rotation fits). `None` if absent.
    pub fn tensor(&self, gguf_name: &str) -> Result<Option<TensorView<'_>>> {
        todo!()
    }
}
