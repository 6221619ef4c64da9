//! Numerics that every quantization method of the workspace shares. No tensor library.
//!
//! - [`activation`]: activations rounded to 8 bits.
//! - [`affine`]: weights as integer codes with a scale and a zero point per group, what GPTQ and AWQ quantize to.
//! - [`bit_stream`]: codes of 1 to 8 bits packed into words.
//! - `checkpoint` (feature of this name): what the layouts of packed checkpoints share.
//! - [`eight_bit`]: weights of one byte with a scale per row.
//! - [`error_metrics`]: how far a quantized tensor is from its source.
//! - [`float8`]: the two formats of 8-bit floats.
//! - [`input_stats`]: what a linear layer's inputs look like, the one calibration that serves every method.
//! - [`rotation`]: the Walsh-Hadamard transform of rows.
#![deny(unsafe_code)]

pub mod activation;
pub mod affine;
pub mod bit_stream;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
pub mod eight_bit;
pub mod error_metrics;
pub mod float8;
pub mod input_stats;
pub mod rotation;
mod syrk;
mod upper_triangle;

pub use upper_triangle::UpperTriangle;
