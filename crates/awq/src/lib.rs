//! AWQ: activation-aware weight quantization (arXiv 2306.00978). No tensor library: slices in, [`AffineMatrix`] and channel scales out.
//!
//! ```
//! use awq::{Bits, Inputs, Member, Options, ScaleGroup};
//! use quant_core::input_stats::{Detail, InputStats};
//! # let (in_features, out_features, rows) = (64, 8, 100);
//! # let inputs: Vec<f32> = (0..rows * in_features).map(|i| (i as f32 * 0.37).sin()).collect();
//! # let weights: Vec<f32> = (0..out_features * in_features).map(|i| (i as f32 * 0.71).cos()).collect();
//! let mut stats = InputStats::new(in_features, Detail::Gram);
//! stats.add(&inputs, rows, in_features)?; // what the layer reads on calibration text; call it as often as there are batches
//! let (inputs, options) = (Inputs::new(&stats, None)?, Options::new(Bits::new(4).unwrap(), Some(32)));
//! let members = [Member { weights: &weights, out_features }]; // all that read this input: q/k/v, gate/up
//! let scales = awq::search_scales(&inputs, &ScaleGroup { members: &members, ties: None }, &options)?;
//! let clip = awq::search_clip(&inputs, &weights, out_features, &scales.values, &options)?;
//! let quantized = awq::round(&weights, out_features, &scales.values, Some(&clip), Some(&inputs), &options)?;
//! assert!(quantized.report.nmse < 0.02);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The matrix holds `W diag(s)`: divide the layer's input by the scales `s`, by folding `1/s` into the norm or the linear before it.
//!
//! Statistics that say nothing are no error: the scales are 1, and [`Scales::declined`] says why. NaN weights, wrong lengths and
//! impossible options are errors ([`AwqError`]).
//!
//! [`checkpoint`] is the layouts that AWQ tools store such matrices in, and their config.
//!
//! The feature `candle` adds tensors in and out.
#![deny(unsafe_code)]

#[cfg(feature = "candle")]
pub mod candle;
pub mod checkpoint;
mod clip_search;
mod error;
mod grid;
mod group;
mod inputs;
mod loss;
mod options;
mod round;
mod rounding;
mod scale_search;
mod simd;

pub use clip_search::{ClipRanges, search_clip};
pub use error::AwqError;
pub use group::{Member, ScaleGroup, grouped_query_ties};
pub use inputs::Inputs;
pub use options::Options;
pub use quant_core::affine::{AffineMatrix, Bits};
pub use round::{Quantized, Report, round};
pub use rounding::Cut;
pub use scale_search::{Declined, Kind, Losses, Scales, rank_scales, search_scales};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
