//! A model on disk, whichever form it has: a GGUF file or a Hugging Face directory.

mod hf_dir;
mod map;
mod names;
mod packed;
mod safetensors_file;
mod shard;

pub use hf_dir::{HfDir, HfEntry};
pub use names::{gguf_name, hf_name};
pub use packed::{EightBitLinear, MatrixRef, ModuleMatrix, PackedConfig, PackedFacts, PackedModules, PackedSummary};
pub(crate) use packed::{Parts, error as packed_error, quantized_modules};
pub use safetensors_file::SafetensorsFile;

use crate::{Error, ModelConfig, Result};
use gguf_format::{ByteOrder, GgmlType, GgufSplits, Mmap, TensorInfo, split_paths};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An opened model: memory-mapped, nothing loaded yet. Recognized from the content, not the name.
///
/// The files must not be changed while it is open: they are used in place.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A GGUF file, or the parts of a split one.
    Gguf(Arc<GgufFile>),
    /// A directory with config.json and safetensors.
    HfDir(Arc<HfDir>),
}

/// A mapped GGUF file, or all parts of a split one, and where it is.
#[derive(Debug)]
pub struct GgufFile {
    /// Where it is; of a split model, the first part.
    pub path: PathBuf,
    /// All its parts, in order.
    pub paths: Vec<PathBuf>,
    /// The content.
    pub gguf: GgufSplits<Mmap>,
}

impl GgufFile {
    /// Lets the pages of a tensor's bytes go, or of a part of them: they are read from the file again when they are needed.
    pub(crate) fn release(&self, bytes: &[u8]) {
        self.gguf.parts().iter().for_each(|part| part.storage().release(bytes));
    }
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

impl Checkpoint {
    /// Opens a GGUF file or a Hugging Face directory.
    ///
    /// # Errors
    /// A path that does not exist; a file that does not begin with `GGUF`; what [`HfDir::open`] and [`GgufSplits::open`] refuse;
    /// a big-endian file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if meta.is_dir() {
            return Ok(Self::HfDir(Arc::new(HfDir::open(path)?)));
        }
        let magic = first_bytes(path)?;
        if &magic != b"GGUF" {
            let expected = "a GGUF file (beginning with `GGUF`) or a directory with config.json and safetensors";
            let found = if path.extension().is_some_and(|e| e == "safetensors") {
                "a safetensors file: name its directory".to_owned()
            } else {
                format!("a file beginning with `{}`", magic.escape_ascii())
            };
            return Err(Error::malformed(path, "model", expected, found));
        }
        let gguf = GgufSplits::open(path).map_err(|e| Error::gguf(path, e))?;
        if gguf.byte_order() == ByteOrder::Big {
            // Weights are used in place.
            let expected = "a little-endian file (`quant edit IN OUT --byte-order little` makes one)";
            return Err(Error::malformed(path, "byte order", expected, "big endian"));
        }
        let paths = split_paths(path, 0, gguf.parts().len() as u64).unwrap_or_else(|| vec![path.to_path_buf()]);
        Ok(Self::Gguf(Arc::new(GgufFile { path: path.to_path_buf(), paths, gguf })))
    }

    /// The path given to `open`.
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(file) => &file.path,
            Self::HfDir(dir) => dir.path(),
        }
    }

    /// Hyper-parameters.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names a part of the model that is not built here; [`Error::Malformed`] a field that is missing or impossible.
    pub fn config(&self) -> Result<ModelConfig> {
        match self {
            Self::Gguf(file) => ModelConfig::from_gguf(file),
            Self::HfDir(dir) => ModelConfig::from_hf(dir),
        }
    }

    /// A tensor by its GGUF name (`blk.0.attn_q.weight`, `token_embd.weight`), in the checkpoint's own row order
    /// (a Hugging Face q/k is not permuted; `ModelConfig::rope.layout` says which rotation fits). `None` if absent.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a safetensors type other than F32, F16 and BF16.
    pub fn tensor(&self, gguf_name: &str) -> Result<Option<TensorView<'_>>> {
        match self {
            Self::Gguf(file) => match file.gguf.tensor(gguf_name) {
                Some(info) => file.view(info).map(Some),
                None => Ok(None),
            },
            Self::HfDir(dir) => match hf_name(gguf_name) {
                Some(name) => dir.tensor(&name),
                None => Ok(None),
            },
        }
    }

    /// The name under which this checkpoint's files hold a tensor, for messages: the Hugging Face name for a directory.
    pub fn own_name(&self, gguf_name: &str) -> String {
        match self {
            Self::Gguf(_) => gguf_name.to_owned(),
            Self::HfDir(_) => hf_name(gguf_name).unwrap_or_else(|| gguf_name.to_owned()),
        }
    }

    /// All tensor names as the files have them.
    pub fn own_names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Gguf(file) => Box::new(file.gguf.tensors().iter().map(TensorInfo::name)),
            Self::HfDir(dir) => Box::new(dir.tensor_names()),
        }
    }
}

impl GgufFile {
    /// A tensor of the file.
    ///
    /// # Errors
    /// A dimension that does not fit this machine.
    pub fn view(&self, info: &TensorInfo) -> Result<TensorView<'_>> {
        let shape = info.shape().iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| {
            let found = format!("{:?}", info.shape());
            Error::malformed(&self.path, format!("tensor `{}`", info.name()), "dimensions that fit this machine", found)
        })?;
        Ok(TensorView { ty: info.ggml_type(), shape, data: self.gguf.data(info) })
    }
}

/// The first four bytes; shorter files are padded with zeros.
fn first_bytes(path: &Path) -> Result<[u8; 4]> {
    let mut magic = Vec::with_capacity(4);
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(4).read_to_end(&mut magic).map_err(|e| Error::io(path, e))?;
    magic.resize(4, 0);
    Ok([magic[0], magic[1], magic[2], magic[3]])
}
