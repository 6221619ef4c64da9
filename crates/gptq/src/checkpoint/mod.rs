//! The GPTQ checkpoint layout: how AutoGPTQ, GPTQModel, transformers and vLLM store quantized linear layers.
//!
//! A module `m` with `in` input and `out` output features, `b` bits (2, 3, 4 or 8) and groups of `g` input features is stored as
//!
//! | tensor | type | shape | content |
//! |---|---|---|---|
//! | `m.qweight` | I32 | `[⌈in b / 32⌉, out]` | column `o` holds the codes of output feature `o` as a [`bit stream`](quant_core::bit_stream) |
//! | `m.qzeros` | I32 | `[⌈in / g⌉, ⌈out b / 32⌉]` | the zero points of a group as a bit stream, [by a convention](ZeroPoint) |
//! | `m.scales` | F16 | `[⌈in / g⌉, out]` | |
//! | `m.g_idx` | I32 | `[in]` | the group of each input feature |
//! | `m.bias` | F16 | `[out]` | only where the layer has one |
//!
//! and stands for the weights `w[o, i] = scales[g_idx[i], o] · (q[i, o] − zero[g_idx[i], o])`. Facts: GPTQModel's
//! `nn_modules/qlinear/__init__.py` (`_register_gptq_buffers`, `pack_block`), AutoGPTQ's `qlinear_cuda_old.py`.
//!
//! - [`PackedModule`] and [`StoredModule`]: between an [`AffineMatrix`](quant_core::affine::AffineMatrix) and these tensors.
//! - [`GptqConfig`]: `quantize_config.json`, which is `quantization_config` in config.json too, with its overrides by regex.
//! - [`loads_in`]: which readers take a checkpoint, by which kernel, and why not.

mod config;
mod dynamic;
mod loads_in;
mod module;
mod zero_point;

pub use config::{GptqConfig, ModuleSpec, is_stored_width};
pub use dynamic::{DynamicRule, Overrides};
pub use loads_in::{ModuleFacts, loads_in};
pub use module::{PackedModule, StoredModule};
pub use quant_core::checkpoint::{CheckpointError, DType, LoadsIn, PackedTensor, Result, StoredTensor, Verdict};
pub use zero_point::ZeroPoint;
