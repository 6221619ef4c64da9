//! What the layouts of packed checkpoints (GPTQ, AWQ, compressed-tensors) share: tensors as they lie in a file, errors, keys of a config, bounded regular
//! expressions, verdicts on who loads a checkpoint.
//!
//! A layout stands between an [`AffineMatrix`](crate::affine::AffineMatrix) and the tensors of a module; it is in the crate of its method.

mod error;
mod keys;
mod pattern;
mod tensor;
mod verdict;

pub use error::{CheckpointError, Result};
pub use keys::{Keys, group_size_from_json, group_size_to_json, unsupported, wrong};
pub use pattern::{MAX_PATTERNS, Pattern};
pub use tensor::{DType, PackedTensor, StoredTensor, expect_shape, transposed};
pub use verdict::{LoadsIn, Verdict, by_joined_name, joined_name};
