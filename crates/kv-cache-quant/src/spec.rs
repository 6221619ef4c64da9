//! What a cache is to be: shapes, codecs, centre, which tokens stay in half precision.

use crate::codec::{Codec, Side};
use crate::encode::MAX_CHANNELS;
use crate::error::{shape, unsupported};
use crate::{Error, Result};
use quant_core::rotation::Rotation;

/// Which channels of a head a rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairLayout {
    /// Channel `i` with `i + n` of `2 n` turned channels (Hugging Face's `rotate_half`).
    Halves,
    /// Channel `2 i` with `2 i + 1` (the original paper's, Llama's in GGUF).
    Adjacent,
}

/// The rotary embedding that keys and queries have been through: channel pair `i` is turned by `position * frequencies[i]` radians.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Radians per position, one per pair, scaling for long contexts included.
    pub frequencies: Vec<f64>,
    /// What the turned channels are multiplied by (YaRN's attention factor), else 1.
    pub magnitude: f64,
    /// Which channels are pairs.
    pub layout: PairLayout,
}

impl RopeSpec {
    /// Without scaling: `theta^(-2 i / dims)` for `dims` turned channels.
    pub fn plain(dims: usize, theta: f64, layout: PairLayout) -> Self {
        let frequencies = (0..dims / 2).map(|i| theta.powf(-2.0 * i as f64 / dims as f64)).collect();
        Self { frequencies, magnitude: 1.0, layout }
    }

    /// The channels of a pair.
    pub(crate) fn channels(&self, pair: usize) -> (usize, usize) {
        match self.layout {
            PairLayout::Halves => (pair, pair + self.frequencies.len()),
            PairLayout::Adjacent => (2 * pair, 2 * pair + 1),
        }
    }
}

/// What is subtracted from keys before they are quantized, and given back exactly in the logits: `q . (k - c) + q . c`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Centre {
    /// Nothing.
    #[default]
    None,
    /// The same for every position, `[kv_heads, head_dim]`.
    Constant(Vec<f32>),
    /// A mean of the keys before their rotary embedding, `[kv_heads, head_dim]`: what a model adds as the key bias, or a mean of calibration keys.
    /// The centre at a position is this mean, turned. Needs [`KvSpec::rope`].
    BeforeRope {
        /// The mean.
        mean: Vec<f32>,
        /// How many channel pairs per head are centred: those of the largest mean. Each costs two products per key and query; a few carry nearly
        /// all of the effect.
        pairs: usize,
    },
    /// The mean of a block's keys, in half precision. The block stays in half precision until it is full.
    BlockMean,
}

/// A cache of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct KvSpec {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Channels of a head, of keys and of values.
    pub head_dim: usize,
    /// How keys are stored.
    pub key: Side,
    /// How values are stored.
    pub value: Side,
    /// Tokens of a block, 32 or 64.
    pub block: usize,
    /// So many first tokens stay in half precision, up to a block.
    pub sinks: usize,
    /// At least so many last tokens stay in half precision, and up to a block more.
    pub recent: usize,
    /// What is subtracted from keys.
    pub centre: Centre,
    /// The rotary embedding of the keys given: needed by [`Centre::BeforeRope`] and to shift positions.
    pub rope: Option<RopeSpec>,
}

impl KvSpec {
    /// Blocks of 64, no centre, nothing kept in half precision.
    pub fn new(kv_heads: usize, head_dim: usize, key: Side, value: Side) -> Self {
        Self { kv_heads, head_dim, key, value, block: 64, sinks: 0, recent: 0, centre: Centre::None, rope: None }
    }

    /// The same with a centre.
    pub fn with_centre(self, centre: Centre) -> Self {
        Self { centre, ..self }
    }

    /// The same for keys that have been through this rotary embedding.
    pub fn with_rope(self, rope: RopeSpec) -> Self {
        Self { rope: Some(rope), ..self }
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Unsupported`].
    pub fn validate(&self) -> Result<()> {
        if self.kv_heads == 0 {
            return shape("kv_heads", "at least 1", 0);
        }
        if self.head_dim == 0 || self.head_dim > MAX_CHANNELS {
            return shape("head_dim", format!("1 to {MAX_CHANNELS}"), self.head_dim);
        }
        if !matches!(self.block, 32 | 64) {
            return shape("tokens of a block", "32 or 64", self.block);
        }
        if self.sinks > self.block {
            return shape("sinks", format!("at most a block of {}", self.block), self.sinks);
        }
        let width = self.kv_heads.checked_mul(self.head_dim).ok_or_else(|| Error::Shape {
            what: "kv_heads",
            expected: "a width that fits in memory".into(),
            found: self.kv_heads,
        })?;
        for side in [self.key, self.value] {
            self.validate_side(side)?;
        }
        if let Some(rope) = &self.rope {
            let finite = rope.frequencies.iter().chain([&rope.magnitude]).all(|f| f.is_finite());
            if !finite || 2 * rope.frequencies.len() > self.head_dim {
                return shape(
                    "frequencies of the rotary embedding",
                    "finite, at most half the head",
                    rope.frequencies.len(),
                );
            }
        }
        let mean = match &self.centre {
            Centre::None | Centre::BlockMean => return Ok(()),
            Centre::BeforeRope { .. } if self.rope.is_none() => {
                return unsupported(
                    "a centre before the rotary embedding",
                    "the specification has no rotary embedding",
                );
            }
            Centre::Constant(mean) | Centre::BeforeRope { mean, .. } => mean,
        };
        if mean.len() != width {
            return shape("values of the centre", width.to_string(), mean.len());
        }
        match mean.iter().position(|v| !v.is_finite()) {
            Some(at) => shape("values of the centre", "finite numbers", at),
            None => Ok(()),
        }
    }

    fn validate_side(&self, side: Side) -> Result<()> {
        let d = self.head_dim;
        match side.codec {
            Codec::Ggml(_) if !d.is_multiple_of(32) => {
                unsupported(side.to_string(), format!("its blocks of 32 values do not divide heads of {d}"))
            }
            Codec::Kivi { bits } if !matches!(bits, 2 | 4) => unsupported(side.to_string(), "2 or 4 bits"),
            Codec::Lloyd { bits, group } if !matches!(bits, 2..=4) || !matches!(group, 32 | 64 | 128) => {
                unsupported(side.to_string(), "2 to 4 bits in groups of 32, 64 or 128")
            }
            Codec::F8E4M3 { scale: Some(scale) } | Codec::F8E5M2 { scale: Some(scale) }
                if !(scale.is_normal() && scale > 0.0) =>
            {
                unsupported(side.to_string(), "the scale must be a positive number")
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn key_rotation(&self) -> Rotation {
        Rotation::new(self.head_dim, self.key.rotation)
    }

    pub(crate) fn value_rotation(&self) -> Rotation {
        Rotation::new(self.head_dim, self.value.rotation)
    }
}
