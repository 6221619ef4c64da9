//! Decoder models: Llama, Mistral, Qwen2, Qwen3.

mod config;
mod kv_cache;

pub use config::{Architecture, ModelConfig, RopeConfig, RopeLayout, RopeScaling};
pub use kv_cache::KvCache;

use crate::{Checkpoint, Result};
use candle_core::{Device, Tensor};

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
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
}

#[allow(unused_variables, clippy::todo)]
impl Model {
    /// Loads the model. On the CPU weights stay in the file's map and are used from there.
    pub fn load(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        todo!()
    }
    /// Hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
    /// An empty cache for one sequence.
    pub fn new_cache(&self) -> KvCache {
        todo!()
    }
    /// Runs `tokens` after what `cache` holds and appends them to it. Returns f32 logits on the CPU, `[rows, vocab]`.
    ///
    /// # Errors
    /// A token id outside the vocabulary; more tokens than the context allows.
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache, logits: LogitRows) -> Result<Tensor> {
        todo!()
    }
    /// As `forward`, showing every linear's input to `observer`.
    pub fn forward_observed(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: LogitRows,
        observer: &mut dyn ActivationObserver,
    ) -> Result<Tensor> {
        todo!()
    }
}
