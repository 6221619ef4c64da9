//! Keys and values of the tokens seen so far, f32, growing on demand.

/// The cache of one sequence.
#[derive(Debug)]
pub struct KvCache {}

#[allow(unused_variables, clippy::todo)]
impl KvCache {
    /// Tokens held.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Forgets all tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        todo!()
    }
    /// Bytes a token costs.
    pub fn bytes_per_token(&self) -> usize {
        todo!()
    }
}
