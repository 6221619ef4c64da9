//! The rows of the table of tensors, and their totals.

use gguf_format::TensorInfo;
use quant_runtime::checkpoint::HfEntry;
use serde::Serialize;
use std::collections::BTreeMap;

/// One tensor. Rows first.
#[derive(Serialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) ty: String,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: u64,
    #[serde(skip)]
    elements: u64,
}

impl From<&TensorInfo> for Tensor {
    fn from(info: &TensorInfo) -> Self {
        Self {
            name: info.name().into(),
            ty: info.ggml_type().to_string(),
            shape: info.shape().to_vec(),
            bytes: info.byte_len(),
            elements: info.element_count(),
        }
    }
}

impl From<HfEntry<'_>> for Tensor {
    fn from(entry: HfEntry<'_>) -> Self {
        let shape: Vec<u64> = entry.shape.iter().map(|&d| d as u64).collect();
        Self {
            name: entry.name.into(),
            ty: entry.dtype.to_string(),
            bytes: entry.data.len() as u64,
            elements: shape.iter().fold(1, |n, &d| n.saturating_mul(d)),
            shape,
        }
    }
}

/// Totals of the tensors of one type, or of all.
#[derive(Clone, Default, Serialize)]
pub(super) struct Total {
    pub(super) tensors: u64,
    pub(super) elements: u64,
    pub(super) bytes: u64,
    /// `None` where there are no elements, or where they are not weights.
    pub(super) bits_per_weight: Option<f64>,
}

impl Total {
    fn add(&mut self, tensor: &Tensor) {
        self.tensors += 1;
        self.elements = self.elements.saturating_add(tensor.elements);
        self.bytes = self.bytes.saturating_add(tensor.bytes);
    }

    fn finish(&mut self, are_weights: bool) {
        self.bits_per_weight =
            (are_weights && self.elements > 0).then(|| self.bytes as f64 * 8.0 / self.elements as f64);
    }
}

pub(super) struct Summary {
    pub(super) total: Total,
    pub(super) by_type: BTreeMap<String, Total>,
}

impl Summary {
    pub(super) fn of(tensors: &[Tensor], are_weights: bool) -> Self {
        let mut summary = Self { total: Total::default(), by_type: BTreeMap::new() };
        for tensor in tensors {
            summary.total.add(tensor);
            summary.by_type.entry(tensor.ty.clone()).or_default().add(tensor);
        }
        summary.total.finish(are_weights);
        summary.by_type.values_mut().for_each(|t| t.finish(are_weights));
        summary
    }
}
