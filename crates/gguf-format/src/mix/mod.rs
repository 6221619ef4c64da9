//! llama-quantize's named mixes: which type each tensor of a model gets.
//!
//! A pure function of names, shapes and a few facts about the model, so that it can be shown before anything is computed. It follows
//! src/llama-quant.cpp of llama.cpp 0c1e57098 and is compared with that library's own answers for every file type
//! (`tests/mix_golden.rs`).
//!
//! ```
//! use gguf_format::GgmlType;
//! use gguf_format::mix::{FileType, MixOptions, ModelFacts, TensorDesc, plan};
//!
//! let tensors = [
//!     TensorDesc { name: "output.weight", shape: &[32000, 2048], ty: GgmlType::F16 },
//!     TensorDesc { name: "blk.0.attn_norm.weight", shape: &[2048], ty: GgmlType::F32 },
//!     TensorDesc { name: "blk.0.ffn_up.weight", shape: &[5632, 2048], ty: GgmlType::F16 },
//! ];
//! let model = ModelFacts::new("llama", 22).with_heads(32, 4);
//! let chosen = plan(&tensors, &model, &MixOptions::new(FileType::Q4_K_M))?;
//! let types: Vec<String> = chosen.iter().map(|c| c.ty.to_string()).collect();
//! assert_eq!(types, ["Q6_K", "F32", "Q4_K"]);
//! # Ok::<(), gguf_format::Error>(())
//! ```

mod file_type;
mod model_facts;
mod plan;
mod role;
mod rule;
mod type_override;

pub use file_type::FileType;
pub use model_facts::ModelFacts;
pub use plan::{Choice, MixOptions, Reason, TensorDesc, plan};
pub use role::{Role, file_order, layer_of};
pub use type_override::TypeOverride;
