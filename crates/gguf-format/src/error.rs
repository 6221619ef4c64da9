//! What can be wrong, and where.

use alloc::boxed::Box;
use alloc::string::String;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Errors of reading, writing and coding GGUF data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[cfg(feature = "std")]
    #[error("{path}: {source}")]
    Io {
        /// The file, as the caller named it.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes do not follow the format.
    #[error("{what} at offset {offset:#x}: expected {expected}, found {found}")]
    Malformed {
        /// The part that is wrong: `header`, `` key `general.name` ``, `` tensor `output.weight` ``.
        what: String,
        /// Byte offset from the start of the file.
        offset: u64,
        /// What the format asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Something is wrong in the file of this name.
    #[error("{path}: {source}")]
    InFile {
        /// The file, as the caller named it.
        path: String,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A metadata key is absent.
    #[error("key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than asked for.
    #[error("key `{key}`: expected {expected}, found {found}")]
    KeyType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type in the file, or the value.
        found: String,
    },
    /// No tensor of this name.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// The name.
        name: String,
    },
    /// The caller asked to write something the format or ggml's reader does not take.
    #[error("{what}: {reason}")]
    Refused {
        /// The key or tensor.
        what: String,
        /// Why.
        reason: String,
    },
    /// The length of a row or buffer does not fit the type.
    #[error("{ty}: expected {expected}, found {found}")]
    Length {
        /// The type.
        ty: crate::GgmlType,
        /// What is needed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// This crate has no codec for the type in this direction.
    #[error("{ty}: no {direction} for this type")]
    NoCodec {
        /// The type.
        ty: crate::GgmlType,
        /// `quantize` or `dequantize`.
        direction: &'static str,
    },
    /// The type is not written without importance weights.
    #[error("{ty}: needs importance weights")]
    NoImportance {
        /// The type.
        ty: crate::GgmlType,
    },
    /// A value that is not finite, where a codec needs finite ones.
    #[error("value {index} is {value}, not a finite number")]
    NonFinite {
        /// Index of the value in the input.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value too large for the half-precision number that has to hold it or its block's scale.
    #[error("{ty}: value {index} ({value}), or the scale of the block it starts, is beyond half precision")]
    Overflow {
        /// The type.
        ty: crate::GgmlType,
        /// Index of the value in the input; of a block's scale, that of the block's first value.
        index: usize,
        /// The value there.
        value: f32,
    },
}

#[cfg(feature = "std")]
impl Error {
    /// Adds the name of the file, where the error does not have it.
    pub fn in_file(self, path: impl AsRef<std::path::Path>) -> Self {
        match self {
            named @ (Self::Io { .. } | Self::InFile { .. }) => named,
            source => Self::InFile { path: path.as_ref().display().to_string(), source: Box::new(source) },
        }
    }
}
