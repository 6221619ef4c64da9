//! Weights and activations in 8 bits: SmoothQuant's scales, and what makes an input hard to round. No tensor library: slices in, scales out.
//!
//! ```
//! use activation_quant::{Group, Inputs, Member, SampleRows, SmoothOptions, smooth};
//! # let (in_features, out_features, rows) = (64, 16, 40);
//! # let x: Vec<f32> = (0..rows * in_features).map(|i| (i as f32 * 0.37).sin() * if i % in_features == 5 { 30.0 } else { 1.0 }).collect();
//! # let weights: Vec<f32> = (0..out_features * in_features).map(|i| (i as f32 * 0.71).cos()).collect();
//! let inputs = Inputs::new(SampleRows::new(x, in_features, None)?, None)?; // rows that the linears read
//! let members = [Member { weights: &weights, out_features }]; // all that read this input: q/k/v, gate/up
//! let scales = smooth(&inputs, &Group { members: &members, ties: None }, &SmoothOptions::default())?;
//! assert!(scales.loss < 0.5 * scales.plain_loss); // channel 5 no longer takes the grid of all others
//! # Ok::<(), activation_quant::SmoothError>(())
//! ```
//!
//! Divide the input by the scales, by folding `1/s` into the norm or the linear before it, and multiply the columns of the weights by them.
#![deny(unsafe_code)]

mod error;
mod loss;
mod profile;
mod smooth;

pub use error::SmoothError;
pub use loss::{SampleRows, Scheme, output_error};
pub use profile::{OUTLIER, Profile};
pub use smooth::{Declined, Group, Inputs, Member, SmoothOptions, Smoothing, smooth};
