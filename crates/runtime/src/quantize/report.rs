//! What was done, or would be, to every tensor.

use gguf_format::GgmlType;
use gguf_format::mix::Reason;
use quant_core::error_metrics::ErrorMetrics;
use std::path::PathBuf;

/// What became of a model.
#[derive(Clone, Debug)]
pub struct QuantizeReport {
    /// The file; `None` if nothing was written (a dry run).
    pub out: Option<PathBuf>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bits of tensor data per value.
    pub bits_per_weight: f64,
    /// Wall time; 0 for a dry run.
    pub seconds: f64,
    /// In the order of the file.
    pub tensors: Vec<TensorReport>,
    /// Quantized tensors for which an importance file was given but has no entry.
    pub without_importance: Vec<String>,
}

/// What became of a tensor.
#[derive(Clone, Debug)]
pub struct TensorReport {
    /// GGUF name.
    pub name: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// Its type in the source.
    pub source: GgmlType,
    /// Its type in the file.
    pub ty: GgmlType,
    /// Why.
    pub reason: Reason,
    /// Bytes in the file.
    pub bytes: u64,
    /// Importance weights were used.
    pub importance: bool,
    /// Distance from the source, where asked for.
    pub errors: Option<ErrorMetrics>,
}

impl TensorReport {
    /// Bits per value.
    pub fn bits_per_weight(&self) -> f64 {
        self.ty.bits_per_weight().unwrap_or(0.0)
    }
}
