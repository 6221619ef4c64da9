//! `quant awq`: directories that the other commands read, the layouts, and what is refused; scales for the other methods.

mod common;

use common::{MODEL, fails, json, out, text};
use std::path::Path;

#[test]
fn directories_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64", "--json"];
    let cases: [(&[&str], &str, u64); 5] = [
        (&[], "awq", 4),
        (&["--no-zero-point", "--group-size", "64"], "awq", 4),
        (&["--bits", "3", "--group-size", "-1", "--block-loss"], "gptq", 3),
        (&["--format", "compressed-tensors", "--no-clip"], "compressed-tensors", 4),
        (&["--format", "gptq_v2", "--no-scales", "--clip-qk", "--margin", "0"], "gptq", 4),
    ];
    for (index, (options, format, bits)) in cases.into_iter().enumerate() {
        let target = dir.path().join(index.to_string());
        let target = target.to_str().unwrap();
        let report = json(&[&["awq", MODEL, target][..], options, &calibrated].concat());
        assert_eq!(report["out"], target);
        let tensors = report["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 42);
        for tensor in tensors {
            assert_eq!(
                (tensor["bits"].as_u64(), tensor["type"].as_str().unwrap()),
                (Some(bits), &*format!("awq-{bits}bit"))
            );
            assert!(tensor["loss"].as_f64().unwrap() > 0.0 && tensor["nmse"].as_f64().unwrap() < 0.2, "{tensor}");
        }
        assert_eq!(json(&["inspect", target, "--json"])["format"], format);
        let said = json(&["run", target, "-p", "Once", "-n", "4", "--raw", "--json"]);
        assert_eq!(said["generated_tokens"], 4);
    }
}

#[test]
fn scales_for_the_other_methods() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let calibrated = ["--awq-scales", "--calibration", &text, "--samples", "8", "--seq-len", "64", "--json"];
    let target = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let report = json(&[&["gptq", MODEL, &target("gptq"), "--bits", "3"][..], &calibrated].concat());
    assert_eq!(report["tensors"].as_array().unwrap().len(), 42);
    json(&["inspect", &target("gptq"), "--json"]);
    let file = target("x.gguf");
    json(&[&["gguf", MODEL, &file, "--type", "Q4_K_M"][..], &calibrated].concat());
    out(&["verify", &file]);
    let plain = target("plain.gguf");
    json(&["gguf", MODEL, &plain, "--type", "Q4_K_M", "--json"]);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), std::fs::metadata(&plain).unwrap().len());
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let target = dir.path().join("out").to_str().unwrap().to_owned();
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64"];
    let cases: [(&[&str], &str); 4] = [
        (&["--bits", "5"], "2, 3, 4 or 8"),
        (&["--bits", "3", "--format", "awq"], "4 bits"),
        (&["--group-size", "48"], "groups of 48"),
        (&["--no-clip", "--clip-qk"], "--clip-qk"),
    ];
    for (options, expected) in cases {
        let (code, error) = fails(&[&["awq", MODEL, &target][..], options, &calibrated].concat());
        let lines: Vec<&str> = error.lines().filter(|line| !line.starts_with("warning")).collect();
        assert!(code == 2 && lines.len() == 1 && error.contains(expected), "{code} {error}");
    }
    let (code, error) = fails(&["awq", MODEL, &target]);
    assert!(code == 2 && error.contains("--calibration"), "{code} {error}");
    let (code, error) = fails(&["gguf", MODEL, &target, "--type", "Q4_0", "--awq-scales"]);
    assert!(code == 2 && error.contains("--calibration"), "{code} {error}");
    assert!(!Path::new(&target).exists());
}
