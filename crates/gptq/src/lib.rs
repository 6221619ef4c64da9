//! GPTQ: weight matrices rounded to few bits, column by column, each column's error made good by the columns that follow
//! (arXiv 2210.17323). No tensor library: slices in, [`quant_core::affine::AffineMatrix`] out.
#![forbid(unsafe_code)]
