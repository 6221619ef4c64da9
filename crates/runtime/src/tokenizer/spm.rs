//! SentencePiece's BPE, the tokenizer of Llama 1 and 2: characters joined pair by pair, the pair whose token has the highest score first.
//!
//! Kudo, Richardson, "SentencePiece" (arXiv 1808.06226); google/sentencepiece `src/bpe_model.cc`; equal to llama.cpp's `llm_tokenizer_spm_session`.
//! Spaces are written U+2581; what has no token falls back to its bytes, `<0xXX>`.

use super::TokenizerError;
use super::vocab::{TokenKind, Vocab, byte_of_token};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The mark of a space in a token's text.
const SPACE: &str = "\u{2581}";

/// Scores and byte tokens of a vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Spm {
    scores: Vec<f32>,
    byte_tokens: [Option<u32>; 256],
    unknown: Option<u32>,
}

impl Spm {
    /// `scores` has one finite number per token.
    pub(crate) fn new(vocab: &Vocab, scores: Vec<f32>, unknown: Option<u32>) -> Self {
        let byte_tokens = std::array::from_fn(|byte| {
            let byte = byte as u8;
            // A vocabulary without byte tokens may have the bytes of ASCII as characters.
            vocab.find(&format!("<0x{byte:02X}>")).or_else(|| {
                let plain = byte.is_ascii().then(|| char::from(byte))?;
                vocab.find(plain.encode_utf8(&mut [0; 4]))
            })
        });
        Self { scores, byte_tokens, unknown }
    }

    /// Appends the ids of `text`, in which no special token is looked for; `space_before` puts a space in front.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        space_before: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut marked = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if space_before {
            marked.push_str(SPACE);
        }
        for c in text.chars() {
            if c == ' ' { marked.push_str(SPACE) } else { marked.push(c) }
        }
        let mut chain = Chain { text: &marked, links: links(&marked), queue: BinaryHeap::new(), spm: self, vocab };
        chain.join();
        for link in chain.links.iter().filter(|link| link.len > 0) {
            let piece = &marked[link.start as usize..(link.start + link.len) as usize];
            match vocab.find(piece) {
                Some(id) => ids.push(id),
                None => {
                    for byte in piece.bytes() {
                        let id = self.byte_tokens[usize::from(byte)].or(self.unknown);
                        ids.push(id.ok_or(TokenizerError::NoToken { byte })?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bytes one token stands for. A space in front of a text, put there by the tokenizer, is still there.
pub(crate) fn piece(vocab: &Vocab, id: u32) -> Vec<u8> {
    let text = vocab.text(id);
    match vocab.kind(id) {
        TokenKind::Normal => text.replace(SPACE, " ").into_bytes(),
        TokenKind::Byte => byte_of_token(text).map_or_else(|| text.as_bytes().to_vec(), |byte| vec![byte]),
        TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined => text.as_bytes().to_vec(),
        TokenKind::Unused => Vec::new(),
    }
}

/// A run of characters of the text; empty once joined to the left.
#[derive(Clone, Copy)]
struct Link {
    start: u32,
    len: u32,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

fn links(text: &str) -> Vec<Link> {
    let mut links: Vec<Link> = (0..)
        .zip(text.char_indices())
        .map(|(i, (start, c)): (u32, _)| Link {
            start: start as u32,
            len: c.len_utf8() as u32,
            previous: i.wrapping_sub(1),
            next: i + 1,
        })
        .collect();
    if let Some(last) = links.last_mut() {
        last.next = NONE;
    }
    links
}

struct Join {
    score: f32,
    left: u32,
    right: u32,
    /// Bytes of the result: tells a stale entry.
    len: u32,
}

impl Ord for Join {
    /// The highest score first, then from the left.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Join {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Join {}

struct Chain<'a> {
    text: &'a str,
    links: Vec<Link>,
    queue: BinaryHeap<Join>,
    spm: &'a Spm,
    vocab: &'a Vocab,
}

impl Chain<'_> {
    fn offer(&mut self, left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (self.links[left as usize], self.links[right as usize]);
        let len = a.len + b.len;
        let Some(id) = self.vocab.find(&self.text[a.start as usize..(a.start + len) as usize]) else { return };
        let score = self.spm.scores.get(id as usize).copied().unwrap_or(0.0);
        self.queue.push(Join { score, left, right, len });
    }

    fn join(&mut self) {
        for right in 1..self.links.len() as u32 {
            self.offer(right - 1, right);
        }
        while let Some(join) = self.queue.pop() {
            let (left, right) = (self.links[join.left as usize], self.links[join.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != join.len {
                continue;
            }
            self.links[join.left as usize] = Link { len: join.len, next: right.next, ..left };
            self.links[join.right as usize].len = 0;
            if let Some(after) = self.links.get_mut(right.next as usize) {
                after.previous = join.left;
            }
            self.offer(left.previous, join.left);
            self.offer(join.left, right.next);
        }
    }
}
