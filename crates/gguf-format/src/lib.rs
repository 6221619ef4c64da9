//! GGUF files and ggml block types, without a tensor library and without a model.

pub mod blocks;
mod error;
mod ggml_type;
pub mod imatrix;
mod metadata;
pub mod mix;
mod reader;
mod writer;

pub use error::{Error, Result};
pub use ggml_type::{GgmlType, Layout};
pub use metadata::{Array, Metadata, Value, ValueType};
#[cfg(feature = "mmap")]
pub use reader::Mmap;
pub use reader::{Gguf, Limits, TensorInfo};
pub use writer::{GgufWriter, TensorSpec};
