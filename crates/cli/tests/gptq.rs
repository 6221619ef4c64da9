//! `quant gptq`: directories that the other commands read, the report, and what is refused.

mod common;

use common::{MODEL, fails, json, out, text};
use std::path::Path;

/// The lines that are no warnings.
fn errors(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("warning")).collect()
}

#[test]
fn a_directory_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (text, target) = (text(dir.path()), dir.path().join("out"));
    let target = target.to_str().unwrap();
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64"];
    let report =
        json(&[&["gptq", MODEL, target, "--bits", "3", "--group-size", "64", "--json"][..], &calibrated].concat());
    assert_eq!(report["out"], target);
    for key in ["bytes", "bits_per_weight", "seconds"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 42);
    for tensor in tensors {
        assert!(tensor["name"].as_str().unwrap().starts_with("model.layers."));
        assert_eq!((tensor["bits"].as_u64(), tensor["fallback"].is_null()), (Some(3), true), "{tensor}");
        assert!(tensor["loss"].as_f64().unwrap() > 0.0 && tensor["nmse"].as_f64().unwrap() < 0.2, "{tensor}");
    }
    let seen = json(&["inspect", target, "--json"]);
    assert_eq!(seen["format"], "gptq");
    let said = json(&["run", target, "-p", "Once", "-n", "4", "--raw", "--json"]);
    assert_eq!(said["generated_tokens"], 4);

    // The target holds a model now.
    let (code, error) = fails(&[&["gptq", MODEL, target][..], &calibrated].concat());
    assert!(code != 0 && errors(&error).len() == 1 && error.contains(target), "{error}");
    let again = [&["gptq", MODEL, target, "--overwrite", "--sym", "--json"][..], &calibrated].concat();
    assert_eq!(json(&again)["tensors"][0]["bits"], 4);
    // Nor can what is quantized be quantized again.
    let other = dir.path().join("other");
    let (code, error) = fails(&[&["gptq", target, other.to_str().unwrap()][..], &calibrated].concat());
    assert!(code != 0 && error.contains("quantized already"), "{error}");
}

#[test]
fn rules_formats_and_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let lines = dir.path().join("ids.jsonl");
    let ids: Vec<String> =
        (0..6).map(|i| format!("{{\"input_ids\": {:?}}}", (i..i + 40).collect::<Vec<u32>>())).collect();
    std::fs::write(&lines, ids.join("\n")).unwrap();
    let target = dir.path().join("out");
    let (lines, target) = (lines.to_str().unwrap(), target.to_str().unwrap());
    let args = [
        "gptq",
        MODEL,
        target,
        "--calibration",
        lines,
        "--samples",
        "6",
        "--seq-len",
        "40",
        "--sym",
        "--format",
        "gptq_v2",
        "--module",
        r".*down_proj=bits:8,group:32",
        "--skip",
        r".*layers\.0\..*",
        "--json",
    ];
    let report = json(&args);
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 35);
    for tensor in tensors {
        let down = tensor["name"].as_str().unwrap().ends_with("down_proj");
        let (bits, group) = if down { (8, 32) } else { (4, 128) };
        assert_eq!((tensor["bits"].as_u64(), tensor["group_size"].as_u64()), (Some(bits), Some(group)), "{tensor}");
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(target).join("config.json")).unwrap()).unwrap();
    let config = &config["quantization_config"];
    assert_eq!((&config["checkpoint_format"], &config["sym"]), (&"gptq_v2".into(), &true.into()));
    assert!(config["dynamic"].as_object().unwrap().len() >= 2);
    assert_eq!(json(&["run", target, "-p", "Once", "-n", "3", "--raw", "--json"])["generated_tokens"], 3);
}

#[test]
fn rounding_alone() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let table = out(&["gptq", MODEL, target.to_str().unwrap(), "--rtn", "--bits", "8", "--group-size", "-1"]);
    assert!(table.contains("model.layers.5.mlp.down_proj") && table.contains("bits per weight"), "{table}");
}

/// vLLM's own format: symmetric and not, with rules; what it has no place for is refused before any work.
#[test]
fn compressed_tensors() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args, zero_points) in [
        ("asym", &["--group-size", "64", "--module", ".*down_proj=bits:8,group:-1", "--skip", r".*\.5\."][..], true),
        ("sym", &["--sym"], false),
        ("six", &["--sym", "--bits", "6"], false),
    ] {
        let target = dir.path().join(name);
        let target = target.to_str().unwrap();
        out(&[&["gptq", MODEL, target, "--rtn", "--format", "compressed-tensors"][..], args].concat());
        let seen = json(&["inspect", target, "--json"]);
        assert_eq!((&seen["format"], &seen["kind"]), (&"compressed-tensors".into(), &"compressed-tensors".into()));
        let facts = &seen["compressed_tensors"];
        let bits = if name == "six" { 6 } else { 4 };
        assert_eq!((&facts["bits"], &facts["rounded_scales"]), (&bits.into(), &0.into()));
        assert_eq!(facts["sym"], !zero_points);
        let expected: [u64; 2] = if zero_points { [35, 5] } else { [42, 0] };
        assert_eq!([facts["modules"].as_u64().unwrap(), facts["overridden"].as_u64().unwrap()], expected);
        let tensors = seen["tensors"].as_array().unwrap();
        let zeros = |t: &&serde_json::Value| t["name"].as_str().unwrap().ends_with(".weight_zero_point");
        assert_eq!(tensors.iter().filter(zeros).count(), if zero_points { 35 } else { 0 });
        assert_eq!(json(&["run", target, "-p", "Once", "-n", "3", "--raw", "--json"])["generated_tokens"], 3);
    }
    let target = dir.path().join("refused");
    let text = text(dir.path());
    let refused = [
        "gptq",
        MODEL,
        target.to_str().unwrap(),
        "--desc-act",
        "--format",
        "compressed-tensors",
        "--calibration",
        &text,
    ];
    let (code, error) = fails(&refused);
    assert!(code != 0 && error.contains("order of activations"), "{error}");
    assert!(!target.exists());
}

#[test]
fn wrong_usage_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (text, target) = (text(dir.path()), dir.path().join("out"));
    let target = target.to_str().unwrap();
    for (args, words) in [
        (&["--bits", "5", "--calibration", &text][..], "2, 3, 4 or 8"),
        (&[], "--calibration"),
        (&["--group-size", "0", "--calibration", &text], "-1 or a positive number"),
        (&["--module", "a=bits:9", "--calibration", &text], "2 to 8"),
        (&["--module", "a=bits:6", "--calibration", &text], "2, 3, 4 or 8 bits, not 6"),
        (&["--skip", "(", "--calibration", &text], "regular expression"),
        (&["--static-groups", "--calibration", &text], "--desc-act"),
        (&["--format", "marlin", "--calibration", &text], "gptq_v2"),
        (&["--group-size", "48", "--calibration", &text, "--samples", "2", "--seq-len", "32"], "groups of 48"),
    ] {
        let (code, error) = fails(&[&["gptq", MODEL, target][..], args].concat());
        let errors = errors(&error);
        assert!(code != 0 && errors.len() == 1 && errors[0].contains(words), "{args:?}: {code} {error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{args:?}");
    }
}
