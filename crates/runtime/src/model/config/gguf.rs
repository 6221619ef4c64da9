//! Hyper-parameters from GGUF metadata.
//!
//! Keys as in gguf-py's `constants.py`, defaults as llama.cpp's loader takes them.

use super::{Architecture, ModelConfig, RopeConfig, RopeLayout, RopeScaling};
use crate::checkpoint::GgufFile;
use crate::{Error, Result};
use gguf_format::{GgufSplits, Metadata};
use std::path::Path;

impl ModelConfig {
    /// Reads the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an architecture or a part that is not built here; [`Error::Gguf`] and [`Error::Malformed`] for a key that is
    /// missing, of the wrong type, or impossible.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        Self::from_gguf_parts(&file.gguf, &file.path)
    }

    /// As [`ModelConfig::from_gguf`], over any storage; `path` is named in errors.
    pub fn from_gguf_parts<S: AsRef<[u8]>>(gguf: &GgufSplits<S>, path: &Path) -> Result<Self> {
        let metadata = gguf.metadata();
        let unsupported = |what: String| Error::Unsupported(format!("{}: {what}", path.display()));
        let arch = metadata.need_str("general.architecture").map_err(|e| Error::gguf(path, e))?;
        let (architecture, layout) = match arch {
            // GGUF knows Mistral as llama too.
            "llama" => (Architecture::Llama, RopeLayout::Adjacent),
            "qwen2" => (Architecture::Qwen2, RopeLayout::Halves),
            "qwen3" => (Architecture::Qwen3, RopeLayout::Halves),
            other => return Err(unsupported(format!("architecture `{other}` (llama, qwen2 and qwen3 are)"))),
        };
        let keys = Keys { path, metadata, arch };
        if let Some(experts) = keys.usize("expert_count")?.filter(|&n| n > 0) {
            return Err(unsupported(format!("{experts} experts (`{arch}.expert_count`)")));
        }

        let hidden_size = keys.need_usize("embedding_length")?;
        let num_layers = keys.need_usize("block_count")?;
        let num_heads = keys.need_per_layer("attention.head_count", num_layers)?;
        let num_kv_heads = keys.per_layer("attention.head_count_kv", num_layers)?.unwrap_or(num_heads);
        let intermediate_size = keys.need_per_layer("feed_forward_length", num_layers)?;
        let head_dim = match keys.usize("attention.key_length")? {
            Some(n) => n,
            None if num_heads > 0 && hidden_size % num_heads == 0 => hidden_size / num_heads,
            None => {
                let expected = format!("a divisor of the embedding length {hidden_size}");
                return Err(Error::malformed(path, keys.what("attention.head_count"), expected, num_heads.to_string()));
            }
        };
        let value_length = keys.usize("attention.value_length")?.unwrap_or(head_dim);
        if value_length != head_dim {
            return Err(unsupported(format!("keys of {head_dim} and values of {value_length} channels")));
        }
        let context = keys.need_usize("context_length")?;
        let (scaling, max_context) = rope_scaling(&keys, context)?;

        let tokens = metadata.get_array("tokenizer.ggml.tokens").map_err(|e| Error::gguf(path, e))?.map(|a| a.len());
        let rows = gguf.tensor("token_embd.weight").and_then(|t| usize::try_from(*t.shape().first()?).ok());
        let vocab_size = match (rows, tokens, keys.usize("vocab_size")?) {
            (Some(rows), Some(tokens), _) if rows != tokens => {
                let what = "tensor `token_embd.weight`";
                return Err(Error::malformed(path, what, format!("{tokens} rows, one a token"), rows.to_string()));
            }
            (Some(n), ..) | (None, Some(n), _) | (None, None, Some(n)) => n,
            (None, None, None) => return Err(keys.missing("vocab_size")),
        };
        let config = Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
            rms_norm_eps: keys.need_f32("attention.layer_norm_rms_epsilon")?,
            rope: RopeConfig {
                theta: keys.f32("rope.freq_base")?.unwrap_or(10_000.0),
                dim: keys.usize("rope.dimension_count")?.unwrap_or(head_dim),
                layout,
                scaling,
            },
            max_context,
            tied: gguf.tensor("output.weight").is_none(),
            sliding_window: keys.usize("attention.sliding_window")?.filter(|&n| n > 0),
        };
        config.validated(path)
    }
}

/// The scaling, and the context that it reaches.
fn rope_scaling(keys: &Keys<'_>, context: usize) -> Result<(RopeScaling, usize)> {
    let factor = match keys.f32("rope.scaling.factor")? {
        Some(f) => f,
        None => keys.f32("rope.scale_linear")?.unwrap_or(1.0),
    };
    // llama.cpp writes and reads 0 as "no scaling".
    let factor = if factor == 0.0 { 1.0 } else { factor };
    let kind = keys.str("rope.scaling.type")?.unwrap_or("linear");
    match kind {
        "none" => Ok((RopeScaling::None, context)),
        "linear" if factor == 1.0 => Ok((RopeScaling::None, context)),
        "linear" => Ok((RopeScaling::Linear { factor }, context)),
        "yarn" => {
            let original_context = keys.usize("rope.scaling.original_context_length")?.unwrap_or(context);
            for key in ["rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor"] {
                if keys.f32(key)?.is_some_and(|v| v != 0.0 && !(key.ends_with("ext_factor") && (v == 1.0 || v < 0.0))) {
                    return Err(Error::Unsupported(format!("{}: {}", keys.path.display(), keys.what(key))));
                }
            }
            // llama.cpp multiplies the paper's factor, YarnAttention, by this one.
            let extra = match keys.f32("rope.scaling.attn_factor")? {
                Some(v) => Some(v),
                None => keys.f32("rope.scaling.yarn_attn_factor")?,
            };
            let attention_factor = extra.filter(|&v| v != 1.0 && v > 0.0).map(|v| v * (0.1 * factor.ln() + 1.0));
            let reached = (original_context as f64 * f64::from(factor)).min(super::limits::CONTEXT as f64) as usize;
            let scaling = RopeScaling::Yarn {
                factor,
                original_context,
                beta_fast: keys.f32("rope.scaling.yarn_beta_fast")?.filter(|&v| v > 0.0).unwrap_or(32.0),
                beta_slow: keys.f32("rope.scaling.yarn_beta_slow")?.filter(|&v| v > 0.0).unwrap_or(1.0),
                attention_factor,
            };
            Ok((scaling, context.max(reached)))
        }
        other => Err(Error::Unsupported(format!(
            "{}: rope scaling `{other}` (none, linear and yarn are)",
            keys.path.display()
        ))),
    }
}

/// The keys `ARCH.*` with typed access and errors that name the file.
struct Keys<'a> {
    path: &'a Path,
    metadata: &'a Metadata,
    arch: &'a str,
}

impl<'a> Keys<'a> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn what(&self, key: &str) -> String {
        format!("key `{}.{key}`", self.arch)
    }

    fn missing(&self, key: &str) -> Error {
        Error::gguf(self.path, gguf_format::Error::MissingKey { key: self.name(key) })
    }

    fn usize(&self, key: &str) -> Result<Option<usize>> {
        let value = self.metadata.get_u64(&self.name(key)).map_err(|e| Error::gguf(self.path, e))?;
        value
            .map(|v| {
                usize::try_from(v)
                    .map_err(|_| Error::malformed(self.path, self.what(key), "a number that fits", v.to_string()))
            })
            .transpose()
    }

    fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.metadata.get_f32(&self.name(key)).map_err(|e| Error::gguf(self.path, e))? {
            Some(v) if !v.is_finite() => {
                Err(Error::malformed(self.path, self.what(key), "a finite number", v.to_string()))
            }
            other => Ok(other),
        }
    }

    fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.get_str(&self.name(key)).map_err(|e| Error::gguf(self.path, e))
    }

    fn need_usize(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| self.missing(key))
    }

    fn need_f32(&self, key: &str) -> Result<f32> {
        self.f32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number, or an array of the same number for every layer.
    fn per_layer(&self, key: &str, layers: usize) -> Result<Option<usize>> {
        let name = self.name(key);
        if let Ok(Some(array)) = self.metadata.get_array(&name) {
            let mut values = array.ints().map_err(|e| Error::gguf(self.path, e))?;
            let count = array.len();
            if count < layers || count == 0 {
                return Err(Error::malformed(self.path, self.what(key), format!("{layers} values"), count.to_string()));
            }
            let first = values.next().unwrap_or(0);
            if values.take(layers.saturating_sub(1)).any(|v| v != first) {
                return Err(Error::Unsupported(format!(
                    "{}: different values of `{name}` by layer",
                    self.path.display()
                )));
            }
            let first = usize::try_from(first)
                .map_err(|_| Error::malformed(self.path, self.what(key), "a positive number", first.to_string()))?;
            return Ok(Some(first));
        }
        self.usize(key)
    }

    fn need_per_layer(&self, key: &str, layers: usize) -> Result<usize> {
        self.per_layer(key, layers)?.ok_or_else(|| self.missing(key))
    }
}
