//! The vocabulary of a Hugging Face directory as `tokenizer.*` metadata.
//!
//! Two forms: `gpt2`, byte-level BPE with merges; and `llama`, SentencePiece BPE with scores. Which one follows from tokenizer.json, or from
//! tokenizer.model where that is all there is. Keys as in gguf-py's `constants.py`.

mod byte_level;
mod pre_tokenizer;
mod sentencepiece;
mod sentencepiece_model;
mod special_tokens;

use crate::checkpoint::HfDir;
use crate::{Error, Result};
use gguf_format::Metadata;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The longest tokenizer.model or template read.
const MAX_FILE: u64 = 64 << 20;

/// The files of a directory that speak of its tokenizer.
pub(super) struct TokenizerFiles<'a> {
    dir: PathBuf,
    config: &'a Value,
    tokenizer_json: Option<Value>,
    tokenizer_config: Option<Value>,
    generation_config: Option<Value>,
    added_tokens: Option<Value>,
    sentencepiece: Option<Vec<u8>>,
    chat_template: Option<String>,
}

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Writes the tokenizer's keys. `vocab_size` is the number of rows of the embedding; ids without a token become `[PADn]`.
pub(super) fn write(dir: &HfDir, vocab_size: usize, metadata: &mut Metadata) -> Result<()> {
    let files = TokenizerFiles::open(dir)?;
    let (tokens, adds_bos_by_default) = match files.kind()? {
        Kind::ByteLevel => (byte_level::write(&files, vocab_size, metadata)?, false),
        Kind::SentencePiece => (sentencepiece::write(&files, vocab_size, metadata)?, true),
    };
    special_tokens::write(&files, &tokens, adds_bos_by_default, metadata)
}

enum Kind {
    ByteLevel,
    SentencePiece,
}

impl<'a> TokenizerFiles<'a> {
    fn open(dir: &'a HfDir) -> Result<Self> {
        let path = dir.path();
        let chat_template = match read_optional(&path.join("chat_template.jinja"))? {
            Some(bytes) => Some(String::from_utf8(bytes).map_err(|e| {
                Error::malformed(path.join("chat_template.jinja"), "content", "UTF-8", e.utf8_error().to_string())
            })?),
            None => dir.json("chat_template.json")?.and_then(|j| j["chat_template"].as_str().map(str::to_owned)),
        };
        Ok(Self {
            dir: path.to_path_buf(),
            config: dir.config_json(),
            tokenizer_json: dir.json("tokenizer.json")?,
            tokenizer_config: dir.json("tokenizer_config.json")?,
            generation_config: dir.json("generation_config.json")?,
            added_tokens: dir.json("added_tokens.json")?,
            sentencepiece: read_optional(&path.join("tokenizer.model"))?,
            chat_template,
        })
    }

    /// tokenizer.json decides, as some directories keep a tokenizer.model of another program beside it.
    fn kind(&self) -> Result<Kind> {
        let Some(json) = &self.tokenizer_json else {
            return match self.sentencepiece {
                Some(_) => Ok(Kind::SentencePiece),
                None => Err(Error::malformed(&self.dir, "tokenizer", "tokenizer.json or tokenizer.model", "neither")),
            };
        };
        let model = &json["model"];
        match (model["type"].as_str(), model["byte_fallback"].as_bool().unwrap_or(false)) {
            (Some("BPE"), false) => Ok(Kind::ByteLevel),
            (Some("BPE"), true) => Ok(Kind::SentencePiece),
            // Before types were written, only BPE has merges.
            (None, false) if model["merges"].is_array() => Ok(Kind::ByteLevel),
            (kind, _) => Err(Error::Unsupported(format!(
                "{}: a tokenizer of type `{}` (BPE is)",
                self.dir.join("tokenizer.json").display(),
                kind.unwrap_or("none")
            ))),
        }
    }

    fn malformed(&self, file: &str, what: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(self.dir.join(file), what, expected, found)
    }
}

/// An added token of tokenizer.json or of `added_tokens_decoder` in tokenizer_config.json.
struct AddedToken<'a> {
    id: usize,
    text: &'a str,
    special: bool,
}

impl AddedToken<'_> {
    /// llama.cpp's tokenizer expects spaces, not SentencePiece's mark, in tokens that users define.
    fn entry(&self) -> (String, TokenType) {
        match self.special || looks_special(self.text) {
            true => (self.text.to_owned(), TokenType::Control),
            false => (self.text.replace('\u{2581}', " "), TokenType::UserDefined),
        }
    }
}

/// Some models forget to mark their control tokens (`does_token_look_special` in llama.cpp's conversion/base.py).
fn looks_special(text: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<｜") && text.ends_with("｜>"))
        || (text.starts_with("<unused") && text.ends_with('>'))
}

/// The added tokens of tokenizer.json.
fn added_tokens<'a>(files: &TokenizerFiles<'_>, json: &'a Value) -> Result<Vec<AddedToken<'a>>> {
    let list = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parse = |t: &'a Value| {
        let id = usize::try_from(t["id"].as_u64()?).ok()?;
        Some(AddedToken { id, text: t["content"].as_str()?, special: t["special"].as_bool().unwrap_or(false) })
    };
    let token = |t| {
        parse(t).ok_or_else(|| files.malformed("tokenizer.json", "`added_tokens`", "id and content", t.to_string()))
    };
    list.iter().map(token).collect()
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(Error::malformed(path, "size", format!("at most {MAX_FILE} bytes"), meta.len().to_string()))
        }
        Ok(_) => std::fs::read(path).map(Some).map_err(|e| Error::io(path, e)),
    }
}
