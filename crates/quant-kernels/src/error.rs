//! What a caller can ask for wrongly.

use crate::Encoding;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the kernels: all are the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A length or an index that does not fit the others.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// What fits.
        expected: String,
        /// What was given.
        found: usize,
    },
    /// No kernel for this type.
    #[error("{0}: no kernel for this type")]
    Type(Encoding),
    /// `gguf_format` refused to dequantize.
    #[error(transparent)]
    Codec(#[from] gguf_format::Error),
}
