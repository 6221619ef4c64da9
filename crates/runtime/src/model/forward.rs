//! The forward pass on candle's tensors: one definition for every device. Few tokens on the CPU go through [`super::few`].

use super::attention::Attention;
use super::few::FEW;
use super::ops::{gated_silu, rotated};
use super::{ActivationObserver, KvCache, LinearSite, LogitRows, Model};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Tokens that run together. Activations of more would not gain speed, only cost memory.
const PART: usize = 512;

impl Model {
    pub(super) fn run(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: LogitRows,
        mut observer: Option<&mut dyn ActivationObserver>,
    ) -> Result<Tensor> {
        let first_row = self.check(tokens, cache, logits)?;
        let before = cache.len();
        // A text's first pass is what somebody waits for, and a long one is as quick without it.
        if before > 0 && tokens.len() <= FEW {
            self.repack_a_piece();
        }
        let mut rows = Vec::new();
        for (i, part) in tokens.chunks(PART).enumerate() {
            // The rows of this part whose logits are asked for.
            let from = first_row.saturating_sub(i * PART).min(part.len());
            let observer = observer.as_mut().map(|o| &mut **o as &mut dyn ActivationObserver);
            let done = match observer {
                None if part.len() <= FEW && self.backend.own_kernels => self.run_few(part, cache, from),
                observer => self.run_part(part, cache, from, observer),
            };
            match done {
                Ok(part) => rows.extend(part),
                Err(e) => {
                    cache.truncate(before);
                    return Err(e);
                }
            }
        }
        match rows.as_slice() {
            [] => Ok(Tensor::zeros((0, self.config.vocab_size), DType::F32, &Device::Cpu)?),
            [one] => Ok(one.clone()),
            many => Ok(Tensor::cat(many, 0)?),
        }
    }

    /// Checks the arguments of `forward`; gives the index of the first token whose logits are asked for.
    fn check(&self, tokens: &[u32], cache: &KvCache, logits: LogitRows) -> Result<usize> {
        let usage = |text: String| Err(Error::Usage(text));
        if tokens.is_empty() {
            return usage("no tokens to run".into());
        }
        let vocab = self.config.vocab_size;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return usage(format!("token id {id}: the vocabulary has {vocab} tokens"));
        }
        if !cache.fits(&self.backend, &self.config) {
            return usage("the cache belongs to another model".into());
        }
        let (held, limit) = (cache.len(), cache.limit());
        if tokens.len() > limit.saturating_sub(held) {
            return usage(format!("{} tokens after {held} do not fit in a context of {limit}", tokens.len()));
        }
        let n = tokens.len();
        match logits {
            LogitRows::Last => Ok(n - 1),
            LogitRows::All => Ok(0),
            LogitRows::None => Ok(n),
            LogitRows::From(row) if row <= n => Ok(row),
            LogitRows::From(row) => usage(format!("logits from token {row} of {n}")),
        }
    }

    /// Runs up to `PART` tokens. Logits of those from `from` on, `None` if there are none.
    fn run_part(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        from: usize,
        mut observer: Option<&mut dyn ActivationObserver>,
    ) -> Result<Option<Tensor>> {
        let observed = observer.is_some();
        let mut observe = |site: LinearSite, x: &Tensor| match observer.as_mut() {
            Some(observer) => observer.linear_input(site, x),
            None => Ok(()),
        };
        let (start, count) = (cache.len(), tokens.len());
        let table = self.rope.table(start + count);
        let mut values = Vec::new();
        self.embed(tokens, &mut values)?;
        let mut x = Tensor::from_vec(values, (count, self.config.hidden_size), &self.backend.device)?;
        // The rows that later layers and the head need; an observer sees all.
        let mut cut = false;
        for (l, layer) in self.layers.iter().enumerate() {
            let normed = layer.attention_norm.forward(&x)?;
            observe(LinearSite::AttentionInput(l), &normed)?;
            let qkv = layer.qkv.forward(&self.backend, &normed)?;
            let attention = Attention {
                config: &self.config,
                qk_norm: layer.qk_norm.as_ref(),
                table: &table,
                start,
                own_kernels: self.backend.own_kernels,
            };
            let Some(layer_cache) = cache.layer(l) else {
                return Err(Error::Usage("the cache belongs to another model".into()));
            };
            let mut mixed = attention.forward(&qkv, layer_cache)?;
            if l + 1 == self.layers.len() && !observed && from > 0 {
                cut = true;
                if from == count {
                    break;
                }
                x = x.narrow(0, from, count - from)?.contiguous()?;
                mixed = mixed.narrow(0, from, count - from)?.contiguous()?;
            }
            observe(LinearSite::AttentionOutput(l), &mixed)?;
            x = (x + layer.attention_output.forward(&self.backend, &mixed)?)?;

            let normed = layer.ffn_norm.forward(&x)?;
            observe(LinearSite::FfnInput(l), &normed)?;
            let mut product = gated_silu(&self.backend, &layer.gate_up.forward(&self.backend, &normed)?)?;
            if let Some(rotation) = layer.down_rotation {
                product = rotated(&product, rotation)?;
            }
            observe(LinearSite::FfnDown(l), &product)?;
            x = (x + layer.down.forward(&self.backend, &product)?)?;
        }
        cache.advance(count);
        if let Some(window) = self.config.sliding_window.filter(|_| self.backend.own_kernels) {
            cache.forget_outside(window);
        }
        if from == count {
            return Ok(None);
        }
        if !cut && from > 0 {
            x = x.narrow(0, from, count - from)?.contiguous()?;
        }
        let normed = self.norm.forward(&x)?;
        observe(LinearSite::Output, &normed)?;
        Ok(Some(self.head.forward(&self.backend, &normed)?.to_device(&Device::Cpu)?))
    }

    /// Embeddings, to `values`, which become `[tokens, hidden]`.
    pub(super) fn embed(&self, tokens: &[u32], values: &mut Vec<f32>) -> Result<()> {
        let hidden = self.config.hidden_size;
        values.resize(tokens.len() * hidden, 0.0);
        for (row, &id) in values.chunks_exact_mut(hidden).zip(tokens) {
            self.embedding.row(id as usize, row)?;
        }
        Ok(())
    }
}
