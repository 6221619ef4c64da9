//! CPU products of f32 activations with packed low-bit weights, attention over f32 keys and values, and the small functions between them.
//!
//! Weights are read in place, from bytes at any alignment. Each kernel is written once over vectors of f32 and i32; which instruction set these are
//! (AVX-512, AVX2, NEON, plain Rust) is chosen once at run time, by [`Isa::best`]. [`matmul`] rounds nothing but by f32 arithmetic: a weight has the exact value
//! that `gguf_format::blocks::dequantize` or `quant_core::affine` gives it.
//!
//! Where speed matters more, [`matmul_rounded`] rounds the activations and multiplies integers. For int8 weights with int8 activations (W8A8) there is
//! [`matmul_int8`]: sums in i32, exact.
//!
//! ```
//! use gguf_format::GgmlType;
//! use quant_kernels::{Matrix, matmul};
//!
//! // [2, 3] times one token of 3.
//! let w: Vec<u8> = [1.0f32, 2.0, 3.0, 0.0, -1.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect();
//! let w = Matrix::new(GgmlType::F32, 2, 3, &w)?;
//! let mut y = [0.0; 2];
//! matmul(&[1.0, 1.0, 2.0], 1, &[w], &mut y)?;
//! assert_eq!(y, [9.0, 0.0]);
//! # Ok::<(), quant_kernels::Error>(())
//! ```

mod activations;
mod affine_weights;
mod attention;
mod codes;
mod dispatch;
mod dot;
mod elementwise;
mod encoding;
mod error;
mod gemm;
mod half_activations;
#[cfg(target_arch = "aarch64")]
mod half_float;
mod int8_activations;
mod int8_matmul;
mod int8_weights;
mod interleaved;
mod lanes;
mod matmul;
mod matrix;
mod micro;
mod prefetch;
mod quants;
mod rounded;
mod rounded_dot;
mod rounded_gemm;
mod simd;
mod tasks;

pub use activations::ActivationGrid;
pub use affine_weights::{AffineWeights, gather};
pub use attention::{KvStore, attention, attention_with};
pub use dispatch::Isa;
pub use elementwise::{rms_norm, rms_norm_in_place, rope, silu_mul, silu_mul_with};
pub use encoding::{AffineBlock, Encoding, integers_are_quicker, is_fast, is_integer, is_supported};
pub use error::{Error, Result};
pub use int8_activations::Int8Activations;
pub use int8_matmul::{matmul_int8, matmul_int8_with};
pub use int8_weights::Int8Weights;
pub use interleaved::{Interleaved, matmul_interleaved, matmul_interleaved_with};
pub use matmul::{matmul, matmul_rounded, matmul_rounded_with, matmul_with};
pub use matrix::Matrix;
