//! The codecs by name: how one side of the cache, the keys or the values, is stored.

use crate::error::unsupported;
use crate::{Error, Result};
use gguf_format::GgmlType;
use std::fmt;
use std::str::FromStr;

/// How rows of one key/value head become codes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Codec {
    /// Half precision, 16 bits.
    F16,
    /// 8-bit floats of 4 exponent bits (largest 448), rounded to nearest even, saturating.
    ///
    /// With a scale given, values are divided by it and written as they come. Without, a block and head share `largest magnitude / 448`: nothing
    /// saturates, and a block stays in half precision until it is full.
    F8E4M3 {
        /// The given scale.
        scale: Option<f32>,
    },
    /// 8-bit floats of 5 exponent bits (largest 57344), else as [`Codec::F8E4M3`].
    F8E5M2 {
        /// The given scale.
        scale: Option<f32>,
    },
    /// Signed bytes with one half-precision scale per token and head, `largest magnitude / 127`.
    Int8,
    /// 2, 3 or 4 bits: levels that suit a normal variable, of two grids the one that errs less for a half of a group; each half's scale is fitted by
    /// least squares, and both are kept in 16 bits.
    Lloyd {
        /// 2, 3 or 4.
        bits: u8,
        /// Values whose scales share 16 bits: 32, 64 or 128. The last group of a head is shorter where that does not divide the head.
        group: usize,
    },
    /// A block type of ggml, the bytes of which [`LayerCache::ggml_row`](crate::LayerCache::ggml_row) gives.
    Ggml(GgmlCode),
    /// KIVI, arXiv 2402.02750, as the reference: keys per channel over 32 tokens, values per token over 32 channels, minimum and step in half
    /// precision; 2 or 4 bits. A block stays in half precision until it is full.
    Kivi {
        /// 2 or 4.
        bits: u8,
    },
}

/// The ggml types that llama.cpp takes for its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GgmlCode {
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    Iq4Nl,
}

impl GgmlCode {
    /// In `gguf_format`.
    pub fn ggml_type(self) -> GgmlType {
        match self {
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q5_1 => GgmlType::Q5_1,
            Self::Q5_0 => GgmlType::Q5_0,
            Self::Q4_1 => GgmlType::Q4_1,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Iq4Nl => GgmlType::IQ4_NL,
        }
    }
}

/// Codec and rotation of the keys or of the values.
///
/// The names read by [`FromStr`]: `f16`, `fp8`, `fp8-e5m2`, `int8`, `r4`, `r3`, `r2` (groups of 64; `r4g32` says another), `q8_0`, `q5_1`, `q5_0`,
/// `q4_1`, `q4_0`, `iq4_nl`, `kivi4`, `kivi2`. `int8` and the `r` codecs rotate the whole head, the others nothing; `+rot`, `+rot64` (blocks of 64) and
/// `+plain` behind a name say otherwise.
///
/// ```
/// use kv_cache_quant::{Codec, Side};
/// let side: Side = "r4g32".parse()?;
/// assert_eq!((side.codec, side.to_string().as_str()), (Codec::Lloyd { bits: 4, group: 32 }, "r4g32"));
/// assert_eq!("q4_0+rot64".parse::<Side>()?.rotation, 64);
/// # Ok::<(), kv_cache_quant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// How rows are stored.
    pub codec: Codec,
    /// Largest block of the Hadamard rotation before: 0 for none, [`Side::WHOLE`] for the largest the head allows.
    pub rotation: usize,
}

impl Side {
    /// A rotation of the whole head, in the largest powers of two that fill it.
    pub const WHOLE: usize = usize::MAX;

    /// The codec with its usual rotation.
    pub fn new(codec: Codec) -> Self {
        let rotation = if matches!(codec, Codec::Int8 | Codec::Lloyd { .. }) { Self::WHOLE } else { 0 };
        Self { codec, rotation }
    }

    /// The same with another rotation.
    pub fn rotated(self, largest: usize) -> Self {
        Self { rotation: largest, ..self }
    }
}

const NAMES: [(&str, Codec); 13] = [
    ("f16", Codec::F16),
    ("fp8-e5m2", Codec::F8E5M2 { scale: None }),
    ("fp8-e4m3", Codec::F8E4M3 { scale: None }),
    ("fp8", Codec::F8E4M3 { scale: None }),
    ("int8", Codec::Int8),
    ("q8_0", Codec::Ggml(GgmlCode::Q8_0)),
    ("q5_1", Codec::Ggml(GgmlCode::Q5_1)),
    ("q5_0", Codec::Ggml(GgmlCode::Q5_0)),
    ("q4_1", Codec::Ggml(GgmlCode::Q4_1)),
    ("q4_0", Codec::Ggml(GgmlCode::Q4_0)),
    ("iq4_nl", Codec::Ggml(GgmlCode::Iq4Nl)),
    ("kivi4", Codec::Kivi { bits: 4 }),
    ("kivi2", Codec::Kivi { bits: 2 }),
];

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        if let Some((_, codec)) = NAMES.iter().find(|(n, _)| *n == name) {
            return Ok(*codec);
        }
        let lloyd = || {
            let rest = name.strip_prefix('r')?;
            let (bits, group) = rest.split_once('g').unwrap_or((rest, "64"));
            let (bits, group) = (bits.parse().ok()?, group.parse().ok()?);
            let known = matches!(bits, 2..=4) && matches!(group, 32 | 64 | 128);
            known.then_some(Self::Lloyd { bits, group })
        };
        lloyd().map_or_else(
            || {
                let known: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
                unsupported(
                    format!("cache type `{name}`"),
                    format!("known are {}, r2, r3, r4 (r4g32, r4g128)", known.join(", ")),
                )
            },
            Ok,
        )
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (base, scale) = match *self {
            Self::Lloyd { bits, group: 64 } => return write!(f, "r{bits}"),
            Self::Lloyd { bits, group } => return write!(f, "r{bits}g{group}"),
            Self::F8E4M3 { scale } => ("fp8", scale),
            Self::F8E5M2 { scale } => ("fp8-e5m2", scale),
            codec => (NAMES.iter().find(|(_, c)| *c == codec).map_or("unnamed", |(n, _)| n), None),
        };
        match scale {
            Some(scale) => write!(f, "{base} of scale {scale}"),
            None => f.write_str(base),
        }
    }
}

impl FromStr for Side {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (codec, rotation) = name.split_once('+').map_or((name, None), |(codec, rotation)| (codec, Some(rotation)));
        let side = Self::new(codec.parse()?);
        let Some(rotation) = rotation else { return Ok(side) };
        let largest = match rotation {
            "plain" => Some(0),
            "rot" => Some(Self::WHOLE),
            _ => rotation.strip_prefix("rot").and_then(|n| n.parse().ok()),
        };
        match largest {
            Some(largest) => Ok(side.rotated(largest)),
            None => unsupported(format!("cache type `{name}`"), "behind + stands rot, rot64 or plain"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codec.fmt(f)?;
        match self.rotation {
            r if r == Self::new(self.codec).rotation => Ok(()),
            0 => f.write_str("+plain"),
            Self::WHOLE => f.write_str("+rot"),
            r => write!(f, "+rot{r}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for (name, _) in NAMES {
            let side: Side = name.parse().unwrap();
            assert_eq!(side.to_string(), name.replace("-e4m3", ""));
            for suffix in ["+rot64", "+rot", "+plain"] {
                let side: Side = format!("{name}{suffix}").parse().unwrap();
                assert_eq!(side.to_string().parse::<Side>().unwrap(), side);
            }
        }
        for wrong in ["", "q6_0", "r5", "r4g16", "q4_0+", "q4_0+rotx", "int8+64"] {
            assert!(wrong.parse::<Side>().is_err(), "{wrong}");
        }
    }
}
