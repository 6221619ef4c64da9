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
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan};
use quant_tests::{bundled, shared, workspace};
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

/// Writes a level; says how its file differs from the `bytes` and `sha256` of llama-quantize's.
fn difference(
    source: &ModelSource,
    options: QuantizeOptions,
    out: &Path,
    name: &str,
    theirs: &Value,
) -> Option<String> {
    let report = QuantizePlan::new(source, options).unwrap().run(out, &|_| ControlFlow::Continue(())).unwrap();
    let differs = theirs["bytes"] != report.bytes || theirs["sha256"] != file_sha256(out);
    differs.then(|| format!("{name}: {} bytes, theirs {}", report.bytes, theirs["bytes"]))
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
        let options = QuantizeOptions::new(MixOptions::new(file_type));
        levels += 1;
        failures.extend(difference(&source, options, &out, name, result));
    }
    assert!(failures.is_empty(), "{} of {levels} levels differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(levels, 18);
}

/// The levels that are for importance weights. Reference: `tests/golden/low_bit_levels.json`, whose script says how it was made.
#[test]
fn every_level_with_importance_is_llama_quantizes_file() {
    let Some(keys_from) = shared("golden/llama_cpp/pocket-6m.Q8_0.gguf") else { return };
    let facts = std::fs::read(workspace().join("tests/golden/low_bit_levels.json")).unwrap();
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let input = write_f32_input(&bundled(""), &keys_from, dir.path());
    assert_eq!(file_sha256(&input), facts["input_sha256"], "the F32 file");

    let source = ModelSource::open(&Checkpoint::open(&input).unwrap()).unwrap();
    let column = |i: usize| (((i + 1) as f64).sin().abs() + 0.01) as f32;
    let gguf = Gguf::open(&input).unwrap();
    let matrices = gguf.tensors().iter().filter(|t| t.name().starts_with("blk.") && t.shape().len() == 2);
    let values = matrices.map(|t| (t.name().to_string(), (0..t.row_len() as usize).map(column).collect()));
    let importance = Importance {
        values: values.collect(),
        file: Some("sines.gguf".into()),
        dataset: Some("sines.txt".into()),
        chunks: 7,
    };
    let (mut levels, mut failures) = (0, Vec::new());
    for (name, result) in facts["levels"].as_object().unwrap() {
        let out = dir.path().join(name);
        let mut options = QuantizeOptions::new(MixOptions::new(FileType::from_name(name).unwrap()));
        options.importance = Some(importance.clone());
        levels += 1;
        failures.extend(difference(&source, options, &out, name, result));
    }
    assert!(failures.is_empty(), "{} of {levels} levels differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(levels, 18);
}

/// Without importance weights, each level either needs none or is refused before anything is written.
#[test]
fn levels_that_need_importance_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let source = ModelSource::open(&Checkpoint::open(bundled("")).unwrap()).unwrap();
    let mut refused = Vec::new();
    for &file_type in FileType::KNOWN {
        let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(file_type))).unwrap();
        if let Err(error) = plan.ready() {
            assert!(error.to_string().contains("needs an importance matrix"), "{error}");
            let out = dir.path().join("out.gguf");
            assert_eq!(plan.run(&out, &|_| ControlFlow::Continue(())).unwrap_err().to_string(), error.to_string());
            assert!(!out.exists());
            refused.push(file_type.to_string());
        }
    }
    assert_eq!(refused, ["IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"]);
}
