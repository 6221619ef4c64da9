//! Hyper-parameters from config.json, in the form of transformers 4 and of transformers 5.
//!
//! Fields and defaults as in transformers' `configuration_{llama,mistral,qwen2,qwen3}.py` and `modeling_rope_utils.py`.

use super::{Architecture, ModelConfig, RopeConfig, RopeLayout, RopeScaling};
use crate::checkpoint::HfDir;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

impl ModelConfig {
    /// Reads config.json of a Hugging Face directory.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an architecture, activation, rope scaling or quantization that is not built here; [`Error::Malformed`] for a
    /// field that is missing, of the wrong type, or impossible.
    pub fn from_hf(dir: &HfDir) -> Result<Self> {
        let path = dir.path().join("config.json");
        Self::from_config_json(dir.config_json(), &path)
    }

    /// As [`ModelConfig::from_hf`], from the JSON itself; `path` is named in errors.
    pub fn from_config_json(json: &Value, path: &Path) -> Result<Self> {
        let empty = Map::new();
        let fields = Fields { path, prefix: String::new(), map: json.as_object().unwrap_or(&empty) };
        let unsupported = |what: String| Error::Unsupported(format!("{}: {what}", path.display()));

        let model_type = fields.need_str("model_type")?;
        let architecture = match model_type {
            "llama" => Architecture::Llama,
            "mistral" => Architecture::Mistral,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => return Err(unsupported(format!("model_type `{other}` (llama, mistral, qwen2 and qwen3 are)"))),
        };
        for key in ["quantization_config", "compression_config"] {
            if let Some(q) = fields.get(key) {
                let method = q.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
                let packed = ["gptq", "awq", "compressed-tensors"].iter().any(|m| method.eq_ignore_ascii_case(m));
                if packed && key == "quantization_config" {
                    continue;
                }
                return Err(unsupported(format!(
                    "weights quantized by `{method}` (`{key}`); a dense, GPTQ, AWQ or compressed-tensors directory is needed"
                )));
            }
        }
        match fields.str("hidden_act")? {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(unsupported(format!("hidden_act `{other}`"))),
        }

        let hidden_size = fields.need_usize("hidden_size")?;
        let num_layers = fields.need_usize("num_hidden_layers")?;
        let num_heads = fields.need_usize("num_attention_heads")?;
        let num_kv_heads = match fields.usize("num_key_value_heads")? {
            Some(n) => n,
            None if architecture == Architecture::Llama => num_heads,
            None => return Err(fields.missing("num_key_value_heads", "a whole number")),
        };
        let head_dim = match fields.usize("head_dim")? {
            Some(n) => n,
            // transformers' Qwen3 does not derive it.
            None if architecture == Architecture::Qwen3 => 128,
            None if num_heads > 0 && hidden_size % num_heads == 0 => hidden_size / num_heads,
            None => {
                let expected = format!("a divisor of hidden_size {hidden_size}, or `head_dim`");
                return Err(Error::malformed(path, "`num_attention_heads`", expected, num_heads.to_string()));
            }
        };
        let max_context = fields.usize("max_position_embeddings")?.unwrap_or(match architecture {
            Architecture::Llama => 2048,
            Architecture::Mistral => 131_072,
            Architecture::Qwen2 | Architecture::Qwen3 => 32_768,
        });
        let (theta, scaling) = rope(&fields, max_context)?;
        let max_context = match scaling {
            // Some publish the length before YaRN stretches it.
            RopeScaling::Yarn { factor, original_context, .. } => max_context
                .max((original_context as f64 * f64::from(factor)).min(super::limits::CONTEXT as f64) as usize),
            _ => max_context,
        };
        let config = Self {
            architecture,
            vocab_size: fields.need_usize("vocab_size")?,
            hidden_size,
            intermediate_size: fields.need_usize("intermediate_size")?,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
            rms_norm_eps: fields.f32("rms_norm_eps")?.unwrap_or(1e-6),
            rope: RopeConfig { theta, dim: head_dim, layout: RopeLayout::Halves, scaling },
            max_context,
            tied: fields.bool("tie_word_embeddings")?.unwrap_or(false),
            sliding_window: sliding_window(&fields, architecture, num_layers)?,
        };
        config.validated(path)
    }
}

/// Theta and scaling: `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).
fn rope(fields: &Fields<'_>, max_context: usize) -> Result<(f32, RopeScaling)> {
    let unsupported = |what: String| Error::Unsupported(format!("{}: {what}", fields.path.display()));
    let key = if fields.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let partial = fields.f32("partial_rotary_factor")?.unwrap_or(1.0);
    let Some(rope) = fields.object(key)? else {
        if partial != 1.0 {
            return Err(unsupported(format!("partial_rotary_factor {partial}")));
        }
        return Ok((fields.f32("rope_theta")?.unwrap_or(10_000.0), RopeScaling::None));
    };
    let partial = rope.f32("partial_rotary_factor")?.unwrap_or(partial);
    if partial != 1.0 {
        return Err(unsupported(format!("partial_rotary_factor {partial}")));
    }
    let theta = match rope.f32("rope_theta")? {
        Some(theta) => theta,
        None => fields.f32("rope_theta")?.unwrap_or(10_000.0),
    };
    let kind = match rope.str("rope_type")? {
        Some(kind) => kind,
        None => rope.str("type")?.unwrap_or("default"),
    };
    let original = || Ok::<_, Error>(rope.usize("original_max_position_embeddings")?.unwrap_or(max_context));
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: rope.need_f32("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: rope.need_f32("factor")?,
            low_freq_factor: rope.need_f32("low_freq_factor")?,
            high_freq_factor: rope.need_f32("high_freq_factor")?,
            original_context: original()?,
        },
        "yarn" => {
            for key in ["mscale", "mscale_all_dim"] {
                if rope.f32(key)?.is_some_and(|v| v != 0.0) {
                    return Err(unsupported(format!("`{key}` of yarn rope scaling")));
                }
            }
            if rope.bool("truncate")? == Some(false) {
                return Err(unsupported("yarn rope scaling with `truncate` false".into()));
            }
            RopeScaling::Yarn {
                factor: rope.need_f32("factor")?,
                original_context: original()?,
                beta_fast: rope.f32("beta_fast")?.unwrap_or(32.0),
                beta_slow: rope.f32("beta_slow")?.unwrap_or(1.0),
                attention_factor: rope.f32("attention_factor")?,
            }
        }
        other => return Err(unsupported(format!("rope scaling `{other}` (linear, llama3 and yarn are)"))),
    };
    Ok((theta, scaling))
}

/// The window, where the model uses one. A window on some layers only is refused.
fn sliding_window(fields: &Fields<'_>, architecture: Architecture, num_layers: usize) -> Result<Option<usize>> {
    let window = fields.usize("sliding_window")?;
    let used = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        Architecture::Qwen2 | Architecture::Qwen3 => fields.bool("use_sliding_window")?.unwrap_or(false),
    };
    let Some(window) = window.filter(|_| used) else { return Ok(None) };
    let sliding = if let Some(types) = fields.get("layer_types").filter(|_| architecture != Architecture::Mistral) {
        let Some(types) = types.as_array().filter(|t| t.len() == num_layers) else {
            return Err(fields.wrong("layer_types", "an array of one string a layer", types));
        };
        types.iter().filter(|t| t.as_str() == Some("sliding_attention")).count()
    } else if architecture == Architecture::Mistral {
        num_layers
    } else {
        // Layers from this one on slide; transformers' default is 28.
        num_layers.saturating_sub(fields.usize("max_window_layers")?.unwrap_or(28))
    };
    match sliding {
        0 => Ok(None),
        n if n == num_layers => Ok(Some(window)),
        n => Err(Error::Unsupported(format!(
            "{}: a sliding window on {n} of {num_layers} layers (on all or none is)",
            fields.path.display()
        ))),
    }
}

/// An object of the JSON with typed access. A field that is null counts as absent.
struct Fields<'a> {
    path: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn what(&self, key: &str) -> String {
        format!("`{}{key}`", self.prefix)
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        Error::malformed(self.path, self.what(key), expected, "nothing")
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        let mut found = found.to_string();
        if found.len() > 60 {
            let cut = (0..=60).rev().find(|&i| found.is_char_boundary(i)).unwrap_or(0);
            found.truncate(cut);
            found.push_str("...");
        }
        Error::malformed(self.path, self.what(key), expected, found)
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        self.get(key).map(|v| read(v).ok_or_else(|| self.wrong(key, expected, v))).transpose()
    }

    fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite number", |v| v.as_f64().map(|n| n as f32).filter(|n| n.is_finite()))
    }

    fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    fn object(&self, key: &str) -> Result<Option<Self>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { path: self.path, prefix: format!("{}{key}.", self.prefix), map }))
    }

    fn need_usize(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    fn need_f32(&self, key: &str) -> Result<f32> {
        self.f32(key)?.ok_or_else(|| self.missing(key, "a finite number"))
    }

    fn need_str(&self, key: &str) -> Result<&'a str> {
        self.str(key)?.ok_or_else(|| self.missing(key, "a string"))
    }
}
