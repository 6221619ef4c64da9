//! Where logits come from: a model, a file, memory.

use super::LogitsFile;
use crate::{CacheChoice, KvCache, LogitRows, Model, Result};
use candle_core::{DType, Device, Storage, Tensor};
use std::ops::Range;

/// Logits of some positions of one sequence, row-major.
#[derive(Debug)]
pub enum Logits {
    /// As a model returns them.
    Tensor(Tensor),
    /// Read from elsewhere.
    Values(Vec<f32>),
}

impl Logits {
    /// Calls `f` with the values, `[rows, vocab]` flattened, without copying them where they lie contiguous in memory.
    ///
    /// # Errors
    /// What `f` returns, or a failed conversion of the tensor.
    pub fn with_values<T>(&self, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
        let tensor = match self {
            Self::Values(values) => return f(values),
            Self::Tensor(t) => t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?,
        };
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, layout.contiguous_offsets())
            && let Some(values) = cpu.as_slice::<f32>()?.get(start..end)
        {
            return f(values);
        }
        drop(storage);
        f(&tensor.flatten_all()?.to_vec1::<f32>()?)
    }
}

/// Gives the logits of sequences.
pub trait LogitSource {
    /// Length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Logits after the positions `rows` of sequence number `index` of the plan, whose tokens are `tokens`.
    ///
    /// # Errors
    /// Whatever hinders: a token outside the vocabulary, a sequence longer than the model's context, a file that ends.
    fn logits(&mut self, index: usize, tokens: &[u32], rows: Range<usize>) -> Result<Logits>;

    /// Bytes that a token costs in the key/value cache; `None` where there is no cache.
    fn cache_bytes_per_token(&self) -> Option<usize> {
        None
    }
}

/// A model, run on every sequence from an empty cache.
#[derive(Debug)]
pub struct ModelLogits<'a> {
    model: &'a Model,
    cache: KvCache,
}

impl<'a> ModelLogits<'a> {
    /// Logits of `model`.
    pub fn new(model: &'a Model) -> Self {
        Self { model, cache: model.new_cache() }
    }

    /// The same with keys and values stored as `choice` says, from the first token on.
    ///
    /// # Errors
    /// As [`Model::new_cache_of`].
    pub fn with_cache(model: &'a Model, choice: CacheChoice) -> Result<Self> {
        Ok(Self { model, cache: model.new_cache_of(choice)? })
    }
}

impl LogitSource for ModelLogits<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn logits(&mut self, _index: usize, tokens: &[u32], rows: Range<usize>) -> Result<Logits> {
        // What follows the last row asked for cannot change it.
        let tokens = tokens.get(..rows.end).unwrap_or(tokens);
        self.cache.truncate(0);
        Ok(Logits::Tensor(self.model.forward(tokens, &mut self.cache, LogitRows::From(rows.start))?))
    }

    fn cache_bytes_per_token(&self) -> Option<usize> {
        Some(self.cache.bytes_per_token())
    }
}

/// Logits of another source kept in memory, for a base that several models are compared with. Holds the scored rows only.
#[derive(Debug)]
pub struct MemoryLogits {
    vocab: usize,
    sequences: Vec<(Range<usize>, Vec<f32>)>,
}

impl MemoryLogits {
    /// Runs `source` over a plan and keeps the scored rows.
    ///
    /// # Errors
    /// As `source`.
    pub fn collect(plan: &super::EvalPlan, source: &mut dyn LogitSource) -> Result<Self> {
        let mut sequences = Vec::with_capacity(plan.sequences().len());
        for (i, s) in plan.sequences().iter().enumerate() {
            let values = source.logits(i, &s.tokens, s.scored.clone())?.with_values(|v| Ok(v.to_vec()))?;
            sequences.push((s.scored.clone(), values));
        }
        Ok(Self { vocab: source.vocab_size(), sequences })
    }
}

#[cfg(test)]
impl MemoryLogits {
    /// Pretends to come from a model with one token less.
    pub(super) fn shrink_vocab(&mut self) {
        self.vocab -= 1;
    }
}

impl LogitSource for MemoryLogits {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn logits(&mut self, index: usize, _tokens: &[u32], rows: Range<usize>) -> Result<Logits> {
        let held = self.sequences.get(index).and_then(|(held, values)| {
            let first = rows.start.checked_sub(held.start)?;
            values.get(first * self.vocab..first.checked_add(rows.len())? * self.vocab)
        });
        held.map(|v| Logits::Values(v.to_vec()))
            .ok_or_else(|| crate::Error::Usage(format!("logits of sequence {index}, rows {rows:?} were not kept")))
    }
}

impl LogitSource for LogitsFile {
    fn vocab_size(&self) -> usize {
        self.vocab()
    }

    fn logits(&mut self, index: usize, tokens: &[u32], rows: Range<usize>) -> Result<Logits> {
        self.rows_of(index, tokens, rows).map(Logits::Values)
    }
}
