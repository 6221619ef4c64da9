//! Text to token ids and back: from tokenizer.json, or from GGUF metadata.

use crate::{Checkpoint, Result};

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {}

#[allow(unused_variables, clippy::todo)]
impl Tokenizer {
    /// The tokenizer of a model.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        todo!()
    }
    /// Token ids. `add_special`: BOS/EOS where the model's own settings want them. `parse_special`: text such as `<|im_end|>` becomes the special token.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        todo!()
    }
    /// Text of ids; special tokens left out unless `keep_special`.
    pub fn decode(&self, ids: &[u32], keep_special: bool) -> Result<String> {
        todo!()
    }
    /// Bytes that one token stands for (a part of a character is possible); special tokens as their text.
    pub fn piece(&self, id: u32) -> Result<Vec<u8>> {
        todo!()
    }
    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }
    /// BOS, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        todo!()
    }
    /// True if the model wants BOS before a text.
    pub fn adds_bos(&self) -> bool {
        todo!()
    }
    /// Tokens that end a generation (EOS, end of turn).
    pub fn end_of_generation(&self) -> &[u32] {
        todo!()
    }
    /// The chat template's source, if the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        todo!()
    }
}
