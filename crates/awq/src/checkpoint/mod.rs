//! The AWQ checkpoint layouts: how AutoAWQ, GPTQModel, llm-awq, transformers and vLLM store quantized linear layers.
//!
//! A module `m` with `in` input and `out` output features, codes of 4 bits and groups of `g` input features stands for the weights
//! `w[o, i] = scale[i / g, o] · (q[i, o] − zero[i / g, o])`, and is stored as
//!
//! | `version` | `m.qweight` | `m.qzeros` | `m.scales` |
//! |---|---|---|---|
//! | `gemm` | I32 `[in, out / 8]`, [interleaved](INTERLEAVE) | I32 `[in / g, out / 8]`, the same | F16 `[in / g, out]` |
//! | `gemv` | I32 `[out, in / 8]`, in order | I32 `[out, z]`, in order | F16 `[out, 8 z]` |
//! | `gemv_fast`, `llm-awq` | I16 `[out / 4, in]`, rows interleaved by four | F16 `[8 z, out]`: `−scale · zero` | F16 `[8 z, out]` |
//!
//! with `z = ⌈in / g / 8⌉`, rounded up to a multiple of 2 at `g` = 64 and of 4 at 32; what is behind the last group does not count. llm-awq calls the
//! zero points `scaled_zeros`. A bias is F16 `[out]`. No layout has a `g_idx`. `gemm` is what all readers take and the only one that is written; of
//! widths other than 4 bits only GPTQModel has it, as a [`bit stream`](quant_core::bit_stream) along `out` without interleave. Facts: AutoAWQ's
//! `modules/linear/{gemm,gemv,gemv_fast}.py`, GPTQModel 7.7's `quantization/awq/utils/packing_utils.py`.
//!
//! - [`PackedModule`] and [`StoredModule`]: between an [`AffineMatrix`](quant_core::affine::AffineMatrix) and these tensors.
//! - [`AwqConfig`]: `quantization_config` of config.json, or `quant_config.json`.
//! - [`loads_in`]: which readers take a checkpoint, by which kernel, and why not.

mod config;
mod gemm;
mod gemv;
mod loads_in;
mod module;

pub use config::{AwqConfig, Layout, ModuleSpec};
pub use gemm::INTERLEAVE;
pub use loads_in::{ModuleFacts, loads_in};
pub use module::{PackedModule, StoredModule};
pub use quant_core::checkpoint::{CheckpointError, DType, LoadsIn, PackedTensor, Result, StoredTensor, Verdict};
