//! Hyper-parameters of a decoder, read from config.json or from GGUF metadata.

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
