//! Which tokens end a generation, for files whose metadata names only some of them.
//!
//! llama.cpp's rule (`llama_vocab::impl::load`): tokens of certain texts always end a generation, and are control tokens whatever the file says;
//! so do the end-of-sequence, end-of-turn and end-of-message tokens that the metadata names.

use super::vocab::{TokenKind, Vocab};

/// Ends of turns, messages and sequences by the text of the token.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Marks of fill-in-the-middle prompts after which nothing sensible follows.
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REPO: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_SEPARATOR: &[&str] = &["<|file_sep|>"];

/// Marks of fill-in-the-middle prompts that end nothing, but are control tokens.
const FIM_PARTS: &[&[&str]] = &[
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

/// Channels of gpt-oss: always shown as text.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The ids that a file's metadata names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NamedIds {
    pub(crate) eos: Option<u32>,
    pub(crate) eot: Option<u32>,
    pub(crate) eom: Option<u32>,
    pub(crate) fim_pad: Option<u32>,
    pub(crate) fim_repo: Option<u32>,
    pub(crate) fim_separator: Option<u32>,
}

/// The ids that end a generation, ascending. Corrects the kinds of tokens whose text says what they are.
pub(crate) fn end_of_generation(vocab: &mut Vocab, named: NamedIds) -> Vec<u32> {
    let mut ends: Vec<u32> = Vec::new();
    // Where the metadata names none, the first that the vocabulary has.
    for (named, texts) in [(named.fim_pad, FIM_PAD), (named.fim_repo, FIM_REPO), (named.fim_separator, FIM_SEPARATOR)] {
        ends.extend(named.or_else(|| control_by_text(vocab, texts)));
    }
    for texts in FIM_PARTS {
        control_by_text(vocab, texts);
    }
    for text in ENDS {
        ends.extend(control_by_text(vocab, &[text]));
    }
    ends.extend([named.eos, named.eot, named.eom].into_iter().flatten());
    for text in SHOWN {
        if let Some(id) = vocab.find(text) {
            vocab.set_kind(id, TokenKind::UserDefined);
        }
    }
    ends.sort_unstable();
    ends.dedup();

    let has = |ends: &[u32], text: &str| vocab.find(text).is_some_and(|id| ends.contains(&id));
    // gpt-oss and Solar end a message, not the generation, with <|end|>.
    let calls = has(&ends, "<|call|>") || has(&ends, "<|calls|>");
    let end_is_text = calls && (has(&ends, "<|return|>") || has(&ends, "<|flush|>"));
    // Gemma 4 and PLaMo have a token </s> that is plain text.
    let s_is_text = has(&ends, "<|tool_response>") || has(&ends, "<|plamo:eos|>");
    for (is_text, text, kind) in
        [(end_is_text, "<|end|>", TokenKind::UserDefined), (s_is_text, "</s>", TokenKind::Normal)]
    {
        if let Some(id) = vocab.find(text).filter(|_| is_text) {
            ends.retain(|&end| end != id);
            vocab.set_kind(id, kind);
        }
    }
    ends
}

/// The first of these texts that is a token, made a control token.
fn control_by_text(vocab: &mut Vocab, texts: &[&str]) -> Option<u32> {
    let id = texts.iter().find_map(|text| vocab.find(text))?;
    vocab.set_kind(id, TokenKind::Control);
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocab(texts: &[&str]) -> Vocab {
        Vocab::new("tokens", texts.iter().map(|t| t.as_bytes()), vec![TokenKind::Normal; texts.len()]).expect("good")
    }

    #[test]
    fn ends_by_text_and_by_name() {
        let cases: &[(&[&str], Option<u32>, &[u32])] = &[
            (&["a", "<|im_end|>", "<|endoftext|>"], Some(0), &[0, 1, 2]),
            (&["a", "b"], None, &[]),
            (&["<|repo_name|>", "<|file_sep|>", "<|fim_pad|>", "<|fim_prefix|>"], None, &[0, 1, 2]),
            (&["<|return|>", "<|call|>", "<|end|>"], None, &[0, 1]),
            (&["</s>", "<|tool_response>"], None, &[1]),
        ];
        for (texts, eos, expected) in cases {
            let named = NamedIds { eos: *eos, ..NamedIds::default() };
            assert_eq!(end_of_generation(&mut vocab(texts), named), *expected, "{texts:?}");
        }
    }

    #[test]
    fn kinds_are_corrected() {
        let mut vocab = vocab(&["<|im_end|>", "<|fim_prefix|>", "<|channel|>", "plain"]);
        end_of_generation(&mut vocab, NamedIds::default());
        let kinds: Vec<TokenKind> = (0..4).map(|id| vocab.kind(id)).collect();
        use TokenKind::{Control, Normal, UserDefined};
        assert_eq!(kinds, [Control, Control, UserDefined, Normal]);
    }
}
