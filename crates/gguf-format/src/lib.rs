//! GGUF files and ggml block types, without a tensor library and without a model.

#![deny(unsafe_code)]

mod array;
pub mod blocks;
mod error;
mod ggml_type;
pub mod imatrix;
mod limits;
mod metadata;
pub mod mix;
#[cfg(feature = "mmap")]
mod mmap;
mod parse;
mod plan;
mod reader;
mod strict;
mod tensor_info;
mod value;
mod writer;

pub use array::Array;
pub use error::{Error, Result};
pub use ggml_type::{GgmlType, Layout};
pub use limits::Limits;
pub use metadata::Metadata;
#[cfg(feature = "mmap")]
pub use mmap::Mmap;
pub use plan::{SizedTensor, TensorSpec, WritePlan};
pub use reader::Gguf;
pub use strict::Departure;
pub use tensor_info::TensorInfo;
pub use value::{Value, ValueType, ValueView};
pub use writer::GgufWriter;
