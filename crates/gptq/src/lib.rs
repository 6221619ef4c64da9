//! GPTQ: weight matrices rounded to few bits, column by column, each column's error made good by the columns that follow
//! (arXiv 2210.17323). No tensor library: slices in, [`quant_core::affine::AffineMatrix`] out.
//!
//! - [`checkpoint`]: the layout that GPTQ tools store such matrices in, and its config.
#![forbid(unsafe_code)]

pub mod checkpoint;
