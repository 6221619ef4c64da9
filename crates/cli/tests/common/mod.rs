//! The command as a script sees it: exit codes, standard output, standard error.

// Every test program uses a part of it.
#![allow(dead_code)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The bundled model.
pub(crate) const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pocket-6m");

/// The path of a text of 400 lines in `dir`, to calibrate on.
pub(crate) fn text(dir: &Path) -> String {
    let path = dir.join("text.txt");
    let lines: Vec<String> = (0..400).map(|i| format!("The {i}th line of a text about rounding numbers.")).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quant"));
    command.args(args);
    command
}

pub(crate) fn quant(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a run that must succeed.
pub(crate) fn out(args: &[&str]) -> String {
    let output = quant(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn json(args: &[&str]) -> Value {
    let out = out(args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
}

/// Exit code and standard error of a run that must print nothing else.
pub(crate) fn fails(args: &[&str]) -> (i32, String) {
    let output = quant(args);
    assert!(output.stdout.is_empty(), "{args:?}");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}
