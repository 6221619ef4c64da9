//! What generation needs of a model.

use crate::{CacheChoice, KvCache, LogitRows, Model, Result};

/// A model that continues tokens. [`Model`] is one; tests bring their own.
pub trait LanguageModel {
    /// What the model keeps of the tokens it has seen.
    type Cache: std::fmt::Debug;

    /// An empty cache, with keys and values stored as `choice` says.
    ///
    /// # Errors
    /// A choice that the model cannot follow.
    fn new_cache(&self, choice: CacheChoice) -> Result<Self::Cache>;

    /// Forgets all tokens from `len` on, or all where the cache cannot do that. Gives the number of tokens left.
    fn truncate(cache: &mut Self::Cache, len: usize) -> usize;

    /// Tokens a sequence can have.
    fn max_context(&self) -> usize;

    /// Appends `tokens` to the cache; if `wanted`, the logits of what follows the last of them, one for each id.
    ///
    /// # Errors
    /// A token outside the vocabulary; a failed computation.
    fn next_logits(&self, tokens: &[u32], cache: &mut Self::Cache, wanted: bool) -> Result<Vec<f32>>;
}

impl LanguageModel for Model {
    type Cache = KvCache;

    fn new_cache(&self, choice: CacheChoice) -> Result<KvCache> {
        self.new_cache_of(choice)
    }

    fn truncate(cache: &mut KvCache, len: usize) -> usize {
        cache.truncate(len)
    }

    fn max_context(&self) -> usize {
        self.config().max_context
    }

    fn next_logits(&self, tokens: &[u32], cache: &mut KvCache, wanted: bool) -> Result<Vec<f32>> {
        let rows = if wanted { LogitRows::Last } else { LogitRows::None };
        let logits = self.forward(tokens, cache, rows)?;
        Ok(if wanted { logits.flatten_all()?.to_vec1()? } else { Vec::new() })
    }
}
