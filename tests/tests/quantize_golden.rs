//! Whole files against llama-quantize's: the F32 file of pocket-6m that the reference started from, rebuilt here, then brought to every
//! level; the SHA-256 of each file must be the reference's.
//!
//! Reference: `golden/llama_cpp/results.json`, written by `llama_model_quantize` of llama-cpp-python 0.3.36 (llama.cpp 0c1e57098) from a
//! file that gguf-py 0.19 wrote. Its keys are those of `pocket-6m.Q8_0.gguf` there, its tensors in order of their Hugging Face names.

use gguf_format::mix::{FileType, MixOptions};
use gguf_format::{Gguf, GgufWriter, Metadata, TensorSpec};
use quant_runtime::Checkpoint;
use quant_runtime::checkpoint::hf_name;
use quant_runtime::convert::ModelSource;
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use quant_tests::{bundled, shared};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::path::Path;

/// The reference's input: our F32 conversion of the directory, with the reference's keys and order.
fn write_f32_input(model: &Path, keys_from: &Path, dir: &Path) -> std::path::PathBuf {
    let converted = dir.join("converted.gguf");
    let source = ModelSource::open(&Checkpoint::open(model).unwrap()).unwrap();
    let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(FileType::F32))).unwrap();
    plan.run(&converted, &|_| ControlFlow::Continue(())).unwrap();
    let converted = Gguf::open(&converted).unwrap();

    let quantized = Gguf::open(keys_from).unwrap();
    let mut metadata = Metadata::new();
    for (key, value) in quantized.metadata().iter() {
        if !["general.quantization_version", "general.file_type"].contains(&key) {
            metadata.set(key, value.clone());
        }
        if key == "llama.vocab_size" {
            metadata.set("general.file_type", 0u32);
        }
    }
    let mut tensors: Vec<_> = converted.tensors().iter().collect();
    tensors.sort_by_key(|t| hf_name(t.name()));
    let specs: Vec<TensorSpec> = tensors.iter().map(|t| TensorSpec::from(*t)).collect();
    let out = dir.join("input.gguf");
    let mut writer = GgufWriter::create(&out, &metadata, &specs).unwrap();
    for t in tensors {
        writer.write(converted.data(t)).unwrap();
    }
    writer.finish().unwrap();
    out
}

fn file_sha256(path: &Path) -> String {
    let digest = Sha256::digest(std::fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_level_is_llama_quantizes_file() {
    let (Some(results), Some(keys_from)) =
        (shared("golden/llama_cpp/results.json"), shared("golden/llama_cpp/pocket-6m.Q8_0.gguf"))
    else {
        return;
    };
    let golden: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    let results = golden["results"].as_object().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let input = write_f32_input(&bundled(""), &keys_from, dir.path());
    assert_eq!(file_sha256(&input), results["F32"]["sha256"], "the F32 file");

    let source = ModelSource::open(&Checkpoint::open(&input).unwrap()).unwrap();
    let (mut levels, mut failures) = (0, Vec::new());
    for (name, result) in results {
        let Some(file_type) = FileType::from_name(name).filter(|t| *t != FileType::F32) else { continue };
        let out = dir.path().join(name);
        let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(file_type))).unwrap();
        let report = plan.run(&out, &|_| ControlFlow::Continue(())).unwrap();
        levels += 1;
        if result["bytes"] != report.bytes || result["sha256"] != file_sha256(&out) {
            failures.push(format!("{name}: {} bytes, theirs {}", report.bytes, result["bytes"]));
        }
    }
    assert!(failures.is_empty(), "{} of {levels} levels differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(levels, 18);
}
