//! A checkpoint as the content of a GGUF file: names, q/k permutation, metadata, tokenizer.
//!
//! [`ModelSource`] describes what a GGUF file of the model would hold and where the bytes of each tensor are, without loading them;
//! [`quantize`](crate::quantize) turns it into a file of any type, streamed.

mod from_gguf;
mod from_hf;
mod hyper_parameters;
mod packed;
mod packed_blocks;
mod rope_freqs;
mod source;
mod vocab;

pub(crate) use packed::PackedReader;
pub use source::{AsBlocks, ModelSource, Place, RowOrder, SourceTensor};
