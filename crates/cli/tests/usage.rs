//! Wrong usage of any command: one line on standard error, nothing on standard output, exit 2. Help: standard output, exit 0.

mod common;

use common::{fails, out};

#[test]
fn wrong_usage_is_one_line() {
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["subcommand", "inspect", "quant --help"]),
        (&["frobnicate"], &["'frobnicate'", "quant --help"]),
        (&["inspec"], &["'inspec'", "inspect"]),
        (&["inspect"], &["<FILE|DIR>", "quant inspect --help"]),
        (&["inspect", "a", "b"], &["'b'", "quant inspect --help"]),
        (&["inspect", "a", "--jsn"], &["'--jsn'", "'--json'"]),
        (&["gguf", "a"], &["--type <TYPE>", "<OUT>", "quant gguf --help"]),
        (&["gguf", "a", "b", "--type", "Q9_X"], &["'Q9_X'", "Q4_K_M"]),
        (&["gguf", "a", "b", "--type", "Q4_0", "--type", "Q8_0"], &["--type <TYPE>", "multiple times"]),
        (&["gguf", "a", "b", "--type"], &["a value is required", "--type <TYPE>"]),
        (&["--threads", "0", "inspect", "a"], &["0", "--threads <N>", "1..=4096"]),
        (&["run", "m", "--seed", "x\ny"], &["x y", "--seed"]),
    ];
    for (args, words) in cases {
        let (code, error) = fails(args);
        assert_eq!(code, 2, "{args:?}: {error}");
        assert!(
            error.starts_with("error: ") && error.ends_with('\n') && error.lines().count() == 1,
            "{args:?}: {error}"
        );
        for word in *words {
            assert!(error.contains(word), "{args:?}: `{word}` is not in {error}");
        }
    }
}

#[test]
fn help_and_version_are_as_clap_prints_them() {
    for args in [&["--help"][..], &["help"], &["gguf", "--help"], &["help", "gguf"]] {
        let text = out(args);
        assert!(text.contains("Usage: quant") && text.lines().count() > 5, "{args:?}: {text}");
    }
    assert!(out(&["--version"]).starts_with("quant "));
}
