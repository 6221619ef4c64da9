//! Special tokens in a text: cut out before anything else is tokenized.
//!
//! llama.cpp's rule (`tokenizer_st_partition`): the longest token first, everywhere in the text, then the next in what is left. User-defined tokens
//! are always looked for, control and unknown tokens only where the caller lets text stand for them.

use super::vocab::{TokenKind, Vocab};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    /// Text without special tokens.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// The special tokens of a vocabulary, longest first.
#[derive(Clone, Debug)]
pub(crate) struct SpecialTokens {
    tokens: Vec<Special>,
}

#[derive(Clone, Debug)]
struct Special {
    id: u32,
    text: String,
    /// Only where text may stand for special tokens.
    control: bool,
    /// Takes the white space after it along (Phi-3).
    strips_right: bool,
}

/// Which pairs of adjacent bytes a text has: most special tokens have one that the text has not, and need no search.
struct BytePairs(Box<[u64; 1024]>);

impl BytePairs {
    fn of(text: &str) -> Self {
        let mut bits = Box::new([0; 1024]);
        for pair in text.as_bytes().windows(2) {
            let n = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            bits[n / 64] |= 1 << (n % 64);
        }
        Self(bits)
    }

    fn may_contain(&self, token: &str) -> bool {
        token.as_bytes().windows(2).all(|pair| {
            let n = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            self.0[n / 64] >> (n % 64) & 1 == 1
        })
    }
}

impl SpecialTokens {
    /// `strips_right` tells the tokens that take white space after them along.
    pub(crate) fn new(vocab: &Vocab, strips_right: impl Fn(&str) -> bool) -> Self {
        let mut tokens: Vec<Special> = vocab
            .specials()
            .map(|(id, text, kind)| Special {
                id,
                text: text.to_owned(),
                control: kind != TokenKind::UserDefined,
                strips_right: strips_right(text),
            })
            .collect();
        tokens.sort_by_key(|t| std::cmp::Reverse(t.text.len()));
        Self { tokens }
    }

    /// The text in order, special tokens apart. No fragment is empty.
    pub(crate) fn partition<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        if text.is_empty() {
            return Vec::new();
        }
        let pairs = BytePairs::of(text);
        let mut fragments = vec![Fragment::Text(text)];
        for token in &self.tokens {
            let wanted = parse_special || !token.control;
            if !wanted || !pairs.may_contain(&token.text) || !text.contains(&token.text) {
                continue;
            }
            let mut cut = Vec::with_capacity(fragments.len() + 2);
            for fragment in fragments {
                match fragment {
                    Fragment::Text(text) => token.cut(text, &mut cut),
                    Fragment::Token(_) => cut.push(fragment),
                }
            }
            fragments = cut;
        }
        fragments
    }
}

impl Special {
    fn cut<'t>(&self, mut text: &'t str, out: &mut Vec<Fragment<'t>>) {
        while let Some((before, after)) = text.split_once(self.text.as_str()) {
            if !before.is_empty() {
                out.push(Fragment::Text(before));
            }
            out.push(Fragment::Token(self.id));
            // C's `isspace`.
            text = if self.strips_right {
                after.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
            } else {
                after
            };
        }
        if !text.is_empty() {
            out.push(Fragment::Text(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials(strips_right: bool) -> SpecialTokens {
        use TokenKind::{Control, Normal, UserDefined};
        let tokens = [("a", Normal), ("<s>", Control), ("<s><s>", Control), ("<tab>", UserDefined)];
        let texts = tokens.iter().map(|t| t.0.as_bytes());
        let vocab = Vocab::new("tokens", texts, tokens.iter().map(|t| t.1).collect()).expect("good");
        SpecialTokens::new(&vocab, |text| strips_right && text == "<s>")
    }

    #[test]
    fn partitions() {
        use Fragment::{Text, Token};
        let cases: &[(&str, bool, bool, &[Fragment<'_>])] = &[
            ("", true, false, &[]),
            ("a", true, false, &[Text("a")]),
            ("<s>a", true, false, &[Token(1), Text("a")]),
            ("<s>a", false, false, &[Text("<s>a")]),
            ("<tab>a<s>", false, false, &[Token(3), Text("a<s>")]),
            // The longest first, even where a shorter one begins earlier.
            ("x<s><s><s>", true, false, &[Text("x"), Token(2), Token(1)]),
            ("<s> \n a <s>", true, true, &[Token(1), Text("a "), Token(1)]),
            ("<s> ", true, true, &[Token(1)]),
        ];
        for (text, parse, strip, expected) in cases {
            assert_eq!(specials(*strip).partition(text, *parse), *expected, "{text:?}");
        }
    }
}
