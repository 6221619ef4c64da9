//! A model one decoder layer at a time, with weights that the caller brings: what quantizing a whole model in little memory needs.
//!
//! Within a layer the input of each linear is computed once: norm, q/k/v, attention, o, norm, gate/up, product, down. The caller may look at an input
//! before it decides which weights the linear gets. All values are f32 on the CPU; sequences run from an empty cache, whole.

use super::Architecture;
use super::attention::{Attention, QkNorm};
use super::kv_cache::LayerCache;
use super::ops::{Backend, Norm, add};
use super::rope::Rope;
use super::weights::Loader;
use super::{LinearSite, ModelConfig};
use crate::fold::{Folds, Rotations};
use crate::{Checkpoint, Result};
use candle_core::Device;
use gguf_format::GgmlType;
use quant_core::rotation::Rotation;
use quant_kernels::{KvStore, Matrix, matmul, silu_mul};

/// The parts of a model that stay as they are, and where its weights lie.
pub(crate) struct LayerWalk<'a> {
    config: &'a ModelConfig,
    loader: Loader<'a>,
    rope: Rope,
}

/// Norms and biases of one layer.
#[derive(Debug)]
pub(crate) struct LayerParts {
    attention_norm: Norm,
    qk_norm: Option<QkNorm>,
    ffn_norm: Norm,
    biases: [Option<Vec<f32>>; 4],
    down_rotation: Option<Rotation>,
}

/// Weights of linears that read the same input, one below the other, `[out_features, in_features]`.
#[derive(Debug, Default)]
pub(crate) struct DenseWeights {
    pub(crate) values: Vec<f32>,
    pub(crate) in_features: usize,
}

impl<'a> LayerWalk<'a> {
    /// Checks that the checkpoint holds a model that can be run. `config` is the checkpoint's.
    ///
    /// # Errors
    /// As [`Model::load`](super::Model::load).
    pub(crate) fn new(checkpoint: &'a Checkpoint, config: &'a ModelConfig) -> Result<Self> {
        let loader = Loader::new(checkpoint, config)?;
        loader.check_tensors()?;
        let divisors = match checkpoint {
            Checkpoint::Gguf(_) => loader.optional_vector("rope_freqs.weight", config.head_dim / 2)?,
            Checkpoint::HfDir(_) => None,
        };
        let rope = Rope::new(&config.rope, divisors.as_deref());
        Ok(Self { config, loader, rope })
    }

    /// What is loaded from now on has these scales folded in.
    pub(crate) fn set_folds(&mut self, folds: Folds) {
        self.loader.set_folds(folds);
    }

    /// What is loaded from now on is of the rotated model.
    pub(crate) fn set_rotations(&mut self, rotations: Rotations) {
        self.loader.set_rotations(rotations);
    }

    pub(crate) fn rotations(&self) -> &Rotations {
        self.loader.rotations()
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        self.config
    }

    /// Embeddings of a sequence, `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for a token outside the vocabulary.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (vocab, hidden) = (self.config.vocab_size, self.config.hidden_size);
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(crate::Error::Usage(format!("token id {id}: the vocabulary has {vocab} tokens")));
        }
        // Not the whole of it rotated, for a few rows.
        let weight = self.loader.stored_matrix("token_embd.weight", vocab, hidden)?;
        let mut values = vec![0.0; tokens.len() * hidden];
        for (row, &id) in values.chunks_exact_mut(hidden).zip(tokens) {
            weight.row(id as usize, row)?;
        }
        if let Some(rotation) = self.rotations().residual() {
            rotation.apply_to_rows(&mut values);
        }
        Ok(values)
    }

    /// Name (GGUF's), out and in features of the linears that read an input.
    pub(crate) fn linears(&self, site: LinearSite) -> Vec<(String, usize, usize)> {
        let c = self.config;
        let (rows, cols): (&[usize], usize) = match site {
            LinearSite::AttentionInput(_) => (&[c.q_dim(), c.kv_dim(), c.kv_dim()], c.hidden_size),
            LinearSite::AttentionOutput(_) => (&[c.hidden_size], c.q_dim()),
            LinearSite::FfnInput(_) => (&[c.intermediate_size, c.intermediate_size], c.hidden_size),
            LinearSite::FfnDown(_) => (&[c.hidden_size], c.intermediate_size),
            LinearSite::Output => (&[c.vocab_size], c.hidden_size),
        };
        site.weight_names().into_iter().zip(rows).map(|(name, &rows)| (name, rows, cols)).collect()
    }

    /// A weight matrix of the checkpoint as f32.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub(crate) fn weight(&self, gguf_name: &str, rows: usize, cols: usize) -> Result<Vec<f32>> {
        let weight = self.loader.matrix(gguf_name, rows, cols)?;
        let mut values = vec![0.0; rows * cols];
        for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
            weight.row(row, values)?;
        }
        Ok(values)
    }

    /// A matrix whose rows are transformed one by one (the embeddings, the head), in parts of some rows, each shown to `see`.
    ///
    /// # Errors
    /// As [`LayerWalk::weight`], and what `see` returns.
    pub(crate) fn rows(&self, gguf_name: &str, see: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        const ROWS: usize = 4096;
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        let transform = self.loader.transform(gguf_name, cols)?;
        let tied = gguf_name == "output.weight" && self.config.tied;
        let weight = self.loader.stored_matrix(if tied { "token_embd.weight" } else { gguf_name }, rows, cols)?;
        for first in (0..rows).step_by(ROWS) {
            let mut values = vec![0.0; ROWS.min(rows - first) * cols];
            for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
                weight.row(first + row, values)?;
            }
            if let Some((rotation, norm)) = &transform {
                rotation.apply(cols, norm.as_deref(), &mut values);
            }
            see(&values)?;
        }
        Ok(())
    }

    /// The weights of all linears that read an input.
    ///
    /// # Errors
    /// As [`LayerWalk::weight`].
    pub(crate) fn dense(&self, site: LinearSite) -> Result<DenseWeights> {
        let mut dense = DenseWeights::default();
        for (name, rows, cols) in self.linears(site) {
            dense.in_features = cols;
            dense.values.extend(self.weight(&name, rows, cols)?);
        }
        Ok(dense)
    }

    /// A vector of the checkpoint as f32, if it is there.
    ///
    /// # Errors
    /// Another shape, values that are not finite.
    pub(crate) fn optional_vector(&self, gguf_name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.loader.optional_vector(gguf_name, len)
    }

    /// The type that the checkpoint holds a tensor in; `None` if there is none of this name.
    ///
    /// # Errors
    /// A type that cannot be read.
    pub(crate) fn stored_type(&self, gguf_name: &str) -> Result<Option<GgmlType>> {
        self.loader.stored_type(gguf_name)
    }

    /// Norms and biases of a layer.
    ///
    /// # Errors
    /// As [`Model::load`](super::Model::load).
    pub(crate) fn layer(&self, l: usize) -> Result<LayerParts> {
        let (loader, config) = (&self.loader, self.config);
        let backend = Backend::new(&Device::Cpu);
        let name = |part: &str| format!("blk.{l}.{part}");
        let norm = |part: &str, len: usize| {
            Norm::new(&backend, loader.vector(&name(&format!("{part}.weight")), len)?, config.rms_norm_eps)
        };
        let bias = |site: LinearSite| -> Result<Option<Vec<f32>>> {
            let parts = self.linears(site).into_iter().map(|(name, rows, _)| {
                let name = name.trim_end_matches("weight").to_owned() + "bias";
                Ok((loader.optional_vector(&name, rows)?, rows))
            });
            let parts = parts.collect::<Result<Vec<_>>>()?;
            let any = parts.iter().any(|(bias, _)| bias.is_some());
            Ok(any.then(|| parts.into_iter().flat_map(|(b, rows)| b.unwrap_or_else(|| vec![0.0; rows])).collect()))
        };
        let qk_norm = match config.architecture {
            Architecture::Qwen3 => {
                Some(QkNorm { q: norm("attn_q_norm", config.head_dim)?, k: norm("attn_k_norm", config.head_dim)? })
            }
            _ => None,
        };
        Ok(LayerParts {
            attention_norm: norm("attn_norm", config.hidden_size)?,
            qk_norm,
            ffn_norm: norm("ffn_norm", config.hidden_size)?,
            biases: [
                bias(LinearSite::AttentionInput(l))?,
                bias(LinearSite::AttentionOutput(l))?,
                bias(LinearSite::FfnInput(l))?,
                bias(LinearSite::FfnDown(l))?,
            ],
            down_rotation: loader.input_rotation(&name("ffn_down.weight"), config.intermediate_size)?,
        })
    }
}

impl LayerParts {
    /// What q, k and v read.
    pub(crate) fn attention_input(&self, x: &[f32]) -> Result<Vec<f32>> {
        normed(&self.attention_norm, x)
    }

    /// What o reads: attention of the sequence `input`.
    pub(crate) fn attention(&self, walk: &LayerWalk<'_>, qkv: &DenseWeights, input: &[f32]) -> Result<Vec<f32>> {
        let config = walk.config;
        let tokens = input.len() / config.hidden_size.max(1);
        let mut values = qkv.product(input, self.biases[0].as_deref())?;
        let table = walk.rope.table(tokens);
        let attention =
            Attention { config, qk_norm: self.qk_norm.as_ref(), table: &table, start: 0, own_kernels: true };
        let mut mixed = Vec::new();
        let mut cache = LayerCache::Own(KvStore::new(config.num_kv_heads, config.head_dim));
        attention.forward_values(&mut values, tokens, &mut cache, &mut mixed)?;
        Ok(mixed)
    }

    /// Adds o's product with what it reads to the hidden state.
    pub(crate) fn add_attention(&self, o: &DenseWeights, mixed: &[f32], x: &mut [f32]) -> Result<()> {
        add(x, &o.product(mixed, self.biases[1].as_deref())?);
        Ok(())
    }

    /// What gate and up read.
    pub(crate) fn ffn_input(&self, x: &[f32]) -> Result<Vec<f32>> {
        normed(&self.ffn_norm, x)
    }

    /// What down reads.
    pub(crate) fn gated(&self, gate_up: &DenseWeights, input: &[f32]) -> Result<Vec<f32>> {
        let both = gate_up.product(input, self.biases[2].as_deref())?;
        let width = gate_up.out_features() / 2;
        let mut product = vec![0.0; both.len() / 2];
        silu_mul(&both, width, &mut product)?;
        if let Some(rotation) = self.down_rotation {
            rotation.apply_to_rows(&mut product);
        }
        Ok(product)
    }

    /// Adds down's product with what it reads to the hidden state.
    pub(crate) fn add_ffn(&self, down: &DenseWeights, gated: &[f32], x: &mut [f32]) -> Result<()> {
        add(x, &down.product(gated, self.biases[3].as_deref())?);
        Ok(())
    }
}

impl DenseWeights {
    fn out_features(&self) -> usize {
        self.values.len() / self.in_features.max(1)
    }

    fn product(&self, x: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let (rows, cols) = (self.out_features(), self.in_features);
        let tokens = x.len() / cols.max(1);
        let matrix = Matrix::new(GgmlType::F32, rows, cols, bytemuck::cast_slice(&self.values))?;
        let mut y = vec![0.0; tokens * rows];
        matmul(x, tokens, &[matrix], &mut y)?;
        if let Some(bias) = bias {
            y.chunks_exact_mut(rows.max(1)).for_each(|row| add(row, bias));
        }
        Ok(y)
    }
}

fn normed(norm: &Norm, x: &[f32]) -> Result<Vec<f32>> {
    let mut y = Vec::new();
    norm.forward_values(x, &mut y)?;
    Ok(y)
}
