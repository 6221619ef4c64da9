//! `quant run` and `quant tokenize` as a user runs them, on the bundled model.

mod common;

use common::{MODEL, command, fails, json, out};
use serde_json::Value;
use std::io::{Read, Write};
use std::process::Stdio;

#[test]
fn tokenize() {
    let text = "Hello<|end_of_text|>";
    let object = json(&["tokenize", MODEL, "-p", text, "--json"]);
    assert_eq!(object["ids"][0], 0);
    assert_eq!(object["ids"].as_array().unwrap().last().unwrap(), 1);
    let pieces = |object: &Value| -> String {
        object["pieces"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect()
    };
    assert_eq!(pieces(&object), "<|begin_of_text|>Hello<|end_of_text|>");
    let plain = json(&["tokenize", MODEL, "-p", text, "--no-bos", "--no-special", "--json"]);
    assert_eq!(pieces(&plain), text);
    assert!(!plain["ids"].as_array().unwrap().contains(&Value::from(1)));
    // The bytes of a character that has no token of its own.
    let crab = json(&["tokenize", MODEL, "-p", "🦀", "--no-bos", "--json"]);
    assert_eq!(pieces(&crab), "<0xF0><0x9F><0xA6><0x80>");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, "a\nb").unwrap();
    let lines = out(&["tokenize", MODEL, "--file", file.to_str().unwrap()]);
    assert!(lines.lines().next().unwrap().ends_with(" 0 \"<|begin_of_text|>\""), "{lines}");
    assert!(lines.contains("\"\\n\""), "{lines}");
    assert_eq!(out(&["tokenize", MODEL, "-p", "", "--no-bos"]), "");
    std::fs::write(&file, b"ab\xff").unwrap();
    let (code, message) = fails(&["tokenize", MODEL, "--file", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(message.contains("not UTF-8 at byte 2"), "{message}");
    assert_eq!(fails(&["tokenize", MODEL]).0, 2);
    assert_eq!(fails(&["tokenize", MODEL, "-p", "a", "--file", "b"]).0, 2);
}

#[test]
fn greedy_text_is_the_same_each_time() {
    let args = ["run", MODEL, "-p", "Once upon a time", "-n", "12", "--temperature", "0"];
    let text = out(&args);
    assert_eq!(text, out(&args));
    let object = json(&[&args[..], &["--json"]].concat());
    assert_eq!(object["text"].as_str().unwrap(), text.strip_suffix('\n').unwrap());
    assert_eq!(object["generated_tokens"], 12);
    assert_eq!(object["ids"].as_array().unwrap().len(), 12);
    assert_eq!(object["finish_reason"], "max_tokens");
    assert!(object["prompt_tokens"].as_u64().unwrap() >= 5);
    for speed in ["prompt_tokens_per_second", "tokens_per_second"] {
        assert!(object[speed].as_f64().unwrap() > 0.0, "{speed}");
    }
    // A stop string from the middle of that text ends it there.
    let stop: String = text.chars().skip(8).take(3).collect();
    let stopped = json(&[&args[..], &["--json", "--stop", &stop]].concat());
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str().unwrap(), text.split(&stop).next().unwrap());
}

#[test]
fn seeds_repeat() {
    let sample = |seed: &str| json(&["run", MODEL, "-p", "The", "-n", "16", "--seed", seed, "--json"])["ids"].clone();
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
}

#[test]
fn the_context_ends_a_text() {
    let object = json(&["run", MODEL, "-p", "The", "-n", "100", "--ctx", "20", "--temperature", "0", "--json"]);
    assert_eq!(object["finish_reason"], "context_full");
    assert_eq!(object["prompt_tokens"].as_u64().unwrap() + object["generated_tokens"].as_u64().unwrap(), 20);
}

#[test]
fn chat_through_a_pipe() {
    let mut child = command(&["run", MODEL, "-n", "5", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Once upon a time\n\n/clear\nThe\n/exit\nnever read\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: String = ["Once upon a time", "The"]
        .iter()
        .map(|prompt| out(&["run", MODEL, "-p", prompt, "-n", "5", "--temperature", "0"]))
        .collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_closed_output_is_no_error() {
    let mut child = command(&["run", MODEL, "-p", "The", "-n", "300", "--seed", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut one = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut one).unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !message.contains("panicked"), "{message}");
}

#[test]
fn wrong_usage_and_missing_models() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "no/such/model", "-p", "x"], 1, "no/such/model"),
        (&["tokenize", "no/such/model", "-p", "x"], 1, "no/such/model"),
        (&["run", MODEL, "-p", "x", "--temperature=-1"], 2, "temperature"),
        (&["run", MODEL, "-p", "x", "--top-p", "0"], 2, "top-p is 0"),
        (&["run", MODEL, "-p", "x", "--ctx", "5000"], 2, "a context of 5000 tokens: the model was made for 1 to 1024"),
        (&["run", MODEL, "-p", "Once upon a time", "--ctx", "3"], 2, "tokens; the context holds 3"),
        (&["run", MODEL, "-p", "x", "--system", "y"], 2, "has no chat template"),
        (&["run", MODEL, "-p", "x", "--system", "y", "--raw"], 2, "cannot be used with"),
        (&["run", MODEL, "--json"], 2, "--prompt"),
        (&["run", MODEL, "-p", "x", "--device", "tpu"], 2, "tpu"),
    ];
    for (args, code, message) in cases {
        let (found, text) = fails(args);
        assert_eq!(found, *code, "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    if !cfg!(feature = "cuda") {
        let (code, text) = fails(&["run", MODEL, "-p", "x", "--device", "cuda"]);
        assert_eq!((code, text.lines().count()), (2, 1), "{text}");
        assert!(text.contains("--features cuda"), "{text}");
    }
}
