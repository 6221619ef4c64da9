//! Importance weights of a model's input channels, and where they came from.

use crate::Result;
use crate::calibrate::load_importance_and_matrix;
use crate::fold::Folds;
use gguf_format::Metadata;
use std::collections::BTreeMap;
use std::path::Path;

/// The longest text that llama-quantize keeps in a key, in bytes.
const MAX_TEXT: usize = 127;

/// Mean x² of the input channels, by the name of the weight.
#[derive(Clone, Debug, Default)]
pub struct Importance {
    /// One value per column, matrix after matrix for a stack of experts.
    pub values: BTreeMap<String, Vec<f32>>,
    /// The file, as the caller named it.
    pub file: Option<String>,
    /// The text it was measured on.
    pub dataset: Option<String>,
    /// Chunks of that text; 0 where unknown.
    pub chunks: u32,
}

impl Importance {
    /// Reads llama.cpp's importance matrix (GGUF or legacy) or the statistics of `quant calibrate`; the content tells which.
    ///
    /// # Errors
    /// As [`load_importance`](crate::calibrate::load_importance).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (values, imatrix) = load_importance_and_matrix(path)?;
        let mut importance = Self { values, file: Some(path.display().to_string()), ..Self::default() };
        // Only llama.cpp's form names its text and chunks.
        if let Some(imatrix) = imatrix {
            importance.dataset = imatrix.datasets.into_iter().next();
            importance.chunks = imatrix.chunk_count;
        }
        Ok(importance)
    }

    /// Of the inputs divided by their scales: mean (x / s)².
    pub(super) fn divide(&mut self, folds: &Folds) {
        for (name, values) in &mut self.values {
            if let Some(scales) = folds.of_tensor(name).and_then(|fold| fold.columns) {
                values.iter_mut().zip(scales).for_each(|(v, s)| *v /= s * s);
            }
        }
    }

    /// Writes the keys that llama-quantize writes (tools/quantize/quantize.cpp).
    pub(super) fn write_keys(&self, metadata: &mut Metadata) {
        let mut text = |key: &str, value: &Option<String>| {
            metadata.remove(key);
            if let Some(value) = value {
                metadata.set(key, cut(value));
            }
        };
        text("quantize.imatrix.file", &self.file);
        text("quantize.imatrix.dataset", &self.dataset);
        let mut number = |key: &str, value: u32| {
            metadata.remove(key);
            if value > 0 {
                metadata.set(key, value);
            }
        };
        number("quantize.imatrix.entries_count", u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        number("quantize.imatrix.chunks_count", self.chunks);
    }
}

/// At most [`MAX_TEXT`] bytes, cut between characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
