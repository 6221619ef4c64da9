//! A model in several files is used by the name of its first.

mod common;

use common::{MODEL, fails, json, out};
use gguf_format::{Gguf, GgufWriter, Metadata, TensorInfo, TensorSpec};
use std::path::Path;

/// Cuts a file into three parts of about as many tensors, as gguf-split does: metadata in the first.
fn split(whole: &Path, prefix: &str) -> Vec<String> {
    let gguf = Gguf::open(whole).unwrap();
    let chunks: Vec<&[TensorInfo]> = gguf.tensors().chunks(gguf.tensors().len().div_ceil(3)).collect();
    let mut paths = Vec::new();
    for (no, tensors) in chunks.iter().enumerate() {
        let mut metadata = if no == 0 { gguf.metadata().clone() } else { Metadata::new() };
        metadata.set("split.no", no as u16);
        metadata.set("split.count", chunks.len() as u16);
        metadata.set("split.tensors.count", gguf.tensors().len() as i32);
        let path = format!("{prefix}-{:05}-of-{:05}.gguf", no + 1, chunks.len());
        let specs: Vec<TensorSpec> = tensors.iter().map(Into::into).collect();
        let mut writer = GgufWriter::create(&path, &metadata, &specs).unwrap();
        tensors.iter().for_each(|t| writer.write(gguf.data(t)).unwrap());
        writer.finish().unwrap();
        paths.push(path);
    }
    paths
}

#[test]
fn run_and_gguf_take_the_first_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let whole = path("whole.gguf");
    json(&["gguf", MODEL, &whole, "--type", "Q8_0", "--json"]);
    let parts = split(Path::new(&whole), &path("m"));
    assert_eq!(parts.len(), 3);

    let run = |model: &str| out(&["run", model, "-p", "Once upon a time", "-n", "12", "--raw", "--temperature", "0"]);
    assert_eq!(run(&parts[0]), run(&whole));

    let (from_whole, from_parts) = (path("a.gguf"), path("b.gguf"));
    json(&["gguf", &whole, &from_whole, "--type", "Q4_0", "--allow-requantize", "--json"]);
    json(&["gguf", &parts[0], &from_parts, "--type", "Q4_0", "--allow-requantize", "--json"]);
    assert!(std::fs::read(from_whole).unwrap() == std::fs::read(from_parts).unwrap());

    let (code, error) = fails(&["run", &parts[1], "-p", "x"]);
    assert!(code == 1 && error.contains("part 2 of 3") && error.contains("m-00001-of-00003.gguf"), "{error}");
    std::fs::remove_file(&parts[2]).unwrap();
    let (code, error) = fails(&["run", &parts[0], "-p", "x"]);
    assert!(code == 1 && error.contains("m-00003-of-00003.gguf") && error.trim_end().lines().count() == 1, "{error}");
}
