//! Special tokens: ids, whether BOS and EOS are added, and the chat template.

use super::TokenizerFiles;
use crate::{Error, Result};
use gguf_format::Metadata;
use serde_json::Value;

/// Kind in the Hugging Face files, key in GGUF (two of which the format itself spells in its own way).
const KINDS: &[(&str, &str)] = &[
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("sep", "tokenizer.ggml.seperator_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("cls", "tokenizer.ggml.cls_token_id"),
    ("mask", "tokenizer.ggml.mask_token_id"),
];

/// Tokens that llama.cpp takes as the end of a turn by their text (src/llama-vocab.cpp), so that no key is needed for them.
const KNOWN_ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<eos>",
    "</s>",
];

/// The most ids that a list of end tokens may name.
const MAX_ENDS: usize = 64;

/// Writes the keys. `tokens` are the vocabulary's texts by id; `adds_bos_by_default` holds where no file says.
pub(super) fn write(
    files: &TokenizerFiles<'_>,
    tokens: &[Vec<u8>],
    adds_bos_by_default: bool,
    metadata: &mut Metadata,
) -> Result<()> {
    let empty = Value::Null;
    let config = files.tokenizer_config.as_ref().unwrap_or(&empty);
    let template = template_ends(files.tokenizer_json.as_ref());

    let mut eos = None;
    for &(kind, key) in KINDS {
        let id = match token_text(&config[format!("{kind}_token")]) {
            Some(text) => tokens.iter().position(|t| t == text.as_bytes()).map(|i| i as u64),
            None => None,
        };
        let id = match id {
            Some(id) => Some(id),
            None => config_id(files, &format!("{kind}_token_id"), tokens.len())?,
        };
        if let Some(id) = id {
            metadata.set(key, u32_id(files, key, id, tokens.len())?);
            eos = if kind == "eos" { Some(id) } else { eos };
        }
    }
    if let Some(id) = unnamed_end(files, eos, tokens) {
        metadata.set("tokenizer.ggml.eot_token_id", u32_id(files, "eos_token_id", id, tokens.len())?);
    }

    let flag = |kind: &str, from_template: Option<bool>, default: Option<bool>| {
        from_template.or_else(|| config[format!("add_{kind}_token")].as_bool()).or(default)
    };
    // A reader's own default depends on the kind of vocabulary, so this one is always said.
    let add_bos = flag("bos", template.map(|t| t.0), Some(adds_bos_by_default)).unwrap_or(false);
    metadata.set("tokenizer.ggml.add_bos_token", add_bos);
    if let Some(add_eos) = flag("eos", template.map(|t| t.1), None) {
        metadata.set("tokenizer.ggml.add_eos_token", add_eos);
    }
    write_chat_template(files, config, metadata);
    Ok(())
}

/// Whether the post-processor puts a special token before and after a text. `None` where there is none that could.
fn template_ends(tokenizer_json: Option<&Value>) -> Option<(bool, bool)> {
    let post = &tokenizer_json?["post_processor"];
    let list = match post["processors"].as_array() {
        Some(list) => list.as_slice(),
        None => std::slice::from_ref(post),
    };
    let mut ends = None;
    for processor in list {
        match processor["type"].as_str() {
            Some("TemplateProcessing") => {
                let single = processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
                let is_special = |item: Option<&Value>| item.is_some_and(|i| i["SpecialToken"]["id"].is_string());
                ends = Some((is_special(single.first()), is_special(single.last())));
            }
            Some("ByteLevel") => ends = ends.or(Some((false, false))),
            _ => {}
        }
    }
    ends
}

/// `"<s>"` or `{"content": "<s>", ...}`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// An id of config.json. A list (several end tokens) gives its first.
fn config_id(files: &TokenizerFiles<'_>, key: &str, vocab: usize) -> Result<Option<u64>> {
    let value = match &files.config[key] {
        Value::Array(list) => list.first().unwrap_or(&Value::Null),
        value => value,
    };
    // Some files say -1 for "none".
    match value.as_i64() {
        Some(id) if id >= 0 => u32_id(files, key, id as u64, vocab).map(|id| Some(u64::from(id))),
        _ => Ok(None),
    }
}

fn u32_id(files: &TokenizerFiles<'_>, key: &str, id: u64, vocab: usize) -> Result<u32> {
    match u32::try_from(id) {
        Ok(narrow) if id < vocab as u64 => Ok(narrow),
        _ => Err(Error::malformed(
            files.dir.join("config.json"),
            format!("`{key}`"),
            format!("a token id below {vocab}"),
            id.to_string(),
        )),
    }
}

/// The first further end token of generation_config.json or config.json that readers would not recognize by its text.
fn unnamed_end(files: &TokenizerFiles<'_>, eos: Option<u64>, tokens: &[Vec<u8>]) -> Option<u64> {
    let generation = files.generation_config.as_ref().map(|c| &c["eos_token_id"]);
    let lists = [generation, Some(&files.config["eos_token_id"])];
    let ids = lists.into_iter().flatten().filter_map(Value::as_array).flat_map(|l| l.iter().take(MAX_ENDS));
    ids.filter_map(Value::as_u64).find(|&id| {
        let text = usize::try_from(id).ok().and_then(|i| tokens.get(i));
        Some(id) != eos && text.is_some_and(|t| !KNOWN_ENDS.iter().any(|k| k.as_bytes() == t.as_slice()))
    })
}

/// One template, or several with names, of which `default` goes without one.
fn write_chat_template(files: &TokenizerFiles<'_>, config: &Value, metadata: &mut Metadata) {
    if let Some(template) = &files.chat_template {
        metadata.set("tokenizer.chat_template", template.as_str());
        return;
    }
    match &config["chat_template"] {
        Value::String(template) => metadata.set("tokenizer.chat_template", template.as_str()),
        Value::Array(list) => {
            let named = list.iter().filter_map(|t| Some((t["name"].as_str()?, t["template"].as_str()?)));
            let mut names = Vec::new();
            for (name, template) in named {
                if name == "default" {
                    metadata.set("tokenizer.chat_template", template);
                } else {
                    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                    metadata.set(&format!("tokenizer.chat_template.{name}"), template);
                    names.push(name);
                }
            }
            if !names.is_empty() {
                metadata.set("tokenizer.chat_templates", names);
            }
        }
        _ => {}
    }
}
