//! The tokens of a GGUF file: texts, kinds, and lookup by text.

use super::TokenizerError;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// What a token is (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// 1: text.
    Normal,
    /// 2: stands for what has no token.
    Unknown,
    /// 3: a mark of the format, such as BOS; not a part of the text.
    Control,
    /// 4: text that is always one token.
    UserDefined,
    /// 5: never made from text.
    Unused,
    /// 6: one byte, `<0xXX>`.
    Byte,
}

impl TokenKind {
    /// Kind of this number; `None` if there is no such kind (0 is llama.cpp's "undefined": it is read as unused).
    pub(crate) fn from_number(n: i64) -> Option<Self> {
        Some(match n {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            0 | 5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// True for tokens that are no text: they are left out of decoded text unless asked for.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Byte strings with ids in order of insertion, found by content. One buffer and one table, so that 150,000 tokens cost two allocations.
#[derive(Clone, Debug)]
pub(crate) struct Interner {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Open addressing, a power of two long, never more than half full; `EMPTY` or an id.
    slots: Vec<u32>,
    /// Keyed at random, so that a file cannot be made to collide.
    hasher: RandomState,
}

const EMPTY: u32 = u32::MAX;

impl Interner {
    pub(crate) fn with_capacity(strings: usize) -> Self {
        let slots = strings.saturating_mul(2).next_power_of_two().clamp(16, 1 << 28);
        Self { bytes: Vec::new(), ends: Vec::new(), slots: vec![EMPTY; slots], hasher: RandomState::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The string of this id; empty for an id that is not there.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The slot that holds `text`, or the free one where it belongs.
    fn slot(&self, text: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        loop {
            let id = self.slots[slot];
            if id == EMPTY || self.get(id) == text {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        let id = self.slots[self.slot(text)];
        (id != EMPTY).then_some(id)
    }

    /// The id of `text`, new or old, and whether it is new. `None` when the table is full (4 GiB of text or 2^27 strings).
    pub(crate) fn insert(&mut self, text: &[u8]) -> Option<(u32, bool)> {
        let slot = self.slot(text);
        if self.slots[slot] != EMPTY {
            return Some((self.slots[slot], false));
        }
        let end = u32::try_from(self.bytes.len().checked_add(text.len())?).ok()?;
        let id = u32::try_from(self.ends.len()).ok().filter(|&id| id < 1 << 27)?;
        self.bytes.extend_from_slice(text);
        self.ends.push(end);
        self.slots[slot] = id;
        if self.ends.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some((id, true))
    }

    fn grow(&mut self) {
        self.slots = vec![EMPTY; self.slots.len() * 2];
        for id in 0..self.ends.len() as u32 {
            let slot = self.slot(self.get(id));
            self.slots[slot] = id;
        }
    }
}

/// The vocabulary of a GGUF file.
#[derive(Clone, Debug)]
pub(crate) struct Vocab {
    texts: Interner,
    kinds: Vec<TokenKind>,
}

impl Vocab {
    /// Collects tokens. Two tokens of the same text cannot be told apart: an error.
    pub(crate) fn new<'a>(
        key: &str,
        texts: impl ExactSizeIterator<Item = &'a [u8]>,
        kinds: Vec<TokenKind>,
    ) -> Result<Self, TokenizerError> {
        let mut interner = Interner::with_capacity(texts.len());
        for (i, text) in texts.enumerate() {
            // llama.cpp's name for a token without text, so that its id keeps its place.
            let stand_in = if text.is_empty() { format!("[EMPTY_{i}]") } else { String::new() };
            let text = if text.is_empty() { stand_in.as_bytes() } else { text };
            if let Err(e) = std::str::from_utf8(text) {
                return Err(TokenizerError::NotUtf8 { what: format!("token {i} of `{key}`"), at: e.valid_up_to() });
            }
            match interner.insert(text) {
                Some((_, true)) => {}
                Some((first, false)) => {
                    let text = String::from_utf8_lossy(text);
                    let found = format!("{text:?} as token {first} and as token {i}");
                    return Err(TokenizerError::malformed(key, "every token once", found));
                }
                None => {
                    return Err(TokenizerError::malformed(key, "at most 2^27 tokens, 4 GiB of text", format!("{i}")));
                }
            }
        }
        Ok(Self { texts: interner, kinds })
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The token's text as in the file. All texts were checked to be UTF-8.
    pub(crate) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.texts.get(id)).unwrap_or_default()
    }

    pub(crate) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    pub(crate) fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.texts.find(text.as_bytes())
    }

    /// Tokens that are no plain text and no byte: `<0x0A>` has kind `Byte`.
    pub(crate) fn specials(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        (0..self.len() as u32)
            .map(|id| (id, self.text(id), self.kind(id)))
            .filter(|(_, _, kind)| matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown))
    }

    /// A copy of the texts, to which strings that are no tokens can be added.
    pub(crate) fn interner(&self) -> Interner {
        self.texts.clone()
    }

    pub(crate) fn check_id(&self, id: u32) -> Result<(), TokenizerError> {
        if (id as usize) < self.len() { Ok(()) } else { Err(TokenizerError::NoSuchId { id, vocab_size: self.len() }) }
    }
}

/// The byte of a byte token's text, `<0xXX>`.
pub(crate) fn byte_of_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()) { u8::from_str_radix(hex, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interner_finds_what_it_was_given() {
        let mut interner = Interner::with_capacity(0);
        for i in 0..1000u32 {
            assert_eq!(interner.insert(format!("t{i}").as_bytes()), Some((i, true)));
        }
        assert_eq!(interner.insert(b"t17"), Some((17, false)));
        assert_eq!(interner.find(b"t999"), Some(999));
        assert_eq!(interner.find(b"t1000"), None);
        assert_eq!(interner.get(0), b"t0");
        assert_eq!(interner.get(5000), b"");
    }

    #[test]
    fn duplicate_is_named() {
        let kinds = vec![TokenKind::Normal; 3];
        let texts: [&[u8]; 3] = [b"a", b"b", b"a"];
        let error = Vocab::new("tokens", texts.into_iter(), kinds).unwrap_err().to_string();
        assert_eq!(error, "`tokens`: expected every token once, found \"a\" as token 0 and as token 2");
    }

    #[test]
    fn byte_tokens() {
        for (text, byte) in
            [("<0x0A>", Some(10)), ("<0xff>", Some(255)), ("<0x0>", None), ("<0x+1>", None), ("0x0A", None)]
        {
            assert_eq!(byte_of_token(text), byte, "{text}");
        }
    }
}
