//! `general.*` and the architecture's own keys, from config.json.
//!
//! Keys and their order as llama.cpp's conversion/base.py writes them.

use crate::ModelConfig;
use crate::model::{Architecture, RopeScaling};
use gguf_format::Metadata;

/// The architecture's name in GGUF.
pub(super) fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

/// Writes the keys. `has_head_dim`: config.json says the head's size itself. `parameters`: values of all tensors.
pub(super) fn write(config: &ModelConfig, name: &str, parameters: u64, has_head_dim: bool, metadata: &mut Metadata) {
    let arch = architecture_name(config.architecture);
    metadata.set("general.architecture", arch);
    metadata.set("general.type", "model");
    metadata.set("general.name", name);
    metadata.set("general.size_label", size_label(parameters));

    let mut count = |key: &str, n: usize| metadata.set(&format!("{arch}.{key}"), u32::try_from(n).unwrap_or(u32::MAX));
    count("block_count", config.num_layers);
    // YaRN's stretch included; a reader takes the larger of this and what the stretch gives.
    count("context_length", config.max_context);
    count("embedding_length", config.hidden_size);
    count("feed_forward_length", config.intermediate_size);
    count("attention.head_count", config.num_heads);
    count("attention.head_count_kv", config.num_kv_heads);
    if let Some(window) = config.sliding_window {
        count("attention.sliding_window", window);
    }
    rope(config, arch, metadata);
    metadata.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), config.rms_norm_eps);
    let mut count = |key: &str, n: usize| metadata.set(&format!("{arch}.{key}"), u32::try_from(n).unwrap_or(u32::MAX));
    if has_head_dim || config.head_dim * config.num_heads != config.hidden_size {
        count("attention.key_length", config.head_dim);
        count("attention.value_length", config.head_dim);
    }
    count("vocab_size", config.vocab_size);
    count("rope.dimension_count", config.rope.dim);
}

fn rope(config: &ModelConfig, arch: &str, metadata: &mut Metadata) {
    let key = |name: &str| format!("{arch}.rope.{name}");
    match config.rope.scaling {
        // Llama 3's rule is a tensor, `rope_freqs.weight`.
        RopeScaling::None | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            metadata.set(&key("scaling.type"), "linear");
            metadata.set(&key("scaling.factor"), factor);
        }
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
            metadata.set(&key("scaling.type"), "yarn");
            metadata.set(&key("scaling.factor"), factor);
            metadata.set(&key("scaling.original_context_length"), u32::try_from(original_context).unwrap_or(u32::MAX));
            if let Some(attention) = attention_factor {
                // Readers multiply the paper's factor by this one (src/llama-context.cpp), config.json gives their product.
                metadata.set(&key("scaling.attn_factor"), attention / (0.1 * factor.ln() + 1.0));
            }
            metadata.set(&key("scaling.yarn_beta_fast"), beta_fast);
            metadata.set(&key("scaling.yarn_beta_slow"), beta_slow);
        }
    }
    metadata.set(&key("freq_base"), config.rope.theta);
}

/// `8.0B`, `494M`: at least two digits, as gguf-py's `model_weight_count_rounded_notation`.
fn size_label(parameters: u64) -> String {
    let n = parameters as f64;
    let (scaled, suffix) = match n {
        n if n > 1e12 => (n * 1e-12, 'T'),
        n if n > 1e9 => (n * 1e-9, 'B'),
        n if n > 1e6 => (n * 1e-6, 'M'),
        n => (n * 1e-3, 'K'),
    };
    let whole = scaled.round_ties_even() as u64;
    let digits = if whole == 0 { 0 } else { whole.to_string().len() };
    format!("{scaled:.*}{suffix}", 2usize.saturating_sub(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_labels() {
        for (n, expected) in [
            (5_768_448, "5.8M"),
            (630_167_424, "630M"),
            (8_030_261_248, "8.0B"),
            (70_553_706_496, "71B"),
            (1_100_000_000, "1.1B"),
            (260_032, "260K"),
            (500, "0.50K"),
        ] {
            assert_eq!(size_label(n), expected, "{n}");
        }
    }
}
