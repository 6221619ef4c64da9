//! Numerics that every quantization method of the workspace shares. No tensor library.

pub mod error_metrics;
pub mod input_stats;
