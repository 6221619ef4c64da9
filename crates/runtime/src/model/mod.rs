//! Decoder models: Llama, Mistral, Qwen2, Qwen3.

mod activations;
mod attention;
mod cache_choice;
mod cache_noise;
mod config;
mod eight_bit;
mod few;
mod forward;
mod key_means;
mod kv_cache;
mod layer_walk;
mod ops;
mod repack;
mod rope;
mod traffic;
mod weight_memory;
mod weights;

pub use activations::Activations;
pub use cache_choice::CacheChoice;
pub use cache_noise::CacheNoise;
pub use config::{Architecture, ModelConfig, RopeConfig, RopeLayout, RopeScaling};
pub use kv_cache::KvCache;
pub(crate) use layer_walk::{DenseWeights, LayerParts, LayerWalk};

use crate::fold::{Folds, Rotations};
use crate::{Checkpoint, Error, Result};
use attention::QkNorm;
use cache_choice::LayerFacts;
use candle_core::{Device, Tensor};
use kv_cache_quant::KvSpec;
use ops::{Backend, Linear, Norm};
use quant_core::rotation::Rotation;
use rayon::prelude::*;
use repack::{Progress, Repacking, move_at_load};
use rope::Rope;
use std::sync::OnceLock;
use weights::{Loader, Weight};

/// Which rows of logits a forward pass returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// The last token's only: `[1, vocab]`.
    Last,
    /// Every token's: `[n, vocab]`.
    All,
    /// From this index of the given tokens to the last.
    From(usize),
    /// None: `[0, vocab]`. For prompts whose logits nobody reads.
    None,
}

/// The input of a linear layer: linears that read the same input share one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinearSite {
    /// q, k and v of a layer read the normed hidden state.
    AttentionInput(usize),
    /// The output projection reads the attention's result.
    AttentionOutput(usize),
    /// gate and up read the normed hidden state.
    FfnInput(usize),
    /// down reads the gated product.
    FfnDown(usize),
    /// The head reads the final norm.
    Output,
}

impl LinearSite {
    /// The decoder layer; `None` for the head.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::AttentionInput(l) | Self::AttentionOutput(l) | Self::FfnInput(l) | Self::FfnDown(l) => Some(l),
            Self::Output => None,
        }
    }

    /// The GGUF names of the weights that read this input.
    pub fn weight_names(self) -> Vec<String> {
        match self {
            Self::AttentionInput(l) => ["attn_q", "attn_k", "attn_v"].map(|n| format!("blk.{l}.{n}.weight")).to_vec(),
            Self::AttentionOutput(l) => vec![format!("blk.{l}.attn_output.weight")],
            Self::FfnInput(l) => ["ffn_gate", "ffn_up"].map(|n| format!("blk.{l}.{n}.weight")).to_vec(),
            Self::FfnDown(l) => vec![format!("blk.{l}.ffn_down.weight")],
            Self::Output => vec!["output.weight".to_owned()],
        }
    }
}

/// Sees the input of every linear layer during a forward pass.
pub trait ActivationObserver {
    /// `x` is `[tokens, in_features]`, f32.
    fn linear_input(&mut self, site: LinearSite, x: &Tensor) -> Result<()>;
}

/// A loaded model.
///
/// On the CPU weights stay in the checkpoint's map and are used from there, so that loading is quick and several models of one file share its
/// memory. The quantized modules of a GPTQ, AWQ or compressed-tensors directory are repacked for the products, of about the file's size; those of one byte a weight are
/// multiplied with activations that are rounded as the config says. Any number of threads may run `forward` at the same time, each with its own cache.
///
/// On other devices weights are copied there and candle's own kernels run; that path is tested on the CPU only.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    backend: Backend,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    rope: Rope,
    /// Of each layer, once they were asked for.
    key_means: OnceLock<Vec<Vec<f32>>>,
    /// Of moving the weights.
    progress: Progress,
}

/// A decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: Norm,
    qkv: Linear,
    qk_norm: Option<QkNorm>,
    attention_output: Linear,
    ffn_norm: Norm,
    gate_up: Linear,
    /// Of what down reads.
    down_rotation: Option<Rotation>,
    down: Linear,
}

impl Model {
    /// Loads the model. On the CPU weights stay in the file's map and are used from there, except the packed ones of a GPTQ, AWQ or compressed-tensors directory.
    ///
    /// # Errors
    /// What [`Checkpoint::config`] refuses; a tensor that is missing, has another shape than the configuration says, a type that cannot be read, or
    /// (norms and biases) a value that is not finite; a tensor that the architecture does not have.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_with(checkpoint, Backend::new(device), Rotations::none(), Folds::new())
    }

    /// As [`Model::load`] and then [`Model::repack`], a layer at a time, and the quantized modules of a directory, too: for programs that run long, and
    /// where results must not change in the last bits while the model is in use.
    ///
    /// # Errors
    /// As both.
    pub fn load_repacked(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_from(checkpoint, Backend::new(device), Rotations::none(), Folds::new(), Repacking::AtLoad)
    }

    /// Loads the model, to be repacked as it runs: its first token comes as soon as after [`Model::load`], and before each next one that is generated a
    /// layer is moved as by [`Model::repack`], until all are. Logits change in the last bits while that lasts, by rounding of sums. The quantized
    /// modules of a directory are moved at once.
    ///
    /// # Errors
    /// As [`Model::load_repacked`]. Once it is loaded, layers that there is no memory for are used where they are.
    pub fn load_repacking(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_from(checkpoint, Backend::new(device), Rotations::none(), Folds::new(), Repacking::AsItRuns)
    }

    /// Loads the model with scales folded in: it computes the same. Weights that scales go into are f32 in memory.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_folded(checkpoint: &Checkpoint, folds: &Folds, device: &Device) -> Result<Self> {
        Self::load_with(checkpoint, Backend::new(device), Rotations::none(), folds.clone())
    }

    /// Loads the model rotated, and then with scales folded in: it computes the same. Most weights are f32 in memory.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Usage`] for scales of what down reads, where that is rotated.
    pub fn load_rotated(
        checkpoint: &Checkpoint,
        rotations: &Rotations,
        folds: &Folds,
        device: &Device,
    ) -> Result<Self> {
        Self::load_with(checkpoint, Backend::new(device), *rotations, folds.clone())
    }

    /// Loads the model for candle's kernels, which other devices run, on any device: what tests compare the own kernels with.
    #[doc(hidden)]
    pub fn load_for_candle(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        Self::load_with(
            checkpoint,
            Backend { device: device.clone(), own_kernels: false, ..Backend::new(device) },
            Rotations::none(),
            Folds::new(),
        )
    }

    /// Rounds the activations before every product, as [`Activations`] says.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for ggml's rounding on a device whose products are candle's, which round as they do.
    pub fn set_activations(&mut self, activations: Activations) -> Result<()> {
        if !self.backend.own_kernels && activations == Activations::Ggml {
            return Err(Error::Unsupported("rounded activations on this device".into()));
        }
        self.backend.activations = activations;
        Ok(())
    }

    /// Whether products with packed weights are of integers, which is quicker: [`quant_kernels::matmul_rounded`] rounds the activations for them, to 8
    /// bits in blocks of 32 for prompts, to 15 bits for single tokens, and for single tokens with weights that are floats to
    /// binary16. Off at first: results are then those of the weights alone.
    ///
    /// On devices whose products are candle's it changes nothing.
    pub fn set_integer_products(&mut self, on: bool) {
        self.backend.integer_products = on;
    }

    fn load_with(checkpoint: &Checkpoint, backend: Backend, rotations: Rotations, folds: Folds) -> Result<Self> {
        Self::load_from(checkpoint, backend, rotations, folds, Repacking::OnRequest)
    }

    fn load_from(
        checkpoint: &Checkpoint,
        backend: Backend,
        rotations: Rotations,
        folds: Folds,
        repacking: Repacking,
    ) -> Result<Self> {
        let config = checkpoint.config()?;
        if let (Some(_), Some(site)) = (rotations.down(), folds.sites().find(|s| matches!(s, LinearSite::FfnDown(_)))) {
            return Err(Error::Usage(format!("scales of {site:?}, which is rotated")));
        }
        let mut loader = Loader::new(checkpoint, &config)?;
        loader.check_tensors()?;
        loader.set_rotations(rotations);
        loader.set_folds(folds);

        let (hidden, ffn, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        // Linear layers that share an input; (name, rows) each.
        let linear = |parts: &[(String, usize)], cols: usize| -> Result<Linear> {
            for (name, _) in parts.iter().filter(|(name, _)| !name.ends_with("ffn_down")) {
                loader.input_rotation(&format!("{name}.weight"), cols)?;
            }
            let weights = parts.iter().map(|(name, rows)| loader.matrix(&format!("{name}.weight"), *rows, cols));
            let biases = parts.iter().map(|(name, rows)| loader.optional_vector(&format!("{name}.bias"), *rows));
            Linear::new(&backend, weights.collect::<Result<_>>()?, &biases.collect::<Result<Vec<_>>>()?)
        };
        let norm = |name: &str, len: usize| Norm::new(&backend, loader.vector(&format!("{name}.weight"), len)?, eps);

        let layer = |l: usize| -> Result<Layer> {
            let name = |part: &str| format!("blk.{l}.{part}");
            let qk_norm = match config.architecture {
                Architecture::Qwen3 => Some(QkNorm {
                    q: norm(&name("attn_q_norm"), config.head_dim)?,
                    k: norm(&name("attn_k_norm"), config.head_dim)?,
                }),
                _ => None,
            };
            let (q, kv) = (config.q_dim(), config.kv_dim());
            let mut layer = Layer {
                attention_norm: norm(&name("attn_norm"), hidden)?,
                qkv: linear(&[(name("attn_q"), q), (name("attn_k"), kv), (name("attn_v"), kv)], hidden)?,
                qk_norm,
                attention_output: linear(&[(name("attn_output"), hidden)], q)?,
                ffn_norm: norm(&name("ffn_norm"), hidden)?,
                gate_up: linear(&[(name("ffn_gate"), ffn), (name("ffn_up"), ffn)], hidden)?,
                down_rotation: loader.input_rotation(&format!("{}.weight", name("ffn_down")), ffn)?,
                down: linear(&[(name("ffn_down"), hidden)], ffn)?,
            };
            layer.move_at_load(repacking)?;
            Ok(layer)
        };
        // The largest first: while it is copied it is in memory twice.
        let head_name = loader.head_name().trim_end_matches(".weight").to_owned();
        let mut head = linear(&[(head_name, config.vocab_size)], hidden)?;
        move_at_load([&mut head], repacking)?;
        let layers = (0..config.num_layers).into_par_iter().map(layer).collect::<Result<Vec<_>>>()?;
        let divisors = match checkpoint {
            Checkpoint::Gguf(_) => loader.optional_vector("rope_freqs.weight", config.head_dim / 2)?,
            Checkpoint::HfDir(_) => None,
        };
        if let Some(bad) = divisors.as_ref().and_then(|d| d.iter().find(|&&v| v <= 0.0)) {
            let what = "tensor `rope_freqs.weight`";
            return Err(Error::malformed(checkpoint.path(), what, "positive values", bad.to_string()));
        }
        let embedding = loader.matrix("token_embd.weight", config.vocab_size, hidden)?;
        let norm = norm("output_norm", hidden)?;
        let rope = Rope::new(&config.rope, divisors.as_deref());
        Ok(Self {
            embedding,
            layers,
            norm,
            head,
            rope,
            backend,
            config,
            key_means: OnceLock::new(),
            progress: Progress::new(repacking),
        })
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// An empty cache for one sequence, up to the model's context.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.backend, &self.config, self.config.max_context)
    }

    /// An empty cache for one sequence, up to the model's context, with keys and values stored as `choice` says.
    ///
    /// For a preset, the first time, a short run of tokens tells what the keys have in common. Codes stay in the CPU's memory; on another
    /// device they are dequantized for each step and sent there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the shape of the model's heads does not allow it.
    pub fn new_cache_of(&self, choice: CacheChoice) -> Result<KvCache> {
        let mut cache = self.new_cache();
        if choice == CacheChoice::F32 {
            return Ok(cache);
        }
        cache.quantize(self.cache_specs(choice)?.into_iter())?;
        Ok(cache)
    }

    /// Specifications of the layers' caches; none for f32.
    fn cache_specs(&self, choice: CacheChoice) -> Result<Vec<KvSpec>> {
        let means = if matches!(choice, CacheChoice::Preset(_)) { self.key_means()? } else { &[] };
        let spec = |layer: usize| {
            let facts = LayerFacts {
                kv_heads: self.config.num_kv_heads,
                head_dim: self.config.head_dim,
                layer,
                layers: self.layers.len(),
                key_mean: means.get(layer).map(Vec::as_slice),
                rope: self.rope.spec(self.config.rope.layout),
            };
            facts.spec(choice)
        };
        Ok((0..self.layers.len()).filter_map(spec).collect())
    }

    /// An empty cache for one sequence of at most `limit` tokens.
    ///
    /// # Errors
    /// [`Error::Usage`] for a limit of 0 or beyond the model's context.
    pub fn new_cache_with_limit(&self, limit: usize) -> Result<KvCache> {
        if limit == 0 || limit > self.config.max_context {
            return Err(Error::Usage(format!(
                "context of {limit} tokens: the model takes 1 to {}",
                self.config.max_context
            )));
        }
        Ok(KvCache::new(&self.backend, &self.config, limit))
    }

    /// Runs `tokens` after what `cache` holds and appends them to it. Returns f32 logits on the CPU, `[rows, vocab]`.
    ///
    /// Long prompts run in parts of 512 tokens, so that memory does not grow with them (the cache and the logits do). After an error the cache
    /// holds what it held before.
    ///
    /// # Errors
    /// [`Error::Usage`]: no tokens; a token id outside the vocabulary; more tokens than the context allows; logits from beyond the last token; a
    /// cache of another model.
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache, logits: LogitRows) -> Result<Tensor> {
        // Inside the pool: each product would otherwise wake it and wait from outside.
        rayon::scope(|_| self.run(tokens, cache, logits, None))
    }

    /// As `forward`, showing every linear's input to `observer`.
    ///
    /// # Errors
    /// As `forward`, and what `observer` returns.
    pub fn forward_observed(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: LogitRows,
        observer: &mut dyn ActivationObserver,
    ) -> Result<Tensor> {
        self.run(tokens, cache, logits, Some(observer))
    }
}
