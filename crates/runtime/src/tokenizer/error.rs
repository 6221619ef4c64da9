//! What can be wrong with a tokenizer, or with what it is asked.

use std::path::Path;

/// Errors of loading and using a tokenizer. [`crate::Error::Tokenizer`] adds the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The metadata of a GGUF file cannot be read as asked.
    #[error(transparent)]
    Metadata(#[from] gguf_format::Error),
    /// A key or field that every tokenizer of this kind needs is absent.
    #[error("`{key}` is missing: {why}")]
    Missing {
        /// Key of the metadata, or file and field.
        key: String,
        /// What it is needed for.
        why: String,
    },
    /// A key or field holds something that cannot be.
    #[error("`{key}`: expected {expected}, found {found}")]
    Malformed {
        /// Key of the metadata, or file and field.
        key: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The file names something that is not known here. Guessing would give wrong ids without a word.
    #[error("`{key}` is `{found}`, which is not known here; known: {known}")]
    Unknown {
        /// Key of the metadata, or file and field.
        key: String,
        /// The name in the file.
        found: String,
        /// The names known.
        known: String,
    },
    /// The vocabulary has no token for a part of the text.
    #[error("the vocabulary has no token for byte {byte:#04x} of the text, and no unknown token")]
    NoToken {
        /// The byte.
        byte: u8,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocab_size} tokens")]
    NoSuchId {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// The text is longer than ids and offsets can hold.
    #[error("the text has {bytes} bytes; at most {limit} can be tokenized at once")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A sequence of bytes that is no UTF-8 where text is needed.
    #[error("{what} is not UTF-8 (byte {at})")]
    NotUtf8 {
        /// Where the bytes come from.
        what: String,
        /// The first byte that is wrong.
        at: usize,
    },
    /// What the `tokenizers` library says.
    #[error("{what}: {message}")]
    Library {
        /// What was attempted.
        what: &'static str,
        /// Its message.
        message: String,
    },
}

impl TokenizerError {
    pub(crate) fn malformed(key: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Malformed { key: key.to_owned(), expected: expected.into(), found: found.into() }
    }

    pub(crate) fn missing(key: &str, why: impl Into<String>) -> Self {
        Self::Missing { key: key.to_owned(), why: why.into() }
    }

    /// The same, with the file it is about.
    pub(crate) fn at(self, path: &Path) -> crate::Error {
        crate::Error::Tokenizer { path: path.to_path_buf(), source: Box::new(self) }
    }
}
