//! `tokenizer.ggml.pre`: how text is cut into words before merging, recognized from tokenizer.json.
//!
//! llama.cpp's converter hashes the ids of a test string. Here the structure itself is compared: only a pre-tokenizer that is exactly one
//! that llama.cpp implements under a name gets that name, so an unknown one is an error and never a near miss.

use serde_json::Value;

/// Llama 3: numbers in groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen2: digit by digit.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Mistral Nemo ("Tekken"): words split at a change to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One step of a pre-tokenizer.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    /// Split by a regular expression, the matches isolated.
    Split(&'a str),
    /// Every digit alone.
    Digits,
    /// Bytes to letters, after GPT-2's split.
    ByteLevelWithSplit,
    /// Bytes to letters.
    ByteLevel,
}

/// A row: these steps, `ignore_merges` of the BPE model, the name.
type Known = (&'static [Step<'static>], bool, &'static str);

/// Names as in llama.cpp's src/llama-vocab.cpp, which also fixes whether a whole word in the vocabulary skips the merges.
const KNOWN: &[Known] = &[
    (&[Step::Split(LLAMA3), Step::ByteLevel], true, "llama-bpe"),
    (&[Step::Split(LLAMA3), Step::ByteLevel], false, "smaug-bpe"),
    (&[Step::Split(QWEN2), Step::ByteLevel], false, "qwen2"),
    (&[Step::Split(TEKKEN), Step::ByteLevel], true, "tekken"),
    (&[Step::ByteLevelWithSplit], false, "gpt-2"),
    (&[Step::Digits, Step::ByteLevelWithSplit], false, "smollm"),
];

/// The name of the pre-tokenizer of a byte-level BPE tokenizer.json; in the error, what was found.
pub(super) fn recognize(tokenizer: &Value) -> Result<&'static str, String> {
    check_normalizer(&tokenizer["normalizer"])?;
    let steps = steps_of(&tokenizer["pre_tokenizer"])?;
    let ignore_merges = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let known = KNOWN.iter().find(|(s, i, _)| *s == steps.as_slice() && *i == ignore_merges);
    known.map(|&(_, _, name)| name).ok_or_else(|| {
        let names: Vec<_> = KNOWN.iter().map(|(_, _, name)| *name).collect();
        format!("pre-tokenizer {steps:?} with ignore_merges {ignore_merges} (known are those of {})", names.join(", "))
    })
}

/// llama.cpp normalizes nothing. NFC (Qwen) changes only text that is not composed yet, and its converter drops it too.
fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    match normalizer["type"].as_str() {
        None if normalizer.is_null() => Ok(()),
        Some("NFC") => Ok(()),
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
            parts.iter().try_for_each(check_normalizer)
        }
        _ => Err(format!("normalizer {}", short(normalizer))),
    }
}

fn steps_of(pre_tokenizer: &Value) -> Result<Vec<Step<'_>>, String> {
    let unknown = || format!("pre-tokenizer {}", short(pre_tokenizer));
    let flag = |name: &str| pre_tokenizer[name].as_bool();
    match pre_tokenizer["type"].as_str() {
        Some("Sequence") => {
            let parts = pre_tokenizer["pretokenizers"].as_array().ok_or_else(unknown)?;
            let mut steps = Vec::with_capacity(parts.len());
            for part in parts {
                steps.extend(steps_of(part)?);
            }
            Ok(steps)
        }
        Some("Split") => match pre_tokenizer["pattern"]["Regex"].as_str() {
            // "Removed" with inverted matches keeps exactly the matches, as "Isolated" does where the pattern covers all text.
            Some(regex)
                if matches!(
                    (pre_tokenizer["behavior"].as_str(), flag("invert").unwrap_or(false)),
                    (Some("Isolated"), false) | (Some("Removed"), true)
                ) =>
            {
                Ok(vec![Step::Split(regex)])
            }
            _ => Err(unknown()),
        },
        Some("Digits") if flag("individual_digits") == Some(true) => Ok(vec![Step::Digits]),
        Some("ByteLevel") if flag("add_prefix_space") != Some(true) => {
            Ok(vec![match flag("use_regex").unwrap_or(true) {
                true => Step::ByteLevelWithSplit,
                false => Step::ByteLevel,
            }])
        }
        _ => Err(unknown()),
    }
}

/// JSON for a message, not longer than a line.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(160) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn split(regex: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    }

    fn byte_level(use_regex: bool) -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
    }

    fn sequence(parts: &[Value]) -> Value {
        json!({"type": "Sequence", "pretokenizers": parts})
    }

    #[test]
    fn recognizes_or_refuses() {
        let digits = json!({"type": "Digits", "individual_digits": true});
        for (pre, normalizer, ignore_merges, expected) in [
            (sequence(&[split(LLAMA3), byte_level(false)]), Value::Null, true, Some("llama-bpe")),
            (sequence(&[split(LLAMA3), byte_level(false)]), Value::Null, false, Some("smaug-bpe")),
            (sequence(&[split(QWEN2), byte_level(false)]), json!({"type": "NFC"}), false, Some("qwen2")),
            (sequence(&[split(QWEN2), byte_level(false)]), json!({"type": "Lowercase"}), false, None),
            (sequence(&[split(QWEN2), byte_level(true)]), Value::Null, false, None),
            (sequence(&[split(TEKKEN), byte_level(false)]), Value::Null, true, Some("tekken")),
            (byte_level(true), Value::Null, false, Some("gpt-2")),
            (sequence(&[digits, byte_level(true)]), Value::Null, false, Some("smollm")),
            (sequence(&[split(r"\p{N}"), byte_level(false)]), Value::Null, false, None),
            (json!({"type": "Whitespace"}), Value::Null, false, None),
            (Value::Null, Value::Null, false, None),
        ] {
            let tokenizer = json!({
                "pre_tokenizer": pre, "normalizer": normalizer, "model": {"ignore_merges": ignore_merges}
            });
            assert_eq!(recognize(&tokenizer).ok(), expected, "{tokenizer}");
        }
    }
}
