//! `quant inspect` as a user runs it.

mod common;

use common::quant;
use gguf_format::imatrix::{Entry, Imatrix};
use gguf_format::{GgmlType, Metadata, TensorSpec, WritePlan};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

fn stdout(path: &Path, json: bool) -> String {
    let path = path.to_str().unwrap();
    let args = ["inspect", path, "--json"];
    let out = quant(&args[..if json { 3 } else { 2 }]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty());
    String::from_utf8(out.stdout).unwrap()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&stdout(path, true)).unwrap()
}

fn sample_gguf(folder: &Path) -> std::path::PathBuf {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("llama.block_count", 2u32);
    metadata.set("llama.rope.freq_base", 1e-5f32);
    metadata.set("odd.nan", f32::NAN);
    metadata.set("odd.big", u64::MAX);
    metadata.set("odd.flag", true);
    metadata.set("odd.escape", "\u{1b}[31mred\n");
    metadata.set("tokenizer.ggml.tokens", (0..100).map(|i| format!("t{i}")).collect::<Vec<_>>());
    metadata.set("tokenizer.chat_template", "x".repeat(5000));
    let specs = [
        TensorSpec { name: "a.weight".into(), shape: vec![2, 256], ty: GgmlType::Q4_K },
        TensorSpec { name: "b.weight".into(), shape: vec![3], ty: GgmlType::F32 },
    ];
    let bytes = WritePlan::new(&metadata, &specs).unwrap().to_bytes(&[&[0; 288], &[0; 12]]).unwrap();
    let path = folder.join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn gguf_as_json_holds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&sample_gguf(folder.path()));
    assert_eq!(report["format"], "gguf");
    assert_eq!(report["kind"], "model");
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["metadata"]["llama.block_count"], 2);
    assert_eq!(report["metadata"]["odd.nan"], "NaN");
    assert_eq!(report["metadata"]["odd.big"], u64::MAX);
    assert_eq!(report["metadata"]["odd.flag"], true);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 100);
    assert_eq!(report["metadata"]["tokenizer.chat_template"].as_str().unwrap().len(), 5000);
    assert_eq!(
        report["tensors"],
        serde_json::json!([
            { "name": "a.weight", "type": "Q4_K", "shape": [2, 256], "bytes": 288 },
            { "name": "b.weight", "type": "F32", "shape": [3], "bytes": 12 },
        ])
    );
    assert_eq!(report["total"]["bytes"], 300);
    assert_eq!(report["total"]["elements"], 515);
    assert_eq!(report["by_type"]["Q4_K"]["bits_per_weight"], 4.5);
    assert_eq!(report["refused_by_ggml"], serde_json::json!([]));
    // The shortest text of the f32, not the f64 next to it.
    assert!(stdout(&folder.path().join("model.gguf"), true).contains("\"llama.rope.freq_base\": 0.00001,"));
}

#[test]
fn table_is_shortened_and_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let text = stdout(&sample_gguf(folder.path()), false);
    for part in
        ["string[100]", "... 94 more", "... 5,000 bytes", "2 x 256", "4.500 bits per weight", "\\u{1b}[31mred\\n"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.len() < 200));
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn importance_matrix_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imatrix.gguf");
    let entry = Entry { in_sum2: vec![1.0; 4], counts: vec![2] };
    Imatrix { entries: [("a".to_owned(), entry)].into(), ..Imatrix::default() }.write(&path).unwrap();
    let report = json(&path);
    assert_eq!((&report["kind"], &report["architecture"]), (&"imatrix".into(), &serde_json::Value::Null));
    assert_eq!(report["tensors"][0]["name"], "a.in_sum2");
}

/// Header and data of one F32 tensor of two values.
fn safetensors() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat()
}

#[test]
fn safetensors_alone_and_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, safetensors()).unwrap();
    let config = r#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let (alone, directory) = (json(&file), json(folder.path()));
    let tensors = serde_json::json!([{ "name": "w", "type": "F32", "shape": [1, 2], "bytes": 8 }]);
    assert_eq!((&alone["tensors"], &directory["tensors"]), (&tensors, &tensors));
    assert_eq!((&alone["format"], &directory["format"]), (&"safetensors".into(), &"safetensors".into()));
    assert_eq!((&alone["architecture"], &directory["architecture"]), (&serde_json::Value::Null, &"llama".into()));
    assert_eq!(directory["metadata"]["architectures"][0], "LlamaForCausalLM");
    assert!(stdout(folder.path(), false).contains("32.000 bits per weight"));

    // Packed codes are not weights: no bits per weight is better than a wrong one.
    let config = r#"{"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4}}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let report = json(folder.path());
    assert_eq!((&report["kind"], &report["total"]["bits_per_weight"]), (&"gptq".into(), &serde_json::Value::Null));
    // A config that cannot be is told, and the rest shown.
    assert_eq!(report["format"], "gptq");
    assert!(report["gptq"]["error"].as_str().unwrap().contains("`group_size`"), "{report}");
    assert!(stdout(folder.path(), false).contains("gptq: ") && report["tensors"][0]["name"] == "w");
}

/// A directory that GPTQModel wrote.
#[test]
fn gptq_directories_and_who_loads_them() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/golden/checkpoints/gptqmodel_b4_g32_sym_act");
    if !path.exists() {
        println!("skipped: shared/golden/checkpoints is not beside the workspace");
        return;
    }
    let report = json(&path);
    let gptq = &report["gptq"];
    assert_eq!((&report["format"], &gptq["bits"], &gptq["group_size"]), (&"gptq".into(), &4.into(), &32.into()));
    assert_eq!((&gptq["modules"], &gptq["act_order"], &gptq["sym"]), (&42.into(), &42.into(), &true.into()));
    assert_eq!((&gptq["stored_as"], &gptq["checkpoint_format"]), (&serde_json::json!(["gptq"]), &"gptq".into()));
    let loads_in = &gptq["loads_in"];
    assert_eq!(loads_in["vllm"], "yes: Marlin");
    assert!(loads_in["transformers"].as_str().unwrap().starts_with("yes"), "{loads_in}");
    assert!(loads_in["here"].as_str().unwrap().starts_with("yes"), "{loads_in}");
    let text = stdout(&path, false);
    assert!(text.contains("gptq: 4 bits, groups of 32, symmetric, act-order in 42 modules, format gptq; 42 modules"));
    assert!(text.contains("loads in vLLM                     yes: Marlin\n"), "{text}");
}

/// Directories that AutoAWQ, auto-round and llm-compressor wrote.
#[test]
fn awq_and_compressed_tensors_directories() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    if !golden.exists() {
        println!("skipped: shared/golden is not beside the workspace");
        return;
    }
    for (path, format, key, sym, stored, vllm) in [
        ("checkpoints/autoawq_b4_g128", "awq", "awq", false, "gemm", "yes: Marlin"),
        ("checkpoints/awq_b4_g64_sym", "awq", "awq", true, "gemm", "yes: its plain AWQ kernel"),
        (
            "compressed_tensors/ct_w4a16_sym",
            "compressed-tensors",
            "compressed_tensors",
            true,
            "pack-quantized",
            "yes: Marlin",
        ),
        (
            "compressed_tensors/ct_w4a16_asym",
            "compressed-tensors",
            "compressed_tensors",
            false,
            "pack-quantized",
            "yes: Marlin",
        ),
    ] {
        let report = json(&golden.join(path));
        let facts = &report[key];
        assert_eq!((&report["format"], &report["kind"]), (&format.into(), &format.into()), "{path}");
        assert_eq!((&facts["bits"], &facts["modules"], &facts["sym"]), (&4.into(), &42.into(), &sym.into()), "{path}");
        assert_eq!(facts["stored_as"], serde_json::json!([stored]), "{path}");
        assert!(facts["loads_in"]["vllm"].as_str().unwrap().starts_with(vllm), "{facts}");
        assert!(facts["loads_in"]["here"].as_str().unwrap().starts_with("yes"), "{facts}");
        assert!((facts["bits_per_weight"].as_f64().unwrap() - 4.2).abs() < 0.15, "{facts}");
        // llm-compressor keeps F32 scales for this F32 model.
        assert_eq!(facts["rounded_scales"].as_u64().unwrap() > 0, format == "compressed-tensors", "{facts}");
        assert!(stdout(&golden.join(path), false).contains(&format!("{format}: 4 bits, groups of ")), "{path}");
    }
    // One byte a weight, and a byte for what it is multiplied with.
    for (path, format, activations) in [
        ("ct_w8a8_int8", "int-quantized", "int8, one dynamic scale per token"),
        ("ct_fp8_dynamic", "float-quantized", "FP8 E4M3, one dynamic scale per token"),
    ] {
        let path = golden.join("compressed_tensors").join(path);
        let facts = &json(&path)["compressed_tensors"];
        assert_eq!((&facts["bits"], &facts["modules"], &facts["group_size"]), (&8.into(), &42.into(), &(-1).into()));
        assert_eq!((&facts["checkpoint_format"], &facts["stored_as"]), (&format.into(), &serde_json::json!([format])));
        assert_eq!(facts["activations"], activations);
        assert!((facts["bits_per_weight"].as_f64().unwrap() - 8.1).abs() < 0.1, "{facts}");
        assert!(stdout(&path, false).contains(&format!("activations: {activations}")));
    }
}

#[test]
fn bad_input_is_one_line_and_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(sample_gguf(folder.path())).unwrap();
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("text", b"Once upon a time"),
        ("magic_only", b"GGUF"),
        ("cut.gguf", &whole[..whole.len() - 64]),
        ("cut_header.gguf", &whole[..100]),
        ("cut.safetensors", &safetensors()[..70]),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refused(&path, name);
    }
    refused(&folder.path().join("missing"), "missing");
    let empty = folder.path().join("empty_folder");
    std::fs::create_dir(&empty).unwrap();
    refused(&empty, "config.json");
    assert_eq!(quant(&["inspect"]).status.code(), Some(2));
}

fn refused(path: &Path, named: &str) {
    let out = quant(&["inspect", path.to_str().unwrap()]);
    let error = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{named}: {error}");
    assert!(out.stdout.is_empty(), "{named}");
    assert!(error.starts_with("error: ") && error.lines().count() == 1 && error.contains(named), "{named}: {error}");
}

#[test]
fn closed_output_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut metadata = Metadata::new();
    // More than a pipe and our buffer hold.
    metadata.set("long", vec![7u32; 200_000]);
    let path = folder.path().join("long.gguf");
    std::fs::write(&path, WritePlan::new(&metadata, &[]).unwrap().to_bytes(&[]).unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_quant"))
        .args(["inspect", path.to_str().unwrap(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "");
}
