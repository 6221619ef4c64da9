//! Files that llama.cpp wrote, read and written again: not a byte differs.

mod common;

use gguf_format::{Gguf, GgufWriter, SizedTensor, TensorSpec, WritePlan};
use std::path::Path;

fn gguf_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "gguf"))
        .collect();
    files.sort();
    files
}

fn rewrite(path: &Path) {
    let original = std::fs::read(path).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("copy.gguf");
    let specs: Vec<TensorSpec> = gguf.tensors().iter().map(Into::into).collect();
    let mut writer = GgufWriter::create(&target, gguf.metadata(), &specs).unwrap();
    for tensor in gguf.tensors() {
        // In pieces, as a streaming caller does.
        for piece in gguf.data(tensor).chunks(4097) {
            writer.write(piece).unwrap();
        }
    }
    assert_eq!(writer.finish().unwrap(), original.len() as u64);
    assert!(std::fs::read(&target).unwrap() == original, "{} differs after a rewrite", path.display());

    let sized: Vec<SizedTensor> = gguf.tensors().iter().map(Into::into).collect();
    let data: Vec<&[u8]> = gguf.tensors().iter().map(|t| gguf.data(t)).collect();
    let plan = WritePlan::sized(gguf.metadata(), &sized).unwrap();
    assert_eq!(plan.header_len(), gguf.data_start());
    assert_eq!(plan.file_len(), original.len() as u64);
    assert!(plan.to_bytes(&data).unwrap() == original);
}

#[test]
fn vocabulary_files_are_rewritten_unchanged() {
    let Some(folder) = common::shared("data/gguf") else { return };
    let files = gguf_files(&folder);
    assert_eq!(files.len(), 6);
    files.iter().for_each(|f| rewrite(f));
}

#[test]
fn quantized_files_are_rewritten_unchanged() {
    let Some(folder) = common::shared("golden/llama_cpp") else { return };
    let files = gguf_files(&folder);
    assert_eq!(files.len(), 4);
    files.iter().for_each(|f| rewrite(f));
}

#[test]
fn stories_model_is_rewritten_unchanged() {
    let Some(path) = common::shared("models/stories260K.gguf") else { return };
    rewrite(&path);
}
