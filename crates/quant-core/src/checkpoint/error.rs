//! What a checkpoint can have wrong.

use crate::affine::AffineError;
use crate::bit_stream::BitStreamError;
use crate::eight_bit::EightBitError;

/// Result with [`CheckpointError`].
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// Errors of reading and writing checkpoints. The caller knows the file; here the tensor or the key is named.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A key of the quantization config is missing or has an impossible value.
    #[error("`{key}`: expected {expected}, found {found}")]
    Config {
        /// The key, with its path.
        key: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The config asks for something that is not read here.
    #[error("`{key}` {value} is not supported: {supported} is")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What can be read.
        supported: String,
    },
    /// A stored tensor is not what the config and the other tensors ask for.
    #[error("tensor `{tensor}`: expected {expected}, found {found}")]
    Tensor {
        /// Name of the tensor within its module: `qweight`, `scales`.
        tensor: &'static str,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A matrix that the layout, or the config, cannot hold.
    #[error("cannot be stored: {why}")]
    NotStorable {
        /// What stands against it.
        why: String,
    },
    /// The parts do not make a matrix.
    #[error(transparent)]
    Affine(#[from] AffineError),
    /// The parts do not make a matrix of one byte a weight.
    #[error(transparent)]
    EightBit(#[from] EightBitError),
    /// Codes and words do not go together.
    #[error(transparent)]
    BitStream(#[from] BitStreamError),
}
