//! A GGUF file as the content of another.

use super::{ModelSource, Place, RowOrder, SourceTensor};
use crate::Result;
use crate::checkpoint::GgufFile;
use gguf_format::mix::file_order;

/// Keys that the writer sets anew, or that speak of the old file's parts.
const REPLACED: &[&str] =
    &["general.quantization_version", "general.file_type", "split.no", "split.count", "split.tensors.count"];

pub(super) fn source(file: &GgufFile) -> Result<ModelSource> {
    let mut metadata = file.gguf.metadata().clone();
    for key in REPLACED {
        metadata.remove(key);
    }
    let mut tensors: Vec<_> = file
        .gguf
        .tensors()
        .iter()
        .map(|t| SourceTensor {
            name: t.name().to_owned(),
            shape: t.shape().to_vec(),
            ty: t.ggml_type(),
            stored: t.ggml_type(),
            place: Place::File { file: t.part() as usize, offset: t.file_offset() },
            order: RowOrder::AsStored,
        })
        .collect();
    // llama-quantize's order, not the input's.
    tensors.sort_by(|a, b| file_order(&a.name, &b.name));
    Ok(ModelSource { path: file.path.clone(), metadata, tensors, files: file.paths.clone(), packed: None })
}
