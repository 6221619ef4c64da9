//! Hyper-parameters of a decoder, read from config.json or from GGUF metadata.

mod gguf;
mod hf;

use crate::{Error, Result};
use std::path::Path;

/// The architectures built here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1 to 3.3 and its many relatives.
    Llama,
    /// Mistral (in GGUF: `llama`).
    Mistral,
    /// Qwen2 and 2.5: q/k/v biases.
    Qwen2,
    /// Qwen3: q/k norms.
    Qwen3,
}

/// Which pairs of a head's channels rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Adjacent channels (2i, 2i+1): GGUF files of `llama`.
    Adjacent,
    /// Halves (i, i + d/2): Hugging Face, and GGUF files of `qwen2`, `qwen3` ("NEOX").
    Halves,
}

/// How rotation frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by the factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1's rule.
    Llama3 {
        /// `factor`.
        factor: f32,
        /// `low_freq_factor`.
        low_freq_factor: f32,
        /// `high_freq_factor`.
        high_freq_factor: f32,
        /// `original_max_position_embeddings`.
        original_context: usize,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// `factor`.
        factor: f32,
        /// `original_max_position_embeddings`.
        original_context: usize,
        /// `beta_fast`.
        beta_fast: f32,
        /// `beta_slow`.
        beta_slow: f32,
        /// `attention_factor`, `None` for the paper's.
        attention_factor: Option<f32>,
    },
}

/// Rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// Channels that rotate.
    pub dim: usize,
    /// Which channels pair up.
    pub layout: RopeLayout,
    /// Long-context rule.
    pub scaling: RopeScaling,
    // `rope_freqs.weight` of a GGUF file, where there is one, divides the frequencies; the model loads it.
}

/// Hyper-parameters of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub architecture: Architecture,
    /// Tokens.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Channels of a head, not always `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// The longest context it was made for.
    pub max_context: usize,
    /// The head is the embedding matrix.
    pub tied: bool,
    /// Attention looks back this far only (Mistral v0.1).
    pub sliding_window: Option<usize>,
}

/// The largest values taken. Beyond every published model of these architectures, and small enough that no sum or product of them overflows.
mod limits {
    pub(super) const LAYERS: usize = 1024;
    pub(super) const WIDTH: usize = 1 << 20;
    pub(super) const HEADS: usize = 1 << 14;
    pub(super) const HEAD_DIM: usize = 1 << 13;
    pub(super) const VOCAB: usize = 1 << 24;
    pub(super) const CONTEXT: usize = 1 << 30;
}

impl ModelConfig {
    /// Channels of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Channels of all key heads together; those of all value heads are as many.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Every tensor that the model reads: GGUF name, shape (rows first), whether it may be absent. Biases may always be absent, and are used where
    /// they are present; the head is absent where it is the embedding.
    pub fn expected_tensors(&self) -> Vec<(String, Vec<usize>, bool)> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let mut list = vec![("token_embd.weight".to_owned(), vec![self.vocab_size, hidden], false)];
        let mut linear = |name: String, rows: usize, cols: usize| {
            list.push((format!("{name}.weight"), vec![rows, cols], false));
            list.push((format!("{name}.bias"), vec![rows], true));
        };
        for l in 0..self.num_layers {
            linear(format!("blk.{l}.attn_q"), self.q_dim(), hidden);
            linear(format!("blk.{l}.attn_k"), self.kv_dim(), hidden);
            linear(format!("blk.{l}.attn_v"), self.kv_dim(), hidden);
            linear(format!("blk.{l}.attn_output"), hidden, self.q_dim());
            linear(format!("blk.{l}.ffn_gate"), ffn, hidden);
            linear(format!("blk.{l}.ffn_up"), ffn, hidden);
            linear(format!("blk.{l}.ffn_down"), hidden, ffn);
        }
        if !self.tied {
            linear("output".to_owned(), self.vocab_size, hidden);
        }
        for l in 0..self.num_layers {
            list.push((format!("blk.{l}.attn_norm.weight"), vec![hidden], false));
            list.push((format!("blk.{l}.ffn_norm.weight"), vec![hidden], false));
            if self.architecture == Architecture::Qwen3 {
                list.push((format!("blk.{l}.attn_q_norm.weight"), vec![self.head_dim], false));
                list.push((format!("blk.{l}.attn_k_norm.weight"), vec![self.head_dim], false));
            }
        }
        list.push(("output_norm.weight".to_owned(), vec![hidden], false));
        list
    }

    /// Checks the values against each other and against the limits. `path` is the file they come from.
    fn validated(self, path: &Path) -> Result<Self> {
        let ranges = [
            ("number of layers", self.num_layers, limits::LAYERS),
            ("hidden size", self.hidden_size, limits::WIDTH),
            ("feed-forward size", self.intermediate_size, limits::WIDTH),
            ("number of heads", self.num_heads, limits::HEADS),
            ("number of key/value heads", self.num_kv_heads, limits::HEADS),
            ("head size", self.head_dim, limits::HEAD_DIM),
            ("vocabulary size", self.vocab_size, limits::VOCAB),
            ("context length", self.max_context, limits::CONTEXT),
        ];
        for (what, value, most) in ranges {
            if value == 0 || value > most {
                return Err(Error::malformed(path, what, format!("1 to {most}"), value.to_string()));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            let expected = format!("a divisor of the {} heads", self.num_heads);
            return Err(Error::malformed(path, "number of key/value heads", expected, self.num_kv_heads.to_string()));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::malformed(path, "head size", "an even number", self.head_dim.to_string()));
        }
        if self.rope.dim != self.head_dim {
            let what = format!("rotation of {} of {} channels of a head", self.rope.dim, self.head_dim);
            return Err(Error::Unsupported(format!("{}: {what}", path.display())));
        }
        if !(self.rms_norm_eps >= 0.0 && self.rms_norm_eps < 1.0) {
            return Err(Error::malformed(path, "epsilon of the norms", "0 to 1", self.rms_norm_eps.to_string()));
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 0.0) {
            return Err(Error::malformed(path, "rope theta", "a positive number", self.rope.theta.to_string()));
        }
        self.rope.scaling.validate(path)?;
        if self.sliding_window == Some(0) {
            return Err(Error::malformed(path, "sliding window", "at least 1", "0"));
        }
        Ok(self)
    }
}

impl RopeScaling {
    fn validate(&self, path: &Path) -> Result<()> {
        let positive = |what: &str, value: f32| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => {
                Err(Error::malformed(path, format!("rope scaling: {what}"), "a positive number", value.to_string()))
            }
        };
        let context = |value: usize| match value {
            1..=limits::CONTEXT => Ok(()),
            _ => Err(Error::malformed(
                path,
                "rope scaling: original context",
                format!("1 to {}", limits::CONTEXT),
                value.to_string(),
            )),
        };
        match *self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("factor", factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor", high_freq_factor)?;
                if high_freq_factor <= low_freq_factor {
                    let found = format!("{high_freq_factor} and {low_freq_factor}");
                    return Err(Error::malformed(
                        path,
                        "rope scaling: high_freq_factor",
                        "more than low_freq_factor",
                        found,
                    ));
                }
                context(original_context)
            }
            Self::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                positive("factor", factor)?;
                positive("beta_fast", beta_fast)?;
                positive("beta_slow", beta_slow)?;
                positive("attention_factor", attention_factor.unwrap_or(1.0))?;
                context(original_context)
            }
        }
    }
}
