//! What goes into a GGUF file, and where its bytes are now.

use crate::checkpoint::HfDir;
use crate::{Checkpoint, Result};
use gguf_format::{GgmlType, Metadata};
use quant_core::error_metrics::ErrorMetrics;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The content of a GGUF file before it is quantized.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// Where it came from, for messages.
    pub path: PathBuf,
    /// Keys in file order, without `general.quantization_version`, `general.file_type` and `split.*`.
    pub metadata: Metadata,
    /// In the order of the file to be.
    pub tensors: Vec<SourceTensor>,
    /// The files that [`Place::File`] points into.
    pub files: Vec<PathBuf>,
    /// The directory of the modules that [`Place::Packed`] names.
    pub packed: Option<Arc<HfDir>>,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// GGUF name.
    pub name: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// Type in an unquantized GGUF file: what a tensor that is not quantized becomes.
    pub ty: GgmlType,
    /// Type of the bytes where they are now.
    pub stored: GgmlType,
    /// Where they are.
    pub place: Place,
    /// In which order the rows are there.
    pub order: RowOrder,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file.
    File {
        /// Index in [`ModelSource::files`].
        file: usize,
        /// From the start of the file.
        offset: u64,
    },
    /// Here.
    Memory(Vec<u8>),
    /// In a quantized module of [`ModelSource::packed`]: its blocks are made when they are asked for.
    Packed {
        /// `model.layers.0.mlp.up_proj`.
        module: String,
        /// The order of its rows there; the blocks are in GGUF's.
        order: RowOrder,
        /// How it is brought to blocks.
        as_blocks: AsBlocks,
    },
}

/// What becomes of a quantized module's codes.
#[derive(Clone, Debug, PartialEq)]
pub enum AsBlocks {
    /// They stand in the blocks. How far the blocks are from the module: zero, or the rounding of minima to binary16.
    Codes(ErrorMetrics),
    /// No block holds them, for this reason; their values are converted.
    Values(String),
}

/// How the rows of a tensor are ordered where they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As GGUF wants them.
    AsStored,
    /// Rows of q or k for a rotation of halves (Hugging Face), which GGUF's `llama` rotates in adjacent pairs: of each head, row `2j + s` is
    /// stored as row `s * head_dim / 2 + j` (`permute` in llama.cpp's conversion/llama.py, read backwards).
    Halves {
        /// Rows of a head.
        head_dim: u64,
    },
}

impl RowOrder {
    /// The stored row that becomes `row`.
    pub fn stored_row(self, row: u64) -> u64 {
        match self {
            Self::AsStored => row,
            Self::Halves { head_dim } => {
                let (head, r) = (row / head_dim, row % head_dim);
                head * head_dim + (r % 2) * (head_dim / 2) + r / 2
            }
        }
    }

    /// Rows that must be read together.
    pub fn group(self) -> u64 {
        match self {
            Self::AsStored => 1,
            Self::Halves { head_dim } => head_dim.max(1),
        }
    }
}

impl SourceTensor {
    /// Values in a row.
    pub fn row_len(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of all matrices together.
    pub fn rows(&self) -> u64 {
        self.shape.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// Rows of one matrix; an expert tensor is a stack of matrices.
    pub fn rows_per_matrix(&self) -> u64 {
        self.shape.len().checked_sub(2).map_or(1, |i| self.shape[i])
    }

    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl ModelSource {
    /// Describes a checkpoint as the content of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names what has no place in the format or is not built here (architecture, tensor,
    /// tokenizer); [`Error::Malformed`](crate::Error::Malformed) what is missing, or of a shape that config.json does not imply.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint {
            Checkpoint::Gguf(file) => super::from_gguf::source(file),
            Checkpoint::HfDir(dir) => super::from_hf::source(dir),
        }
    }

    /// Whether `target` is one of the files read.
    pub fn reads(&self, target: &Path) -> bool {
        let Ok(target) = std::fs::canonicalize(target) else { return false };
        self.files.iter().any(|f| std::fs::canonicalize(f).is_ok_and(|f| f == target))
    }

    /// Whether it comes from a directory with packed modules (GPTQ, AWQ, compressed-tensors).
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// The type that most values have where they are: what "unchanged" means for a file type.
    pub fn prevailing_type(&self) -> Option<GgmlType> {
        let mut sums: Vec<(GgmlType, u64)> = Vec::new();
        for t in &self.tensors {
            match sums.iter_mut().find(|(ty, _)| *ty == t.stored) {
                Some((_, n)) => *n = n.saturating_add(t.elements()),
                None => sums.push((t.stored, t.elements())),
            }
        }
        sums.into_iter().max_by_key(|&(_, n)| n).map(|(ty, _)| ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_pairs() {
        let order = RowOrder::Halves { head_dim: 6 };
        let rows: Vec<_> = (0..12).map(|r| order.stored_row(r)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
