//! Presets: what to choose for how many bits.

use crate::codec::{Codec, Side};
use crate::error::unsupported;
use crate::spec::{Centre, KvSpec};
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A choice for all layers of a model.
///
/// Bits per value are those of 128 channels per head, scales included; errors on the same data beside those of ggml's types and KIVI are in
/// `docs/kv-cache.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Half precision, rotated and centred like the others: the reference. 16 bits.
    F16,
    /// 8-bit floats with a scale per block and head. 8.06 bits. For interchange: `int8` is more exact and faster.
    Fp8,
    /// 8-bit floats with more exponent bits.
    Fp8E5m2,
    /// Rotated bytes with a scale per token and head. 8.13 bits; the one to take unless memory is short.
    Int8,
    /// Keys as in `int8`, values of 4 bits. 6.19 bits.
    K8v4,
    /// 4 bits in groups of 64; 4 first tokens stay in half precision. 4.25 bits.
    R4,
    /// 3 bits in groups of 64; 4 first tokens and the last 128 stay in half precision, the first and the last two layers have 4 bits. 3.25 bits.
    R3,
    /// 2 bits in groups of 64; the same tokens stay in half precision. 2.25 bits.
    R2,
}

impl Preset {
    /// All, most bits first.
    pub const ALL: [Self; 8] =
        [Self::F16, Self::Fp8, Self::Fp8E5m2, Self::Int8, Self::K8v4, Self::R4, Self::R3, Self::R2];

    /// Its name: `f16`, `fp8`, `fp8-e5m2`, `int8`, `k8v4`, `r4`, `r3`, `r2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Fp8 => "fp8",
            Self::Fp8E5m2 => "fp8-e5m2",
            Self::Int8 => "int8",
            Self::K8v4 => "k8v4",
            Self::R4 => "r4",
            Self::R3 => "r3",
            Self::R2 => "r2",
        }
    }

    /// Keys and values of a layer.
    pub fn sides(self, layer: usize, layers: usize) -> (Side, Side) {
        let lloyd = |bits, group| Side::new(Codec::Lloyd { bits, group });
        let both = |side| (side, side);
        // The outer layers are the most sensitive ones.
        let outer = layer < 2 || layer + 2 >= layers;
        match self {
            Self::F16 => both(Side::new(Codec::F16).rotated(Side::WHOLE)),
            Self::Fp8 => both(Side::new(Codec::F8E4M3 { scale: None })),
            Self::Fp8E5m2 => both(Side::new(Codec::F8E5M2 { scale: None })),
            Self::Int8 => both(Side::new(Codec::Int8)),
            Self::K8v4 => (Side::new(Codec::Int8), lloyd(4, 64)),
            Self::R4 => both(lloyd(4, 64)),
            Self::R3 if outer => both(lloyd(4, 64)),
            Self::R3 => both(lloyd(3, 64)),
            Self::R2 => both(lloyd(2, 64)),
        }
    }

    /// A layer's cache, with a centre for its keys: the best is one before the rotary embedding (then [`KvSpec::with_rope`] too), from the key bias or
    /// from calibration.
    pub fn spec(self, kv_heads: usize, head_dim: usize, layer: usize, layers: usize, centre: Centre) -> KvSpec {
        let (key, value) = self.sides(layer, layers);
        // First tokens have keys of their own, far from any mean.
        let (sinks, recent) = match self {
            Self::R4 => (4, 0),
            Self::R3 | Self::R2 => (4, 128),
            _ => (0, 0),
        };
        KvSpec { sinks, recent, centre, ..KvSpec::new(kv_heads, head_dim, key, value) }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.iter().find(|p| p.name() == name) {
            Some(preset) => Ok(*preset),
            None => {
                let names: Vec<&str> = Self::ALL.iter().map(|p| p.name()).collect();
                unsupported(format!("cache preset `{name}`"), format!("known are {}", names.join(", ")))
            }
        }
    }
}
