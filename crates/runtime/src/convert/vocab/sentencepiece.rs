//! SentencePiece BPE (`llama` in GGUF): tokens, scores, types, from tokenizer.model, or from a tokenizer.json that was made from one.

use super::sentencepiece_model::SentencePieceModel;
use super::{AddedToken, TokenType, TokenizerFiles, added_tokens};
use crate::{Error, Result};
use gguf_format::{Metadata, Value as GgufValue};
use serde_json::Value;
use std::collections::HashMap;

/// Score of a token that no merge makes (llama.cpp's conversion/base.py).
const ADDED_SCORE: f32 = -1000.0;
/// Score of an id without a token.
const UNUSED_SCORE: f32 = -10_000.0;

struct Token {
    text: Vec<u8>,
    score: f32,
    ty: TokenType,
}

/// Writes the keys; returns the tokens by id.
pub(super) fn write(files: &TokenizerFiles<'_>, vocab_size: usize, metadata: &mut Metadata) -> Result<Vec<Vec<u8>>> {
    let mut tokens: Vec<Token> = (0..vocab_size)
        .map(|id| Token { text: format!("[PAD{id}]").into_bytes(), score: UNUSED_SCORE, ty: TokenType::Unused })
        .collect();
    let prefix = match &files.sentencepiece {
        Some(bytes) => from_model(files, bytes, &mut tokens)?,
        None => from_json(files, &mut tokens)?,
    };
    // What tokenizer_config.json says of added tokens holds over the model file, as in transformers.
    for token in config_added_tokens(files)? {
        put_added(files, "tokenizer_config.json", &mut tokens, &token)?;
    }

    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.tokens", GgufValue::strings(tokens.iter().map(|t| &t.text)));
    metadata.set("tokenizer.ggml.scores", tokens.iter().map(|t| t.score).collect::<Vec<f32>>());
    metadata.set("tokenizer.ggml.token_type", tokens.iter().map(|t| t.ty as i32).collect::<Vec<i32>>());
    let said = files.tokenizer_config.as_ref().and_then(|c| c["add_prefix_space"].as_bool());
    if let Some(add) = said.or((!prefix).then_some(false)) {
        metadata.set("tokenizer.ggml.add_space_prefix", add);
    }
    Ok(tokens.into_iter().map(|t| t.text).collect())
}

/// Fills `tokens` from tokenizer.model; returns whether a space goes before the text.
fn from_model(files: &TokenizerFiles<'_>, bytes: &[u8], tokens: &mut [Token]) -> Result<bool> {
    let model = SentencePieceModel::parse(bytes)
        .map_err(|found| files.malformed("tokenizer.model", "content", "a SentencePiece model", found))?;
    if !model.is_bpe {
        let path = files.dir.join("tokenizer.model");
        return Err(Error::Unsupported(format!("{}: a SentencePiece model that is not BPE", path.display())));
    }
    for (id, piece) in model.pieces.into_iter().enumerate() {
        let ty = match piece.kind {
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            // User-defined pieces too are plain to llama.cpp's converter.
            _ => TokenType::Normal,
        };
        *slot(files, "tokenizer.model", tokens, id)? = Token { text: piece.text, score: piece.score, ty };
    }
    if let Some(added) = files.added_tokens.as_ref().and_then(Value::as_object) {
        for (text, id) in added {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
            let id = id.ok_or_else(|| files.malformed("added_tokens.json", "id", "a number", format!("`{text}`")))?;
            let token = Token { text: text.clone().into_bytes(), score: ADDED_SCORE, ty: TokenType::UserDefined };
            *slot(files, "added_tokens.json", tokens, id)? = token;
        }
    }
    Ok(model.add_dummy_prefix)
}

/// Fills `tokens` from tokenizer.json. SentencePiece merges the pair whose result scores highest, tokenizer.json the pair listed first, so the
/// order in which pieces first appear as a result there is a score that gives the same merges.
fn from_json(files: &TokenizerFiles<'_>, tokens: &mut [Token]) -> Result<bool> {
    let empty = Value::Null;
    let json = files.tokenizer_json.as_ref().unwrap_or(&empty);
    let prefix = space_prefix(json).ok_or_else(|| {
        files.malformed("tokenizer.json", "normalizer", "SentencePiece's", json["normalizer"].to_string())
    })?;
    let model = &json["model"];
    let bad = |what: &str, expected: &str| files.malformed("tokenizer.json", what, expected, "something else");
    let vocab = model["vocab"].as_object().ok_or_else(|| bad("`model.vocab`", "an object"))?;
    let merges = model["merges"].as_array().ok_or_else(|| bad("`model.merges`", "an array"))?;

    let mut scores: HashMap<String, f32> = HashMap::with_capacity(merges.len());
    for merge in merges {
        let result = match merge {
            Value::String(pair) => pair.split_once(' ').map(|(a, b)| format!("{a}{b}")),
            Value::Array(pair) => match (pair.first().and_then(Value::as_str), pair.get(1).and_then(Value::as_str)) {
                (Some(a), Some(b)) => Some(format!("{a}{b}")),
                _ => None,
            },
            _ => None,
        };
        let result = result.ok_or_else(|| bad("`model.merges`", "pairs of tokens"))?;
        let next = -(scores.len() as f32);
        scores.entry(result).or_insert(next);
    }
    let unknown = model["unk_token"].as_str();
    let last = -(scores.len() as f32);
    for (text, id) in vocab {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).ok_or_else(|| bad("`model.vocab`", "ids"))?;
        let (score, ty) = match text.as_str() {
            t if Some(t) == unknown => (0.0, TokenType::Unknown),
            t if is_byte(t) => (0.0, TokenType::Byte),
            t => (scores.get(t).copied().unwrap_or(last), TokenType::Normal),
        };
        *slot(files, "tokenizer.json", tokens, id)? = Token { text: text.clone().into_bytes(), score, ty };
    }
    for token in added_tokens(files, json)? {
        // The unknown token is listed as special too; it keeps its type.
        if Some(token.text) != unknown {
            put_added(files, "tokenizer.json", tokens, &token)?;
        }
    }
    Ok(prefix)
}

/// `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    hex.is_some_and(|h| h.len() == 2 && h.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a space goes before the text, read from the normalizer (transformers 4) or the Metaspace pre-tokenizer (newer files).
/// `None` for a normalizer that is not SentencePiece's.
fn space_prefix(json: &Value) -> Option<bool> {
    fn steps<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
        match value[list].as_array() {
            Some(parts) => parts.iter().collect(),
            None if value.is_null() => Vec::new(),
            None => vec![value],
        }
    }
    let mut prefix = false;
    for step in steps(&json["normalizer"], "normalizers") {
        match step["type"].as_str()? {
            "Prepend" if step["prepend"] == "\u{2581}" => prefix = true,
            "Replace" if step["pattern"]["String"] == " " && step["content"] == "\u{2581}" => {}
            _ => return None,
        }
    }
    for step in steps(&json["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str()? {
            "Metaspace" => {
                let scheme = step["prepend_scheme"].as_str();
                prefix |= scheme.map_or(step["add_prefix_space"] != false, |s| s != "never");
            }
            _ => return None,
        }
    }
    Some(prefix)
}

/// `added_tokens_decoder`: `{"32000": {"content": ..., "special": ...}}`.
fn config_added_tokens<'a>(files: &'a TokenizerFiles<'_>) -> Result<Vec<AddedToken<'a>>> {
    let Some(map) = files.tokenizer_config.as_ref().and_then(|c| c["added_tokens_decoder"].as_object()) else {
        return Ok(Vec::new());
    };
    let parse = |(id, t): (&String, &'a Value)| {
        let special = t["special"].as_bool().unwrap_or(false);
        Some(AddedToken { id: id.parse().ok()?, text: t["content"].as_str()?, special })
    };
    let what = "`added_tokens_decoder`";
    let bad = |id: &str| files.malformed("tokenizer_config.json", what, "ids and contents", format!("`{id}`"));
    map.iter().map(|(id, t)| parse((id, t)).ok_or_else(|| bad(id))).collect()
}

fn put_added(files: &TokenizerFiles<'_>, file: &str, tokens: &mut [Token], token: &AddedToken<'_>) -> Result<()> {
    let slot = slot(files, file, tokens, token.id)?;
    let (text, ty) = token.entry();
    *slot = Token { text: text.into_bytes(), score: ADDED_SCORE, ty };
    Ok(())
}

fn slot<'t>(files: &TokenizerFiles<'_>, file: &str, tokens: &'t mut [Token], id: usize) -> Result<&'t mut Token> {
    let size = tokens.len();
    tokens.get_mut(id).ok_or_else(|| {
        files.malformed(file, "vocabulary", format!("ids below the embedding's {size} rows"), format!("id {id}"))
    })
}
