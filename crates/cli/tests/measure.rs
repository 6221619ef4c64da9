//! The commands that measure, as a script sees them: exit codes, JSON keys, files.

mod common;

use common::{MODEL, fails, json};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text() -> String {
    root().join("models/pocket-6m-texts/evaluation.txt").display().to_string()
}

#[test]
fn perplexity_against_itself_by_model_and_by_logits() {
    let dir = tempfile::tempdir().unwrap();
    let logits = dir.path().join("l.safetensors");
    let logits = logits.to_str().unwrap();
    let (model, text) = (MODEL, text());
    let plain = json(&["perplexity", model, &text, "--ctx", "64", "--chunks", "3", "--save-logits", logits, "--json"]);
    assert_eq!((&plain["ctx"], &plain["chunks"], &plain["tokens_scored"]), (&64.into(), &3.into(), &93.into()));
    let ppl = plain["ppl"].as_f64().unwrap();
    assert!(ppl > 10.0 && ppl < 200.0 && plain["ppl_stderr"].as_f64().unwrap() > 0.0, "{plain}");
    assert!(plain.get("kl").is_none());
    let bytes = std::fs::metadata(logits).unwrap().len();
    assert!((192 * 4 * 2049..192 * 4 * 2049 + 1000).contains(&bytes), "{bytes}");

    let by_model = json(&["perplexity", model, &text, "--ctx", "64", "--chunks", "3", "--base", model, "--json"]);
    let by_logits = json(&["perplexity", model, "--base", logits, "--json"]);
    let cut = dir.path().join("cut.safetensors");
    std::fs::write(&cut, &std::fs::read(logits).unwrap()[..5000]).unwrap();
    let (code, error) = fails(&["perplexity", model, &text, "--base", cut.to_str().unwrap()]);
    assert!(code == 1 && error.contains("cut.safetensors: tensor `"), "{code} {error}");
    for report in [by_model, by_logits] {
        assert_eq!(report["tokens_scored"], 93);
        assert!((report["ppl"].as_f64().unwrap() / ppl - 1.0).abs() < 1e-6);
        assert!((report["base_ppl"].as_f64().unwrap() / ppl - 1.0).abs() < 1e-6);
        assert_eq!(report["same_top1"], 1.0);
        for key in ["mean", "median", "p90", "p99", "p99_9", "max"] {
            assert!(report["kl"][key].as_f64().unwrap() < 1e-9, "{key}: {report}");
        }
        assert!(report["cache_bytes_per_token"].as_u64().unwrap() > 0);
    }
}

#[test]
fn perplexity_says_what_is_wrong() {
    let (model, text) = (MODEL, text());
    let dir = tempfile::tempdir().unwrap();
    let (binary, target) = (dir.path().join("b.txt"), dir.path().join("no/l.safetensors"));
    std::fs::write(&binary, b"abc\xff").unwrap();
    let (binary, target) = (binary.to_str().unwrap(), target.to_str().unwrap());
    let cases: [(&[&str], i32, &str); 8] = [
        (&["perplexity", model], 2, "required"),
        (&["perplexity", model, &text, "--ctx", "3"], 2, "too short"),
        (&["perplexity", model, &text, "--ctx", "4096"], 2, "context"),
        (&["perplexity", model, &text, "--chunks", "0"], 2, "zero chunks"),
        (&["perplexity", model, "none.txt"], 1, "none.txt"),
        (&["perplexity", model, binary], 1, "not UTF-8 at byte 3"),
        (&["perplexity", "none.gguf", &text], 1, "none.gguf"),
        (&["perplexity", model, &text, "--ctx", "64", "--save-logits", target], 1, "l.safetensors"),
    ];
    for (args, code, part) in cases {
        let (got, error) = fails(args);
        assert_eq!(got, code, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
}

#[test]
fn calibrate_writes_statistics_and_importance() {
    let dir = tempfile::tempdir().unwrap();
    let (stats, imatrix) = (dir.path().join("s.safetensors"), dir.path().join("i.gguf"));
    let (stats, imatrix) = (stats.to_str().unwrap(), imatrix.to_str().unwrap());
    let (model, text) = (MODEL, text());
    let args = ["calibrate", model, &text, stats, "--samples", "3", "--seq-len", "32", "--imatrix", imatrix, "--json"];
    let report = json(&args);
    assert_eq!((&report["samples"], &report["tokens"], &report["inputs"]), (&3.into(), &96.into(), &24.into()));
    assert!(report["warnings"][0].as_str().unwrap().contains("few"));
    let first = std::fs::read(stats).unwrap();
    json(&args);
    assert_eq!(first, std::fs::read(stats).unwrap(), "the same call writes the same file");
    let (a, b) = (
        quant_runtime::calibrate::load_importance(stats).unwrap(),
        quant_runtime::calibrate::load_importance(imatrix).unwrap(),
    );
    assert_eq!(a.len(), 6 * 7);
    assert!(a.keys().eq(b.keys()));

    let small = ["calibrate", model, &text, stats, "--samples", "3", "--seq-len", "32", "--gram"];
    let whole = json(&[&small[..], &["--json"]].concat());
    let gram = std::fs::read(stats).unwrap();
    let passes = json(&[&small[..], &["--stats-memory", "2M", "--json"]].concat());
    assert_eq!((&whole["passes"], passes["passes"].as_u64() > Some(1)), (&1.into(), true));
    assert_eq!(gram, std::fs::read(stats).unwrap(), "passes do not change the result");
}

#[test]
fn calibrate_says_what_is_wrong() {
    let (model, text) = (MODEL, text());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s");
    std::fs::write(&out, b"old").unwrap();
    let out_str = out.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["calibrate", model, &text, out_str, "--samples", "0"], 2, "0 samples"),
        (&["calibrate", model, &text, out_str, "--seq-len", "2000"], 2, "context"),
        (&["calibrate", model, &text, out_str, "--imatrix", out_str], 2, "same file"),
        (&["calibrate", model, &text, out_str, "--gram", "--stats-memory", "1K"], 2, "more than the 1000 allowed"),
        (&["calibrate", model, "none.txt", out_str], 1, "none.txt"),
    ];
    for (args, code, part) in cases {
        let (got, error) = fails(args);
        assert_eq!(got, code, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn bench_measures_both_tests() {
    let report = json(&["bench", MODEL, "-p", "32", "-n", "4", "-r", "3", "-d", "8", "--threads", "2", "--json"]);
    assert_eq!(report["threads"], 2);
    for (result, test) in report["results"].as_array().unwrap().iter().zip(["pp32", "tg4"]) {
        assert_eq!((&result["test"], &result["depth"]), (&test.into(), &8.into()));
        assert_eq!(result["samples"].as_array().unwrap().len(), 3);
        assert!(result["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(report["activations"], "int8");
    for key in ["load_seconds", "first_token_seconds", "bytes_per_token", "bandwidth"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
    assert!(report["results"][0]["bandwidth_share"].is_null());
    assert!(report["results"][1]["bandwidth_share"].as_f64().unwrap() > 0.0);
    #[cfg(target_os = "linux")]
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    let (code, error) = fails(&["bench", MODEL, "-p", "2000"]);
    assert!(code == 2 && error.contains("context of 1024"), "{code} {error}");
}

/// The quick products of `quant run` cost next to nothing, for a prompt and token by token.
#[test]
fn integer_products_are_near_those_of_floats() {
    let dir = tempfile::tempdir().unwrap();
    let text = text();
    for level in ["Q4_K_M", "Q8_0", "Q2_K"] {
        let file = dir.path().join(format!("{level}.gguf"));
        let file = file.to_str().unwrap();
        json(&["gguf", MODEL, file, "--type", level, "--json"]);
        let args = ["perplexity", file, &text, "--ctx", "128", "--chunks", "8", "--base", file, "--json"];
        let report = json(&[&args[..], &["--activations", "int8"]].concat());
        let (ppl, base) = (report["ppl"].as_f64().unwrap(), report["base_ppl"].as_f64().unwrap());
        let kl = report["kl"]["mean"].as_f64().unwrap();
        println!("{level}: perplexity {:+.3} %, mean KL {kl:.2e}", 100.0 * (ppl / base - 1.0));
        assert!((ppl / base - 1.0).abs() < 0.003 && kl > 1e-7 && kl < 2e-3, "{level}: {report}");
        let ids = |activations: &str, more: &[&str]| {
            let args = ["run", file, "-p", "Once upon a time", "-n", "24", "--temperature", "0", "--json"];
            json(&[&args[..], &["--activations", activations], more].concat())["ids"].clone()
        };
        let exact = ids("f32", &[]);
        for more in [&[][..], &["--no-repack"]] {
            assert_eq!(ids("int8", more).as_array().unwrap()[..8], exact.as_array().unwrap()[..8], "{level} {more:?}");
        }
    }
}

#[test]
fn quickstart_shows_every_method() {
    let dir = tempfile::tempdir().unwrap();
    let (out, short) = (dir.path().join("files"), dir.path().join("short.txt"));
    let whole = std::fs::read_to_string(text()).unwrap();
    std::fs::write(&short, whole.get(..4000).unwrap()).unwrap();
    let (out_str, short) = (out.to_str().unwrap(), short.to_str().unwrap());
    let report = json(&["quickstart", "--out", out_str, "--text", short, "--calibration", &text(), "--json"]);
    let rows = report["rows"].as_array().unwrap();
    let methods: Vec<_> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(
        methods,
        [
            "F16",
            "Q8_0",
            "Q6_K",
            "Q5_K_M",
            "Q4_K_M",
            "Q3_K_M",
            "Q2_K",
            "Q4_K_M with imatrix",
            "GPTQ 4 bits g128",
            "GPTQ 2 bits g32",
            "AWQ 4 bits g128"
        ]
    );
    let figure = |i: usize, key: &str| rows[i][key].as_f64().unwrap();
    for i in 1..7 {
        assert!(figure(i, "bytes") < figure(i - 1, "bytes"), "{report}");
        assert!(figure(i, "bits_per_weight") < figure(i - 1, "bits_per_weight"), "{report}");
        assert!(figure(i, "kl_mean") > figure(i - 1, "kl_mean"), "{report}");
    }
    for (i, row) in rows.iter().enumerate() {
        assert!(figure(i, "ppl") > 1.0 && figure(i, "tokens_per_second") > 0.0, "{row}");
        assert!((0.5..=1.0).contains(&figure(i, "same_top1")) && !row["text"].as_str().unwrap().is_empty(), "{row}");
    }
    // Everything stays, whole: eleven results, the model, its statistics and importance matrix.
    let names = std::fs::read_dir(&out).unwrap().count();
    assert_eq!(names, 14);
    let (code, error) = fails(&["quickstart", "--text", "none.txt"]);
    assert!(code == 1 && error.contains("none.txt"), "{code} {error}");
}

#[test]
fn line_ends_of_a_text_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (lf, crlf) = (text(), dir.path().join("crlf.txt"));
    std::fs::write(&crlf, std::fs::read_to_string(&lf).unwrap().replace('\n', "\r\n")).unwrap();
    let ppl = |file: &str| json(&["perplexity", MODEL, file, "--ctx", "64", "--chunks", "2", "--json"])["ppl"].clone();
    assert_eq!(ppl(&lf), ppl(crlf.to_str().unwrap()));
}
