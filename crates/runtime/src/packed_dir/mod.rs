//! Directories whose linear layers are packed: a model of a Hugging Face directory with its modules stored as GPTQ, AWQ or compressed-tensors have them.

mod writer;

pub use writer::{PackedDirWriter, PackedPart};
