//! Text to token ids and back: from tokenizer.json, or from GGUF metadata.
//!
//! A Hugging Face directory is read by the `tokenizers` crate. A GGUF file is read here: byte-level BPE (`gpt2`) with every pre-tokenizer of
//! [`known_pre_tokenizers`], and SentencePiece's BPE (`llama`). A name that is not known is an error: wrong ids look like a bad model.

mod bpe;
mod byte_level;
mod end_of_generation;
mod error;
mod gguf;
mod hugging_face;
mod pre_tokenizer;
mod special;
mod spm;
mod utf8_stream;
mod vocab;

pub use error::TokenizerError;
pub use pre_tokenizer::known_pre_tokenizers;
pub use utf8_stream::Utf8Stream;

use crate::{Checkpoint, Result};
use gguf::GgufTokenizer;
use gguf_format::Metadata;
use hugging_face::HfTokenizer;
use std::path::{Path, PathBuf};

/// The longest text that is tokenized at once, in bytes: offsets are u32, and a space takes three bytes inside.
const LONGEST_TEXT: usize = 1 << 30;

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    backend: Backend,
    settings: Settings,
}

#[derive(Debug)]
enum Backend {
    Gguf(Box<GgufTokenizer>),
    HuggingFace(Box<HfTokenizer>),
}

/// What a model wants around its texts.
#[derive(Clone, Debug, Default)]
struct Settings {
    bos: Option<u32>,
    eos: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    end_of_generation: Vec<u32>,
    chat_template: Option<String>,
    /// Encoding puts a space in front of a text, decoding takes it away.
    strips_first_space: bool,
}

/// The character that stands for a byte in byte-level vocabularies.
#[cfg(test)]
pub(crate) fn byte_character(byte: u8) -> char {
    byte_level::char_of(byte)
}

impl Tokenizer {
    /// The tokenizer of a model.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] with the file and the key or field that is missing, malformed or unknown; [`crate::Error::Io`].
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint {
            Checkpoint::Gguf(file) => Self::from_gguf_metadata(file.gguf.metadata(), &file.path),
            Checkpoint::HfDir(dir) => Self::from_hf_dir(dir.path()),
        }
    }

    /// The tokenizer that the metadata of a GGUF file describes. `path` is for messages.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn from_gguf_metadata(metadata: &Metadata, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (tokenizer, settings) = GgufTokenizer::load(metadata).map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_path_buf(), backend: Backend::Gguf(Box::new(tokenizer)), settings })
    }

    /// The tokenizer of a directory that holds tokenizer.json.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`], [`crate::Error::Io`].
    pub fn from_hf_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let (tokenizer, settings) = HfTokenizer::load(dir)?;
        Ok(Self { path: dir.to_path_buf(), backend: Backend::HuggingFace(Box::new(tokenizer)), settings })
    }

    /// Token ids. `add_special`: BOS/EOS where the model's own settings want them. `parse_special`: text such as `<|im_end|>` becomes the special token
    /// (never allow that in text of strangers: it could end a turn and begin another).
    ///
    /// # Errors
    /// A byte for which the vocabulary has no token and no unknown token; a text above 1 GiB.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let ids = if text.len() > LONGEST_TEXT {
            Err(TokenizerError::TooLong { bytes: text.len(), limit: LONGEST_TEXT })
        } else {
            match &self.backend {
                Backend::Gguf(tokenizer) => tokenizer.encode(text, &self.settings, add_special, parse_special),
                Backend::HuggingFace(tokenizer) => tokenizer.encode(text, add_special, parse_special),
            }
        };
        ids.map_err(|e| e.at(&self.path))
    }

    /// Text of ids; special tokens left out unless `keep_special`. Bytes that are no UTF-8 become U+FFFD. The space that a SentencePiece tokenizer puts
    /// in front of a text is taken away.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> Result<String> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut at_start = self.settings.strips_first_space;
        for &id in ids {
            let special = self.is_special(id);
            let piece = self.piece(id)?;
            if special && !keep_special {
                continue;
            }
            let skip = usize::from(at_start && !special && piece.first() == Some(&b' '));
            at_start &= special;
            bytes.extend_from_slice(&piece[skip..]);
        }
        // Without a copy where the bytes are UTF-8, as they nearly always are.
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Bytes that one token stands for (a part of a character is possible); special tokens as their text.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn piece(&self, id: u32) -> Result<Vec<u8>> {
        let piece = match &self.backend {
            Backend::Gguf(tokenizer) => tokenizer.piece(id),
            Backend::HuggingFace(tokenizer) => tokenizer.piece(id),
        };
        piece.map_err(|e| e.at(&self.path))
    }

    /// A decoder that takes ids one by one and gives whole characters, special tokens left out unless `keep_special`.
    ///
    /// It begins in the middle of a text: a first space is kept.
    pub fn stream(&self, keep_special: bool) -> TokenStream<'_> {
        TokenStream { tokenizer: self, keep_special, utf8: Utf8Stream::new() }
    }

    /// Number of tokens: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        match &self.backend {
            Backend::Gguf(tokenizer) => tokenizer.vocab().len(),
            Backend::HuggingFace(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// True for control and unknown tokens: marks of the format that are no part of a text.
    pub fn is_special(&self, id: u32) -> bool {
        match &self.backend {
            Backend::Gguf(tokenizer) => {
                tokenizer.vocab().kind(id).is_special() && tokenizer.vocab().check_id(id).is_ok()
            }
            Backend::HuggingFace(tokenizer) => tokenizer.is_special(id),
        }
    }

    /// A token's text as the vocabulary spells it (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_text(&self, id: u32) -> Option<String> {
        match &self.backend {
            Backend::Gguf(tokenizer) => {
                tokenizer.vocab().check_id(id).ok().map(|()| tokenizer.vocab().text(id).to_owned())
            }
            Backend::HuggingFace(tokenizer) => tokenizer.text(id),
        }
    }

    /// The token that the vocabulary spells so.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        match &self.backend {
            Backend::Gguf(tokenizer) => tokenizer.vocab().find(text),
            Backend::HuggingFace(tokenizer) => tokenizer.find(text),
        }
    }

    /// BOS, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.settings.bos
    }

    /// EOS, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.settings.eos
    }

    /// True if the model wants BOS before a text.
    pub fn adds_bos(&self) -> bool {
        self.settings.adds_bos
    }

    /// The token that the model wants before a text, if it wants one.
    pub fn added_bos(&self) -> Option<u32> {
        self.bos().filter(|_| self.adds_bos())
    }

    /// True if the model wants EOS after a text.
    pub fn adds_eos(&self) -> bool {
        self.settings.adds_eos
    }

    /// Tokens that end a generation (EOS, end of turn), ascending.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.settings.end_of_generation
    }

    /// The chat template's source, if the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.settings.chat_template.as_deref()
    }
}

/// Ids to text, one by one, never half a character.
#[derive(Clone, Debug)]
pub struct TokenStream<'t> {
    tokenizer: &'t Tokenizer,
    keep_special: bool,
    utf8: Utf8Stream,
}

impl TokenStream<'_> {
    /// The characters that this token completes; often none, where a character has several tokens.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let piece = self.tokenizer.piece(id)?;
        let shown = self.keep_special || !self.tokenizer.is_special(id);
        Ok(if shown { self.utf8.push(&piece) } else { String::new() })
    }

    /// What is left at the end: U+FFFD for an unfinished character, or nothing.
    pub fn finish(&mut self) -> String {
        self.utf8.finish()
    }
}
