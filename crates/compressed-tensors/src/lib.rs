//! The compressed-tensors checkpoint layout: how vLLM and llm-compressor store quantized linear layers. No tensor library: slices in, slices out.
//!
//! Format `pack-quantized` (weights of 2 to 8 bits, activations in full precision): a module `m` with `in` input and `out` output features, `b` bits and
//! groups of `g` input features is stored as
//!
//! | tensor | type | shape | content |
//! |---|---|---|---|
//! | `m.weight_packed` | I32 | `[out, ⌈in b / 32⌉]` | row `o` holds the codes of output feature `o` as a [`bit stream`](quant_core::bit_stream) |
//! | `m.weight_scale` | F16, BF16 or F32 | `[out, ⌈in / g⌉]` | |
//! | `m.weight_zero_point` | I32 | `[⌈out b / 32⌉, ⌈in / g⌉]` | column `j` holds the zero points of group `j` as a bit stream; only of asymmetric modules |
//! | `m.weight_shape` | I64 | `[2]` | `out`, `in` |
//! | `m.weight_g_idx` | I32 | `[in]` | the group of each input feature; only where they are not in order |
//!
//! and stands for the weights `w[o, i] = scale · (code − zero)`, the zero point of a symmetric module being `2^(b−1)`. The library counts codes and zero
//! points from `−2^(b−1)` on; packed, both have that added. Strategy `channel` is one group per row. Facts: compressed-tensors 0.20,
//! `compressors/pack_quantized/` and `quantization/`.
//!
//! Formats `int-quantized` and `float-quantized` (one byte a weight; the activations that it is multiplied with rounded to a byte too, W8A8):
//!
//! | tensor | type | shape | content |
//! |---|---|---|---|
//! | `m.weight` | I8 or F8_E4M3 | `[out, in]` | |
//! | `m.weight_scale` | F32, F16 or BF16 | `[out, 1]`, or `[1]` of strategy `tensor` | |
//! | `m.weight_zero_point` | I8 | as the scale | only of asymmetric modules |
//! | `m.input_scale` | F32, F16 or BF16 | `[1]` | only where activations are static |
//! | `m.input_zero_point` | I8 | `[1]` | only where they are static and asymmetric |
//!
//! and stands for the weights `scale · (number − zero)`. How activations are rounded is [`quant_core::activation`]. `naive-quantized` of 8 bits is the same.
//!
//! - [`PackedModule`] and [`StoredModule`]: between an [`AffineMatrix`](quant_core::affine::AffineMatrix) and these tensors.
//! - [`EightBitModule`] and [`StoredEightBit`]: between an [`EightBitMatrix`](quant_core::eight_bit::EightBitMatrix) and those.
//! - [`Config`]: `quantization_config` of config.json: groups of modules by name, regular expression or class, and how each is quantized. Other formats
//!   (FP4, sparse, ...) are read as far as the config goes; asking for their modules is [`CheckpointError::Unsupported`].
//! - [`loads_in`]: which readers take a checkpoint, by which kernel, and why not.
#![deny(unsafe_code)]

mod config;
mod eight_bit;
mod loads_in;
mod module;
mod scheme;
mod target;
mod transform;

pub use config::{Config, ConfigGroup, ModuleSpec, Storage};
pub use eight_bit::{ActivationSpec, EightBitModule, EightBitSpec, InputScales, StaticScales, StoredEightBit};
pub use loads_in::{ModuleFacts, loads_in};
pub use module::{PackedModule, ScaleType, StoredModule};
pub use quant_core::checkpoint::{CheckpointError, DType, LoadsIn, PackedTensor, Result, StoredTensor, Verdict};
pub use scheme::{Format, NumberType, QuantArgs, Strategy};
pub use target::Target;
pub use transform::InputHadamard;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
