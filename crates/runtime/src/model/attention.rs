//! Attention of one layer: q/k norms, rotation, the cache, and the weighted values.

use super::config::{ModelConfig, RopeLayout};
use super::kv_cache::{LayerCache, append_tensors};
use super::ops::{Norm, with_values};
use super::rope::RopeTable;
use crate::{Error, Result};
use candle_core::{D, Device, Tensor};
use kv_cache_quant::Attend;
use quant_kernels::{attention, rope};
use rayon::prelude::*;

/// Norms of each head of q and of k (Qwen3).
#[derive(Debug)]
pub(super) struct QkNorm {
    pub(super) q: Norm,
    pub(super) k: Norm,
}

/// What attention needs besides its input.
pub(super) struct Attention<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) qk_norm: Option<&'a QkNorm>,
    pub(super) table: &'a RopeTable,
    /// Position of the first token.
    pub(super) start: usize,
    /// Not candle's.
    pub(super) own_kernels: bool,
}

impl Attention<'_> {
    /// `qkv`: `[tokens, q + k + v]`, to `[tokens, q]`. Appends keys and values to `cache`.
    pub(super) fn forward(&self, qkv: &Tensor, cache: &mut LayerCache) -> Result<Tensor> {
        match cache {
            LayerCache::Quantized(layer) if !self.own_kernels => {
                let (q, k, v) = self.heads(qkv)?;
                kv_cache_quant::candle::append(layer, &k.transpose(0, 1)?, &v.transpose(0, 1)?)?;
                let (keys, values) = kv_cache_quant::candle::dequantize(layer, qkv.device())?;
                self.attend_candle(q, &keys, &values)
            }
            LayerCache::Candle(cache) => {
                let (q, k, v) = self.heads(qkv)?;
                let (keys, values) = append_tensors(cache, self.start, &k, &v)?;
                self.attend_candle(q, &keys, &values)
            }
            LayerCache::Own(_) | LayerCache::Quantized(_) => {
                let (tokens, _) = qkv.dims2()?;
                let mut qkv = with_values(qkv, |v| Ok(v.to_vec()))?;
                let mut out = Vec::new();
                self.forward_values(&mut qkv, tokens, cache, &mut out)?;
                Ok(Tensor::from_vec(out, (tokens, self.config.q_dim()), &Device::Cpu)?)
            }
        }
    }

    /// The same on values, with the own kernels: q and k of `qkv` are rotated in place, and `out` becomes `[tokens, q]`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a cache of candle's.
    pub(super) fn forward_values(
        &self,
        qkv: &mut [f32],
        tokens: usize,
        cache: &mut LayerCache,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let (q, kv, heads) = (self.config.q_dim(), self.config.kv_dim(), self.config.num_heads);
        let width = q + 2 * kv;
        self.norm_and_rotate(qkv, width)?;
        out.resize(tokens * q, 0.0);
        match cache {
            LayerCache::Own(store) => {
                store.append(&qkv[q..], &qkv[q + kv..], width, tokens)?;
                let (window, scale) = (self.config.sliding_window, self.scale() as f32);
                Ok(attention(qkv, width, tokens, heads, store, window, scale, out)?)
            }
            LayerCache::Quantized(layer) => {
                layer.append(&qkv[q..], &qkv[q + kv..], width, tokens)?;
                Ok(layer.attend(qkv, width, tokens, heads, &self.options(), out)?)
            }
            LayerCache::Candle(_) => Err(Error::Usage("the cache belongs to another model".into())),
        }
    }

    pub(super) fn options(&self) -> Attend<'static> {
        Attend { window: self.config.sliding_window, ..Attend::causal(self.scale() as f32) }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.config.head_dim as f64).sqrt()
    }

    /// Norms and rotates the heads of q and k of each row, in place.
    pub(super) fn norm_and_rotate(&self, qkv: &mut [f32], width: usize) -> Result<()> {
        let (q, kv, d) = (self.config.q_dim(), self.config.kv_dim(), self.config.head_dim);
        let adjacent = self.config.rope.layout == RopeLayout::Adjacent;
        let row = |(t, row): (usize, &mut [f32])| -> Result<()> {
            let (cos, sin) = self.table.at(self.start + t);
            let (q, rest) = row.split_at_mut(q);
            let k = &mut rest[..kv];
            if let Some(norm) = self.qk_norm {
                norm.q.in_place(q)?;
                norm.k.in_place(k)?;
            }
            q.chunks_exact_mut(d).chain(k.chunks_exact_mut(d)).try_for_each(|head| rope(head, cos, sin, adjacent))?;
            Ok(())
        };
        if qkv.len() == width {
            return row((0, qkv));
        }
        qkv.par_chunks_exact_mut(width).enumerate().try_for_each(row)
    }

    /// q, k and v, `[heads, tokens, head_dim]`, normed and rotated by candle's operations.
    fn heads(&self, qkv: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let config = self.config;
        let (heads, kv_heads, d) = (config.num_heads, config.num_kv_heads, config.head_dim);
        let (tokens, _) = qkv.dims2()?;
        let device = qkv.device();
        let part = |from: usize, heads: usize| -> Result<Tensor> {
            Ok(qkv.narrow(1, from, heads * d)?.reshape((tokens, heads, d))?.transpose(0, 1)?.contiguous()?)
        };
        let (mut q, mut k) = (part(0, heads)?, part(heads * d, kv_heads)?);
        let v = part((heads + kv_heads) * d, kv_heads)?;
        if let Some(norm) = self.qk_norm {
            (q, k) = (norm.q.forward(&q)?, norm.k.forward(&k)?);
        }
        let (cos, sin) = self.table.rows(self.start..self.start + tokens);
        let cos = Tensor::from_slice(cos, (tokens, d / 2), device)?;
        let sin = Tensor::from_slice(sin, (tokens, d / 2), device)?;
        let rotate = |x: &Tensor| -> Result<Tensor> {
            let x = x.unsqueeze(0)?;
            let x = match config.rope.layout {
                RopeLayout::Adjacent => candle_nn::rotary_emb::rope_i(&x, &cos, &sin)?,
                RopeLayout::Halves => candle_nn::rotary_emb::rope(&x, &cos, &sin)?,
            };
            Ok(x.squeeze(0)?)
        };
        Ok((rotate(&q)?, rotate(&k)?, v))
    }

    /// Attention by candle's operations, for other devices: queries `[heads, tokens, head_dim]` over keys and values `[kv_heads, positions, head_dim]`.
    fn attend_candle(&self, q: Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let config = self.config;
        let (heads, kv_heads, d) = (config.num_heads, config.num_kv_heads, config.head_dim);
        let (device, tokens) = (q.device().clone(), q.dim(1)?);
        let positions = self.start + tokens;
        let group = heads / kv_heads;
        let q = (q * self.scale())?.reshape((kv_heads, group * tokens, d))?;
        let scores = q.matmul(&keys.transpose(1, 2)?.contiguous()?)?;
        let mask: Vec<f32> = (0..tokens)
            .flat_map(|t| {
                let end = self.start + t + 1;
                let start = config.sliding_window.map_or(0, |w| end.saturating_sub(w));
                (0..positions).map(move |p| if p < start || p >= end { f32::NEG_INFINITY } else { 0.0 })
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, 1, tokens, positions), &device)?;
        let scores = scores.reshape((kv_heads, group, tokens, positions))?.broadcast_add(&mask)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.reshape((kv_heads, group * tokens, positions))?;
        let out = weights.matmul(&values.contiguous()?)?.reshape((heads, tokens, d))?;
        Ok(out.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * d))?)
    }
}

impl From<kv_cache_quant::Error> for Error {
    fn from(e: kv_cache_quant::Error) -> Self {
        match e {
            kv_cache_quant::Error::Unsupported { .. } => Error::Unsupported(e.to_string()),
            e => Error::Candle(candle_core::Error::wrap(e)),
        }
    }
}

impl From<kv_cache_quant::candle::TensorError> for Error {
    fn from(e: kv_cache_quant::candle::TensorError) -> Self {
        match e {
            kv_cache_quant::candle::TensorError::Candle(e) => e.into(),
            kv_cache_quant::candle::TensorError::Cache(e) => e.into(),
            e => Error::Candle(candle_core::Error::wrap(e)),
        }
    }
}

impl From<quant_kernels::Error> for Error {
    fn from(e: quant_kernels::Error) -> Self {
        Error::Candle(candle_core::Error::wrap(e))
    }
}
