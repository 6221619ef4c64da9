//! A tokenizer from the files of a Hugging Face directory: tokenizer.json through the `tokenizers` crate, and what only the other files say.

use super::vocab::byte_of_token;
use super::{Settings, TokenizerError, byte_level};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;
use tokenizers::DecoderWrapper;

/// The largest tokenizer.json that is read. The largest in use have about 40 MB.
const LARGEST_FILE: u64 = 512 << 20;

/// Tokens that end a generation by their text, for directories without generation_config.json.
const ENDS: &[&str] =
    &["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<|end_of_text|>", "</s>"];

/// The tokenizer of a directory.
#[derive(Debug)]
pub(crate) struct HfTokenizer {
    tokenizer: tokenizers::Tokenizer,
    /// The same, for texts in which special tokens are plain text. Made when first used.
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
    spelling: Spelling,
    /// Tokens that stand for themselves, outside the model's vocabulary or above it; and those of them that are no text.
    added: HashSet<u32>,
    special: HashSet<u32>,
    vocab_size: usize,
}

/// How the bytes of a token are written in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Every byte a character (GPT-2).
    ByteLevel,
    /// Spaces as U+2581, bytes as `<0xXX>` (SentencePiece).
    SentencePiece { bytes: bool },
}

impl HfTokenizer {
    /// Reads `DIR/tokenizer.json`, and tokenizer_config.json, config.json, generation_config.json, chat_template.jinja where they are.
    pub(crate) fn load(dir: &Path) -> Result<(Self, Settings)> {
        let path = dir.join("tokenizer.json");
        let Some(bytes) = read(&path)? else {
            let why = "the directory has no tokenizer in a form that is read here";
            return Err(TokenizerError::missing("tokenizer.json", why).at(dir));
        };
        let config = json(&dir.join("config.json"))?;
        let tokenizer_config = json(&dir.join("tokenizer_config.json"))?;
        let generation_config = json(&dir.join("generation_config.json"))?;
        let template_file = dir.join("chat_template.jinja");
        let template = read(&template_file)?
            .map(|bytes| {
                String::from_utf8(bytes).map_err(|e| {
                    let at = e.utf8_error().valid_up_to();
                    TokenizerError::NotUtf8 { what: "the chat template".to_owned(), at }.at(&template_file)
                })
            })
            .transpose()?;
        let mut loaded = Self::parse(&bytes).map_err(|e| e.at(&path))?;
        let settings = loaded.settings(&config, &tokenizer_config, &generation_config, template);
        let settings = settings.map_err(|e| e.at(dir))?;
        loaded.special.extend(settings.bos);
        loaded.special.extend(settings.eos);
        Ok((loaded, settings))
    }

    fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let library = |e: tokenizers::Error| TokenizerError::Library { what: "tokenizer.json", message: e.to_string() };
        // The library's reader of decoders panics where the JSON ends in the middle of one, so the whole is looked over first.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| library(e.into()))?;
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(library)?;
        // Settings of training, not of the text: a model's context is its caller's affair.
        tokenizer.with_truncation(None).map_err(library)?;
        tokenizer.with_padding(None);
        let spelling = spelling(tokenizer.get_decoder())?;
        let tokens = tokenizer.get_added_tokens_decoder();
        let added = tokens.keys().copied().collect();
        let special = tokens.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let largest = tokenizer.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |id| id as usize + 1);
        Ok(Self { tokenizer, plain: OnceLock::new(), spelling, added, special, vocab_size })
    }

    fn settings(
        &self,
        config: &Value,
        tokenizer_config: &Value,
        generation_config: &Value,
        template_file: Option<String>,
    ) -> Result<Settings, TokenizerError> {
        let mut bos = self.named_token(tokenizer_config, "bos_token")?;
        let mut eos = self.named_token(tokenizer_config, "eos_token")?;
        let generation_ends = self.ids(generation_config, "generation_config.json: eos_token_id")?;
        let config_ends = self.ids(config, "config.json: eos_token_id")?;
        eos = eos.or_else(|| generation_ends.first().copied()).or_else(|| config_ends.first().copied());
        // The post-processor decides what is put around a text: an empty one shows it.
        let around = self.encode("", true, true)?;
        bos = bos.or_else(|| around.first().copied().filter(|&id| Some(id) != eos));
        if bos.is_none() {
            bos = self.ids(config, "config.json: bos_token_id")?.first().copied();
        }
        let adds_bos = bos.is_some() && around.first().copied() == bos;
        let adds_eos = eos.is_some() && around.len() > usize::from(adds_bos) && around.last().copied() == eos;
        let mut end_of_generation: Vec<u32> = eos.into_iter().collect();
        if generation_ends.is_empty() {
            end_of_generation.extend(config_ends);
            let by_text = ENDS.iter().filter_map(|text| self.tokenizer.token_to_id(text));
            end_of_generation.extend(by_text.filter(|id| self.special.contains(id)));
        } else {
            end_of_generation.extend(generation_ends);
        }
        end_of_generation.sort_unstable();
        end_of_generation.dedup();
        Ok(Settings {
            bos,
            eos,
            adds_bos,
            adds_eos,
            end_of_generation,
            chat_template: template_file.or_else(|| template_of(&tokenizer_config["chat_template"])),
            strips_first_space: strips_first_space(self.tokenizer.get_decoder()),
        })
    }

    /// The token of a field that holds its text, or an object with `content`.
    fn named_token(&self, config: &Value, field: &str) -> Result<Option<u32>, TokenizerError> {
        let value = &config[field];
        let Some(text) = value.as_str().or_else(|| value["content"].as_str()) else { return Ok(None) };
        let id = self.tokenizer.token_to_id(text);
        let key = || format!("tokenizer_config.json: {field}");
        id.map(Some).ok_or_else(|| TokenizerError::malformed(&key(), "a token of tokenizer.json", format!("{text:?}")))
    }

    /// The ids of a field that holds one, a list of them, or null. `key` is `FILE: FIELD`.
    fn ids(&self, config: &Value, key: &str) -> Result<Vec<u32>, TokenizerError> {
        let field = key.rsplit(' ').next().unwrap_or(key);
        let list = match &config[field] {
            Value::Null => return Ok(Vec::new()),
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        list.iter()
            .map(|id| {
                // Ids above the vocabulary are allowed up to the model's padded size; they can never be sampled into text wrongly.
                id.as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .ok_or_else(|| TokenizerError::malformed(key, "a token id, or a list of them", id.to_string()))
            })
            .collect()
    }

    pub(crate) fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let tokenizer = if parse_special {
            &self.tokenizer
        } else {
            self.plain.get_or_init(|| {
                let mut plain = self.tokenizer.clone();
                plain.set_encode_special_tokens(true);
                Box::new(plain)
            })
        };
        let encoding = guarded(|| tokenizer.encode_fast(text, add_special))
            .map_err(|e| TokenizerError::Library { what: "encoding", message: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(crate) fn piece(&self, id: u32) -> Result<Vec<u8>, TokenizerError> {
        let Some(text) = self.tokenizer.id_to_token(id) else {
            return Err(TokenizerError::NoSuchId { id, vocab_size: self.vocab_size });
        };
        if self.added.contains(&id) {
            return Ok(text.into_bytes());
        }
        Ok(match self.spelling {
            Spelling::ByteLevel => byte_level::decode(&text),
            Spelling::SentencePiece { bytes } => match byte_of_token(&text).filter(|_| bytes) {
                Some(byte) => vec![byte],
                None => text.replace('\u{2581}', " ").into_bytes(),
            },
        })
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(crate) fn text(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }
}

/// Runs a call into `tokenizers`, which panics on some files that are JSON but make no sense (a bad `Precompiled` normalizer is one).
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("the file makes no sense to the tokenizers library".into()))
}

/// The parts of a decoder, one after the other.
fn parts(decoder: Option<&DecoderWrapper>) -> Vec<&DecoderWrapper> {
    match decoder {
        Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders().iter().collect(),
        one => one.into_iter().collect(),
    }
}

fn spelling(decoder: Option<&DecoderWrapper>) -> Result<Spelling, TokenizerError> {
    let parts = parts(decoder);
    if parts.iter().any(|part| matches!(part, DecoderWrapper::ByteLevel(_))) {
        return Ok(Spelling::ByteLevel);
    }
    let bytes = parts.iter().any(|part| matches!(part, DecoderWrapper::ByteFallback(_)));
    let spaces = parts.iter().any(|part| matches!(part, DecoderWrapper::Metaspace(_) | DecoderWrapper::Replace(_)));
    let other = parts
        .iter()
        .any(|part| matches!(part, DecoderWrapper::BPE(_) | DecoderWrapper::WordPiece(_) | DecoderWrapper::CTC(_)));
    if (bytes || spaces) && !other {
        return Ok(Spelling::SentencePiece { bytes });
    }
    Err(TokenizerError::Unknown {
        key: "decoder".to_owned(),
        found: if parts.is_empty() { "null".to_owned() } else { "another kind".to_owned() },
        known: "ByteLevel; Replace or Metaspace, with or without ByteFallback".to_owned(),
    })
}

/// True if decoding drops the space that encoding put in front.
fn strips_first_space(decoder: Option<&DecoderWrapper>) -> bool {
    parts(decoder).iter().any(|part| match part {
        DecoderWrapper::Strip(strip) => strip.content == ' ' && strip.start > 0,
        DecoderWrapper::Metaspace(metaspace) => {
            metaspace.prepend_scheme != tokenizers::pre_tokenizers::metaspace::PrependScheme::Never
        }
        _ => false,
    })
}

/// The chat template of tokenizer_config.json: a string, or a list of named ones of which `default` is meant, or the only one.
fn template_of(value: &Value) -> Option<String> {
    if let Some(template) = value.as_str() {
        return Some(template.to_owned());
    }
    let list = value.as_array()?;
    let default = list.iter().find(|entry| entry["name"] == "default");
    let entry = default.or_else(|| list.first().filter(|_| list.len() == 1))?;
    entry["template"].as_str().map(str::to_owned)
}

/// A whole file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::malformed(path, "size", format!("at most {LARGEST_FILE} bytes"), "more"));
    }
    Ok(Some(bytes))
}

/// A JSON file; null if it is not there.
fn json(path: &Path) -> Result<Value> {
    let Some(bytes) = read(path)? else { return Ok(Value::Null) };
    serde_json::from_slice(&bytes).map_err(|e| Error::malformed(path, "JSON", "a JSON value", e.to_string()))
}
