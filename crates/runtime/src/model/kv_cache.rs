//! Keys and values of the tokens seen so far, f32 or quantized, growing on demand.

use super::config::ModelConfig;
use super::few::Memory;
use super::ops::Backend;
use crate::Result;
use candle_core::{DType, Tensor};
use kv_cache_quant::{KvSpec, LayerCache as QuantizedLayer};
use quant_kernels::KvStore;

/// The cache of one sequence.
///
/// It grows with the tokens and never copies what it holds (on the CPU). It belongs to models of one shape: another model's `forward` refuses it.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    limit: usize,
    bytes_per_token: usize,
    kv_heads: usize,
    head_dim: usize,
    /// The sliding window outside of which tokens have been forgotten.
    window: Option<usize>,
    /// Of the passes that fill it.
    memory: Memory,
}

/// So many tokens more than the window are kept, so that a cut of a few last ones does not cost all.
const SLACK: usize = 64;

/// Keys and values of one layer.
#[derive(Debug)]
pub(super) enum LayerCache {
    /// For the own kernels.
    Own(KvStore),
    /// For those of `kv-cache-quant`.
    Quantized(QuantizedLayer),
    /// `[kv_heads, capacity, head_dim]` each, for candle's; `None` while empty.
    Candle(Option<(Tensor, Tensor)>),
}

impl KvCache {
    pub(super) fn new(backend: &Backend, config: &ModelConfig, limit: usize) -> Self {
        let (kv_heads, head_dim) = (config.num_kv_heads, config.head_dim);
        let store = KvStore::new(kv_heads, head_dim);
        let a_layer =
            if backend.own_kernels { store.bytes_per_position() } else { 2 * kv_heads * head_dim * size_of::<f32>() };
        let layer = || match backend.own_kernels {
            true => LayerCache::Own(store.clone()),
            false => LayerCache::Candle(None),
        };
        Self {
            layers: (0..config.num_layers).map(|_| layer()).collect(),
            len: 0,
            limit,
            bytes_per_token: config.num_layers * a_layer,
            kv_heads,
            head_dim,
            window: None,
            memory: Memory::default(),
        }
    }

    /// Stores each layer as its specification says.
    pub(super) fn quantize(&mut self, specs: impl Iterator<Item = KvSpec>) -> Result<()> {
        self.layers = specs.map(|spec| Ok(LayerCache::Quantized(QuantizedLayer::new(spec)?))).collect::<Result<_>>()?;
        let bytes = self.layers.iter().map(|layer| match layer {
            LayerCache::Quantized(layer) => layer.bytes_per_token(),
            _ => 0.0,
        });
        self.bytes_per_token = bytes.sum::<f64>().ceil() as usize;
        Ok(())
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most tokens it takes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Forgets all tokens from `len` on. Gives the number of tokens then: less than `len` if there were not so many; or none, if the tokens before `len`
    /// that a sliding window still needs have been forgotten.
    pub fn truncate(&mut self, len: usize) -> usize {
        let len = self.len.min(len);
        // Of each layer, the tokens forgotten at the front.
        let gone = |layer: &LayerCache| match layer {
            LayerCache::Quantized(layer) => {
                usize::try_from(layer.next_position()).unwrap_or(0).saturating_sub(layer.len())
            }
            _ => 0,
        };
        let needed = |layer: &LayerCache| {
            let LayerCache::Quantized(held) = layer else { return true };
            let first = gone(layer) + held.spec().sinks;
            gone(layer) == 0 || self.window.is_some_and(|window| first + window <= len + 1)
        };
        let len = if self.layers.iter().all(needed) { len } else { 0 };
        let gone: Vec<usize> = self.layers.iter().map(gone).collect();
        self.len = len;
        for (layer, gone) in self.layers.iter_mut().zip(gone) {
            match layer {
                LayerCache::Own(store) => store.truncate(len),
                LayerCache::Quantized(layer) => layer.truncate(len.saturating_sub(gone)),
                LayerCache::Candle(tensors) if len == 0 => *tensors = None,
                // What lies behind `len` is overwritten by the next tokens.
                LayerCache::Candle(_) => {}
            }
        }
        len
    }

    /// Forgets, of quantized layers, whole blocks of tokens that no token to come sees through a sliding window.
    pub(super) fn forget_outside(&mut self, window: usize) {
        self.window = Some(window);
        for layer in &mut self.layers {
            if let LayerCache::Quantized(layer) = layer {
                layer.evict(layer.len().saturating_sub(window.saturating_add(SLACK)));
            }
        }
    }

    /// Bytes of keys and values held.
    pub fn bytes_held(&self) -> usize {
        let bytes = |layer: &LayerCache| match layer {
            LayerCache::Own(store) => store.len() * store.bytes_per_position(),
            LayerCache::Quantized(layer) => layer.memory().coded + layer.memory().half,
            LayerCache::Candle(None) => 0,
            LayerCache::Candle(Some((keys, values))) => (keys.elem_count() + values.elem_count()) * size_of::<f32>(),
        };
        self.layers.iter().map(bytes).sum()
    }

    /// Bytes a token costs; of a quantized cache, one of a long sequence.
    pub fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    pub(super) fn layer(&mut self, index: usize) -> Option<&mut LayerCache> {
        self.layers.get_mut(index)
    }

    pub(super) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// After every layer has appended them.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// True if it was made for such a model on such a backend.
    pub(super) fn fits(&self, backend: &Backend, config: &ModelConfig) -> bool {
        self.layers.len() == config.num_layers
            && (self.kv_heads, self.head_dim) == (config.num_kv_heads, config.head_dim)
            && self.layers.iter().all(|layer| match layer {
                LayerCache::Own(_) => backend.own_kernels,
                LayerCache::Candle(_) => !backend.own_kernels,
                LayerCache::Quantized(_) => true,
            })
    }
}

/// Appends `k` and `v`, `[kv_heads, tokens, head_dim]`, at position `at` and gives all up to there and these.
pub(super) fn append_tensors(
    cache: &mut Option<(Tensor, Tensor)>,
    at: usize,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (kv_heads, tokens, head_dim) = k.dims3()?;
    let end = at + tokens;
    let (keys, values) = match cache.take() {
        Some((keys, values)) if keys.dim(1)? >= end => (keys, values),
        old => {
            let capacity = end.max(2 * at).next_multiple_of(256);
            let grown = |old: Option<Tensor>| -> Result<Tensor> {
                let new = Tensor::zeros((kv_heads, capacity, head_dim), DType::F32, k.device())?;
                if let Some(old) = old.filter(|_| at > 0) {
                    new.slice_set(&old.narrow(1, 0, at)?.contiguous()?, 1, 0)?;
                }
                Ok(new)
            };
            let (keys, values) = old.unzip();
            (grown(keys)?, grown(values)?)
        }
    };
    keys.slice_set(&k.contiguous()?, 1, at)?;
    values.slice_set(&v.contiguous()?, 1, at)?;
    let all = (keys.narrow(1, 0, end)?, values.narrow(1, 0, end)?);
    *cache = Some((keys, values));
    Ok(all)
}
