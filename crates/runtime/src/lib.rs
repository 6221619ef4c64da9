//! Language models over candle: load, calibrate, quantize a whole model, generate, evaluate.
//!
//! The only crate of the workspace that knows a model.

pub mod calibrate;
pub mod chat_template;
pub mod checkpoint;
pub mod convert;
mod error;
pub mod eval;
pub mod fold;
pub mod generate;
pub mod hf_writer;
pub mod layerwise;
pub mod model;
pub mod packed_dir;
pub mod quantize;
pub mod safetensors_io;
pub mod tokenizer;

pub use candle_core::Device;
pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use model::{Activations, CacheChoice, CacheNoise, KvCache, LogitRows, Model, ModelConfig};
pub use tokenizer::Tokenizer;
