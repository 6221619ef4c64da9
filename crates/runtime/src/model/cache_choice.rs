//! What the keys and values of a sequence are stored as.

use crate::{Error, Result};
use kv_cache_quant::{Centre, KvSpec, PairLayout, Preset, RopeSpec, Side};

/// How a cache keeps keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CacheChoice {
    /// As they are, f32.
    #[default]
    F32,
    /// A preset of `kv-cache-quant`; keys are centred by their mean before the rotary embedding.
    Preset(Preset),
    /// Chosen types, as llama.cpp has them: nothing is centred. See [`Side`] for the names.
    Types {
        /// Of keys.
        key: Side,
        /// Of values.
        value: Side,
    },
}

impl CacheChoice {
    /// From the names of a preset or of types; types that are not given are `f16`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a preset and types together, or an unknown name.
    pub fn parse(preset: Option<&str>, key: Option<&str>, value: Option<&str>) -> Result<Self> {
        let usage = |e: kv_cache_quant::Error| Error::Usage(e.to_string());
        let side = |name: Option<&str>| name.unwrap_or("f16").parse::<Side>().map_err(usage);
        match (preset, key, value) {
            (None, None, None) => Ok(Self::F32),
            (Some(preset), None, None) => Ok(Self::Preset(preset.parse().map_err(usage)?)),
            (None, key, value) => Ok(Self::Types { key: side(key)?, value: side(value)? }),
            (Some(_), ..) => Err(Error::Usage("either a cache preset or cache types, not both".into())),
        }
    }
}

/// Channel pairs that are centred in each head, those of the largest mean (`docs/kv-cache.md`).
const PAIRS: usize = 32;

/// What a layer's cache needs to know of the model.
pub(super) struct LayerFacts<'a> {
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) layer: usize,
    pub(super) layers: usize,
    /// The mean of keys before the rotary embedding, `[kv_heads, head_dim]`.
    pub(super) key_mean: Option<&'a [f32]>,
    pub(super) rope: RopeSpec,
}

impl LayerFacts<'_> {
    /// `None` for f32.
    pub(super) fn spec(&self, choice: CacheChoice) -> Option<KvSpec> {
        let Self { kv_heads, head_dim, layer, layers, .. } = *self;
        let spec = match choice {
            CacheChoice::F32 => return None,
            CacheChoice::Types { key, value } => KvSpec::new(kv_heads, head_dim, key, value),
            CacheChoice::Preset(preset) => {
                let centre = match self.key_mean {
                    Some(mean) => Centre::BeforeRope { mean: mean.to_vec(), pairs: PAIRS },
                    None => Centre::None,
                };
                preset.spec(kv_heads, head_dim, layer, layers, centre)
            }
        };
        Some(spec.with_rope(self.rope.clone()))
    }
}

impl From<super::RopeLayout> for PairLayout {
    fn from(layout: super::RopeLayout) -> Self {
        match layout {
            super::RopeLayout::Halves => Self::Halves,
            super::RopeLayout::Adjacent => Self::Adjacent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let parse = |p, k, v| CacheChoice::parse(p, k, v);
        assert_eq!(parse(None, None, None).unwrap(), CacheChoice::F32);
        assert_eq!(parse(Some("r4"), None, None).unwrap(), CacheChoice::Preset(Preset::R4));
        let CacheChoice::Types { key, value } = parse(None, None, Some("q8_0")).unwrap() else { panic!("types") };
        assert_eq!((key.to_string(), value.to_string()), ("f16".into(), "q8_0".into()));
        for (p, k, v) in [(Some("r9"), None, None), (None, Some("q6_K"), None), (Some("r4"), Some("f16"), None)] {
            assert!(matches!(parse(p, k, v), Err(Error::Usage(_))), "{p:?} {k:?} {v:?}");
        }
    }
}
