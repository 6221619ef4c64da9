//! One error for the crate: whose fault, where, what.

use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of loading, converting, quantizing, running and evaluating models. Grouped by whose fault it is; modules with much to say have an
/// error type of their own that is wrapped here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a model is not what it should be.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Tensor, key or field.
        what: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A GGUF file is not what it should be.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: gguf_format::Error,
    },
    /// A GPTQ, AWQ or compressed-tensors checkpoint is not what it should be, or a matrix cannot be stored in one.
    #[error("{}: {what}{source}", path.display())]
    Packed {
        /// The file, or the directory.
        path: PathBuf,
        /// The module, followed by `: `, or nothing.
        what: String,
        /// What is wrong.
        source: Box<quant_core::checkpoint::CheckpointError>,
    },
    /// A tokenizer cannot be loaded, or cannot do what it is asked.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// The file, or the directory.
        path: PathBuf,
        /// What is wrong.
        source: Box<crate::tokenizer::TokenizerError>,
    },
    /// A chat template cannot be compiled, or refuses a conversation.
    #[error("chat template: {0}")]
    ChatTemplate(Box<crate::chat_template::ChatTemplateError>),
    /// The model asks for something that is not built here.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A computed value is NaN or infinite.
    #[error("{0} are not finite")]
    NotFinite(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// An I/O error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A GGUF error of the file `path`, or of the file that `source` names (another part of a split model); the name is said once.
    pub fn gguf(path: impl AsRef<Path>, source: gguf_format::Error) -> Self {
        match source {
            gguf_format::Error::Io { path, source } => Self::io(path, source),
            gguf_format::Error::InFile { path, source } => Self::gguf(path, *source),
            source => Self::Gguf { path: path.as_ref().to_path_buf(), source },
        }
    }

    /// A file that is not what it should be.
    pub fn malformed(
        path: impl AsRef<Path>,
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            path: path.as_ref().to_path_buf(),
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}
