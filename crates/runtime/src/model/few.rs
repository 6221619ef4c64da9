//! A pass of few tokens with the own kernels: on slices, in memory that the cache keeps from one pass to the next.
//!
//! It computes what [`super::forward`] does on tensors, to the same bits. A token of a small model takes less time than making a few hundred tensors.

use super::attention::Attention;
use super::ops::{ProductMemory, add};
use super::{KvCache, Model};
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Tokens of a pass of generation, drafts included.
pub(super) const FEW: usize = 8;

/// What a pass computes on its way, a row a token.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The hidden state.
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    gate_up: Vec<f32>,
    product: Vec<f32>,
    /// What is added to the hidden state.
    added: Vec<f32>,
    products: ProductMemory,
}

impl Model {
    /// Runs up to [`FEW`] tokens. Logits of those from `from` on, `None` if there are none.
    pub(super) fn run_few(&self, tokens: &[u32], cache: &mut KvCache, from: usize) -> Result<Option<Tensor>> {
        let mut memory = std::mem::take(cache.memory());
        let logits = self.few(tokens, cache, from, &mut memory);
        *cache.memory() = memory;
        logits
    }

    fn few(&self, tokens: &[u32], cache: &mut KvCache, from: usize, memory: &mut Memory) -> Result<Option<Tensor>> {
        let Memory { x, normed, qkv, mixed, gate_up, product, added, products } = memory;
        let (backend, hidden) = (&self.backend, self.config.hidden_size);
        let start = cache.len();
        let table = self.rope.table(start + tokens.len());
        self.embed(tokens, x)?;
        // Rows that are still needed: of the last layer those whose logits are asked for.
        let mut count = tokens.len();
        for (l, layer) in self.layers.iter().enumerate() {
            layer.attention_norm.forward_values(x, normed)?;
            layer.qkv.forward_values(backend, normed, count, qkv, products)?;
            let attention = Attention {
                config: &self.config,
                qk_norm: layer.qk_norm.as_ref(),
                table: &table,
                start,
                own_kernels: true,
            };
            let Some(layer_cache) = cache.layer(l) else {
                return Err(Error::Usage("the cache belongs to another model".into()));
            };
            attention.forward_values(qkv, count, layer_cache, mixed)?;
            if l + 1 == self.layers.len() {
                if from == count {
                    break;
                }
                x.drain(..from * hidden);
                mixed.drain(..from * self.config.q_dim());
                count -= from;
            }
            layer.attention_output.forward_values(backend, mixed, count, added, products)?;
            add(x, added);

            layer.ffn_norm.forward_values(x, normed)?;
            layer.gate_up.forward_values(backend, normed, count, gate_up, products)?;
            product.resize(gate_up.len() / 2, 0.0);
            quant_kernels::silu_mul(gate_up, self.config.intermediate_size, product)?;
            if let Some(rotation) = layer.down_rotation {
                rotation.apply_to_rows(product);
            }
            layer.down.forward_values(backend, product, count, added, products)?;
            add(x, added);
        }
        cache.advance(tokens.len());
        if let Some(window) = self.config.sliding_window {
            cache.forget_outside(window);
        }
        if from == tokens.len() {
            return Ok(None);
        }
        self.norm.forward_values(x, normed)?;
        let mut logits = Vec::new();
        self.head.forward_values(backend, normed, count, &mut logits, products)?;
        Ok(Some(Tensor::from_vec(logits, (count, self.config.vocab_size), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{ActivationObserver, CacheChoice, LinearSite, LogitRows};
    use crate::{Checkpoint, Device, Model, Result};
    use candle_core::Tensor;
    use kv_cache_quant::Preset;
    use std::path::Path;

    struct Nobody;

    impl ActivationObserver for Nobody {
        fn linear_input(&mut self, _: LinearSite, _: &Tensor) -> Result<()> {
            Ok(())
        }
    }

    /// The same bits as on tensors, which a pass with an observer takes.
    #[test]
    fn as_on_tensors() {
        let pocket = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket-6m");
        let checkpoint = Checkpoint::open(&pocket).unwrap();
        for (integers, repacked) in [(false, false), (true, false), (true, true)] {
            let load = if repacked { Model::load_repacked } else { Model::load };
            let mut model = load(&checkpoint, &Device::Cpu).unwrap();
            model.set_integer_products(integers);
            for choice in [CacheChoice::F32, CacheChoice::Preset(Preset::R4)] {
                let mut caches = [model.new_cache_of(choice).unwrap(), model.new_cache_of(choice).unwrap()];
                for (tokens, rows) in [
                    (&[5, 6, 7, 8, 9, 10, 11, 12][..], LogitRows::All),
                    (&[13, 14, 15], LogitRows::Last),
                    (&[16], LogitRows::None),
                    (&[17, 18, 19, 20], LogitRows::From(2)),
                    (&[21], LogitRows::Last),
                ] {
                    let [few, tensors] = &mut caches;
                    let few = model.forward(tokens, few, rows).unwrap();
                    let tensors = model.forward_observed(tokens, tensors, rows, &mut Nobody).unwrap();
                    assert_eq!(few.dims(), tensors.dims());
                    let bits = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    assert_eq!(bits(few), bits(tensors), "{choice:?}, {tokens:?}, {integers}, {repacked}");
                }
            }
        }
    }
}
