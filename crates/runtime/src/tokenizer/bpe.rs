//! Byte-level BPE: bytes joined pair by pair, the pair of the lowest rank first, the leftmost of equals.
//!
//! Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909), over bytes as in GPT-2. Equal to
//! llama.cpp's `llm_tokenizer_bpe_session` and to `tokenizers`' `BPE`.

use super::pre_tokenizer::PreTokenizer;
use super::vocab::{Interner, TokenKind, Vocab};
use super::{TokenizerError, byte_level};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A symbol is a string that merges can reach: the tokens under their ids, then strings that are no token.
type Symbol = u32;

/// The merges of a vocabulary.
#[derive(Clone, Debug)]
pub(crate) struct Bpe {
    /// Rank and result of joining two symbols.
    merges: HashMap<(Symbol, Symbol), (u32, Symbol)>,
    symbols: Interner,
    byte_symbols: [Symbol; 256],
    pre: PreTokenizer,
}

/// Words up to this long are remembered within a text: most words of a text are repeated.
const REMEMBERED_WORD: usize = 32;

impl Bpe {
    /// Reads merges, `"left right"` in order of rank.
    pub(crate) fn new<'a>(
        vocab: &Vocab,
        key: &str,
        merges: impl ExactSizeIterator<Item = &'a [u8]>,
        pre: PreTokenizer,
    ) -> Result<Self, TokenizerError> {
        let mut symbols = vocab.interner();
        let mut table = HashMap::with_capacity(merges.len());
        let mut joined = Vec::new();
        let full = || TokenizerError::malformed(key, "fewer symbols", "more than 2^27");
        for (rank, merge) in merges.enumerate() {
            // A space can be the first character of the left half, never of the right one.
            let at = merge.iter().skip(1).position(|&b| b == b' ').map(|i| i + 1);
            let halves = at.map(|at| (&merge[..at], &merge[at + 1..])).filter(|(_, right)| !right.is_empty());
            let Some((left, right)) = halves else {
                let found = format!("{:?} as merge {rank}", String::from_utf8_lossy(merge));
                return Err(TokenizerError::malformed(key, "two strings with a space between", found));
            };
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let mut symbol = |text: &[u8]| symbols.insert(text).map(|(id, _)| id).ok_or_else(full);
            let entry = (symbol(left)?, symbol(right)?);
            let result = symbol(&joined)?;
            // Of two equal merges the first counts.
            table.entry(entry).or_insert((rank as u32, result));
        }
        let mut byte_symbols = [0; 256];
        for (byte, slot) in byte_symbols.iter_mut().enumerate() {
            let mut utf8 = [0; 4];
            let text = byte_level::char_of(byte as u8).encode_utf8(&mut utf8);
            *slot = symbols.insert(text.as_bytes()).ok_or_else(full)?.0;
        }
        Ok(Self { merges: table, symbols, byte_symbols, pre })
    }

    /// Appends the ids of `text`, in which no special token is looked for.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) {
        let mut known: HashMap<&str, (u32, u32)> = HashMap::new();
        let mut chain = Chain::default();
        self.pre.split(text, &mut |word| {
            if let Some(&(start, end)) = known.get(word) {
                ids.extend_from_within(start as usize..end as usize);
                return;
            }
            let start = ids.len();
            self.encode_word(vocab, word, &mut chain, ids);
            if word.len() <= REMEMBERED_WORD {
                known.insert(word, (start as u32, ids.len() as u32));
            }
        });
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, chain: &mut Chain, ids: &mut Vec<u32>) {
        if self.pre.ignore_merges {
            let text: String = word.bytes().map(byte_level::char_of).collect();
            if let Some(id) = vocab.find(&text) {
                ids.push(id);
                return;
            }
        }
        chain.start(word.bytes().map(|b| self.byte_symbols[usize::from(b)]));
        chain.join(&self.merges);
        for symbol in chain.symbols() {
            if (symbol as usize) < vocab.len() {
                ids.push(symbol);
            } else {
                self.encode_without_token(vocab, symbol, ids);
            }
        }
    }

    /// A symbol that is no token: its bytes one by one. A byte that has no token is left out, as by llama.cpp and `tokenizers`: Falcon's vocabulary,
    /// for one, lacks control characters.
    fn encode_without_token(&self, vocab: &Vocab, symbol: Symbol, ids: &mut Vec<u32>) {
        let text = String::from_utf8_lossy(self.symbols.get(symbol));
        ids.extend(text.chars().filter_map(|c| vocab.find(c.encode_utf8(&mut [0; 4]))));
    }
}

/// The bytes one token stands for.
pub(crate) fn piece(vocab: &Vocab, id: u32) -> Vec<u8> {
    let text = vocab.text(id);
    match vocab.kind(id) {
        TokenKind::Normal => byte_level::decode(text),
        TokenKind::Byte => super::vocab::byte_of_token(text).map_or_else(|| byte_level::decode(text), |b| vec![b]),
        TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined => text.as_bytes().to_vec(),
        TokenKind::Unused => Vec::new(),
    }
}

/// Symbols in a doubly linked list, and the joins that are possible between them.
#[derive(Default)]
struct Chain {
    links: Vec<Link>,
    queue: BinaryHeap<Reverse<Join>>,
}

#[derive(Clone, Copy)]
struct Link {
    /// `None` once joined to the left.
    symbol: Option<Symbol>,
    previous: u32,
    next: u32,
}

/// Ordered by rank, then from the left. What follows makes a stale entry recognizable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Join {
    rank: u32,
    left: u32,
    right: u32,
    symbols: (Symbol, Symbol),
    result: Symbol,
}

const NONE: u32 = u32::MAX;

impl Chain {
    fn start(&mut self, symbols: impl Iterator<Item = Symbol>) {
        self.links.clear();
        self.queue.clear();
        for (i, symbol) in symbols.enumerate() {
            let i = i as u32;
            self.links.push(Link { symbol: Some(symbol), previous: i.wrapping_sub(1), next: i + 1 });
        }
        if let Some(last) = self.links.last_mut() {
            last.next = NONE;
        }
    }

    fn offer(&mut self, left: u32, right: u32, merges: &HashMap<(Symbol, Symbol), (u32, Symbol)>) {
        if left == NONE || right == NONE {
            return;
        }
        let (Some(a), Some(b)) = (self.links[left as usize].symbol, self.links[right as usize].symbol) else { return };
        if let Some(&(rank, result)) = merges.get(&(a, b)) {
            self.queue.push(Reverse(Join { rank, left, right, symbols: (a, b), result }));
        }
    }

    fn join(&mut self, merges: &HashMap<(Symbol, Symbol), (u32, Symbol)>) {
        for right in 1..self.links.len() as u32 {
            self.offer(right - 1, right, merges);
        }
        while let Some(Reverse(join)) = self.queue.pop() {
            let (left, right) = (self.links[join.left as usize], self.links[join.right as usize]);
            if (left.symbol, right.symbol) != (Some(join.symbols.0), Some(join.symbols.1)) {
                continue;
            }
            self.links[join.left as usize] = Link { symbol: Some(join.result), next: right.next, ..left };
            self.links[join.right as usize].symbol = None;
            if let Some(after) = self.links.get_mut(right.next as usize) {
                after.previous = join.left;
            }
            self.offer(left.previous, join.left, merges);
            self.offer(join.left, right.next, merges);
        }
    }

    fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        self.links.iter().filter_map(|link| link.symbol)
    }
}
