//! Byte-level BPE (`gpt2` in GGUF): tokens, types, merges.

use super::{TokenType, TokenizerFiles, added_tokens, pre_tokenizer};
use crate::{Error, Result};
use gguf_format::{Metadata, Value as GgufValue};
use serde_json::Value;

/// Writes the keys; returns the tokens by id.
pub(super) fn write(files: &TokenizerFiles<'_>, vocab_size: usize, metadata: &mut Metadata) -> Result<Vec<Vec<u8>>> {
    let empty = Value::Null;
    let json = files.tokenizer_json.as_ref().unwrap_or(&empty);
    let pre = pre_tokenizer::recognize(json)
        .map_err(|what| Error::Unsupported(format!("{}: {what}", files.dir.join("tokenizer.json").display())))?;

    let mut tokens: Vec<Option<(String, TokenType)>> = vec![None; vocab_size];
    let mut put = |id: usize, token: (String, TokenType)| match tokens.get_mut(id) {
        Some(slot) => {
            *slot = Some(token);
            Ok(())
        }
        None => {
            let expected = format!("ids below the embedding's {vocab_size} rows");
            Err(files.malformed("tokenizer.json", "vocabulary", expected, format!("id {id}")))
        }
    };
    let vocab = json["model"]["vocab"].as_object();
    let vocab = vocab.ok_or_else(|| files.malformed("tokenizer.json", "`model.vocab`", "an object", "none"))?;
    for (text, id) in vocab {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let id = id.ok_or_else(|| files.malformed("tokenizer.json", "`model.vocab`", "ids", format!("`{text}`")))?;
        put(id, (text.clone(), TokenType::Normal))?;
    }
    for token in added_tokens(files, json)? {
        put(token.id, token.entry())?;
    }

    let pad = |id: usize| (format!("[PAD{id}]"), TokenType::Unused);
    let tokens: Vec<_> = tokens.into_iter().enumerate().map(|(id, t)| t.unwrap_or_else(|| pad(id))).collect();
    let merges = merges_of(&json["model"]["merges"])
        .ok_or_else(|| files.malformed("tokenizer.json", "`model.merges`", "pairs of tokens", "something else"))?;

    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", pre);
    metadata.set("tokenizer.ggml.tokens", GgufValue::strings(tokens.iter().map(|(text, _)| text)));
    metadata.set("tokenizer.ggml.token_type", tokens.iter().map(|&(_, ty)| ty as i32).collect::<Vec<i32>>());
    metadata.set("tokenizer.ggml.merges", GgufValue::strings(&merges));
    Ok(tokens.into_iter().map(|(text, _)| text.into_bytes()).collect())
}

/// `"a b"` or `["a", "b"]`, joined by a space. A space inside a part becomes the letter that stands for it in byte-level text.
pub(super) fn merges_of(merges: &Value) -> Option<Vec<String>> {
    let join = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [a, b] => {
                let part = |v: &Value| v.as_str().map(|s| s.replace(' ', "\u{120}"));
                Some(format!("{} {}", part(a)?, part(b)?))
            }
            _ => None,
        },
        _ => None,
    };
    merges.as_array()?.iter().map(join).collect()
}
