//! GPTQ: weight matrices rounded to few bits, column by column, each column's error made good by the columns that follow
//! (arXiv 2210.17323). No tensor library: slices in, [`AffineMatrix`] out.
//!
//! ```
//! use gptq::{Bits, Factor, Options, quantize};
//! use quant_core::input_stats::{Detail, InputStats};
//! # let (in_features, out_features, rows) = (64, 8, 100);
//! # let inputs: Vec<f32> = (0..rows * in_features).map(|i| (i as f32 * 0.37).sin()).collect();
//! # let weights: Vec<f32> = (0..out_features * in_features).map(|i| (i as f32 * 0.71).cos()).collect();
//! let mut stats = InputStats::new(in_features, Detail::Gram);
//! stats.add(&inputs, rows, in_features)?; // what the layer reads on calibration text; call it as often as there are batches
//! let options = Options::new(Bits::new(4).unwrap(), Some(32));
//! let factor = Factor::new(&stats, &options)?; // once for all matrices that read this input: q/k/v, gate/up
//! let quantized = quantize(&weights, out_features, &factor, &options)?;
//! assert_eq!(quantized.matrix.codes().len(), weights.len());
//! assert!(quantized.report.nmse < 0.01);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Numerical trouble is no error: damping rises until the Hessian can be factored, and if nothing helps the matrix is rounded to nearest and
//! its [`Report`] says why. NaN weights, wrong lengths and impossible options are errors ([`GptqError`]).
//!
//! [`quantize_eight_bit`] does the same to one byte a weight, whole numbers or FP8, with a scale per row (W8A8).
//!
//! [`checkpoint`] is the layout that GPTQ tools store such matrices in, and its config.
//!
//! The feature `candle` adds tensors in and out.
//!
//! Other grids than the affine one: implement [`GroupCodec`] and call [`quantize_onto`].
#![deny(unsafe_code)]

mod affine_grid;
#[cfg(feature = "candle")]
pub mod candle;
pub mod checkpoint;
mod codec;
mod eight_bit_grid;
mod error;
mod factor;
mod gain;
mod options;
mod order;
mod quantize;
mod refine;
mod simd;
mod solver;

pub use affine_grid::{AffineGrid, AffineParams};
pub use codec::{GroupCodec, LANES};
pub use eight_bit_grid::EightBitGrid;
pub use error::GptqError;
pub use factor::{Factor, Fallback};
pub use options::{FitFrom, Options, Order, Passes, ScaleSearch};
pub use quant_core::affine::{AffineMatrix, Bits};
pub use quantize::{Quantized, Report, loss, quantize, quantize_eight_bit, quantize_onto, round_to_nearest};
pub use solver::Solution;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
