//! The few facts about a model that the rule asks for.

use crate::{Metadata, Result};

/// What the rule needs to know of a model beyond its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// `ARCH.block_count`.
    pub block_count: usize,
    /// Query heads per key/value head of the first layer, rounded down; 0 where it has none.
    pub heads_per_kv_head: u64,
    /// `ARCH.expert_count`, 0 where there is none.
    pub expert_count: u64,
    /// llama.cpp's size class "70B", which keeps more bits in `attn_v`.
    pub is_70b: bool,
}

impl ModelFacts {
    /// A dense model with as many key/value heads as heads.
    pub fn new(architecture: impl Into<String>, block_count: usize) -> Self {
        let mut facts = Self {
            architecture: architecture.into(),
            block_count,
            heads_per_kv_head: 1,
            expert_count: 0,
            is_70b: false,
        };
        facts.is_70b = facts.looks_like_70b();
        facts
    }

    /// Sets the heads of the first layer.
    #[must_use]
    pub fn with_heads(mut self, heads: u64, kv_heads: u64) -> Self {
        self.heads_per_kv_head = heads.checked_div(kv_heads).unwrap_or(0);
        self.is_70b = self.looks_like_70b();
        self
    }

    /// Sets the number of experts.
    #[must_use]
    pub fn with_experts(mut self, experts: u64) -> Self {
        self.expert_count = experts;
        self.is_70b = self.looks_like_70b();
        self
    }

    /// Reads the facts from the metadata of a GGUF file.
    ///
    /// # Errors
    /// `general.architecture` or `ARCH.block_count` is missing, or a key has another type than llama.cpp writes.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let architecture = metadata.need_str("general.architecture")?;
        let key = |name: &str| format!("{architecture}.{name}");
        let block_count = metadata.need_u64(&key("block_count"))?;
        let heads = first_of(metadata, &key("attention.head_count"))?.unwrap_or(0);
        let kv_heads = first_of(metadata, &key("attention.head_count_kv"))?.unwrap_or(heads);
        let experts = metadata.get_u64(&key("expert_count"))?.unwrap_or(0);
        let blocks = usize::try_from(block_count).unwrap_or(usize::MAX);
        Ok(Self::new(architecture, blocks).with_heads(heads, kv_heads).with_experts(experts))
    }

    /// The classes of src/models/{llama,qwen2,deci,olmo,jais2}.cpp named `LLM_TYPE_70B`.
    fn looks_like_70b(&self) -> bool {
        match (self.architecture.as_str(), self.block_count) {
            ("llama", 80) => self.expert_count != 8 && self.heads_per_kv_head != 1,
            ("qwen2" | "deci" | "olmo", 80) => true,
            ("jais2", 68) => true,
            _ => false,
        }
    }
}

/// A count that is one number for all layers, or an array with one for each: the first layer's.
fn first_of(metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    match metadata.get_u64(key) {
        Ok(n) => Ok(n),
        Err(scalar) => match metadata.get_array(key) {
            Ok(Some(array)) => Ok(array.ints()?.next().and_then(|n| u64::try_from(n).ok())),
            _ => Err(scalar),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_class_70b() {
        for (architecture, blocks, heads, kv_heads, experts, expected) in [
            ("llama", 80, 64, 8, 0, true),
            ("llama", 80, 64, 64, 0, false),
            ("llama", 80, 64, 8, 8, false),
            ("llama", 32, 32, 8, 0, false),
            ("qwen2", 80, 64, 64, 0, true),
            ("qwen3", 80, 64, 8, 0, false),
            ("jais2", 68, 64, 8, 0, true),
        ] {
            let facts = ModelFacts::new(architecture, blocks).with_heads(heads, kv_heads).with_experts(experts);
            assert_eq!(facts.is_70b, expected, "{architecture} {blocks} {heads} {kv_heads} {experts}");
        }
    }
}
