//! `gguf` and `convert`, as a script sees them: exit codes, JSON keys, files.

mod common;

use common::{MODEL, fails, json};
use gguf_format::Gguf;
use std::path::{Path, PathBuf};

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn a_level_in_one_step_and_by_way_of_f32() {
    let dir = tempfile::tempdir().unwrap();
    let (one, f32, two) = (path(&dir, "one.gguf"), path(&dir, "f32.gguf"), path(&dir, "two.gguf"));
    let report = json(&["gguf", MODEL, &one, "--type", "q4_k_m", "--errors", "--json"]);
    assert_eq!(report["out"], one.as_str());
    assert_eq!(report["bytes"], std::fs::metadata(&one).unwrap().len());
    let bpw = report["bits_per_weight"].as_f64().unwrap();
    assert!(bpw > 4.5 && bpw < 5.2 && report["seconds"].as_f64().unwrap() > 0.0, "{bpw}");
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 57);
    for t in tensors {
        let nmse = t["nmse"].as_f64().unwrap();
        let quantized = t["bits_per_weight"].as_f64().unwrap() < 16.0;
        assert!(t["name"].is_string() && t["type"].is_string() && (nmse > 0.0) == quantized && nmse < 0.01, "{t}");
    }

    let report = json(&["convert", MODEL, &f32, "--type", "f32", "--json"]);
    assert_eq!(report["bits_per_weight"], 32.0);
    json(&["gguf", &f32, &two, "--type", "Q4_K_M", "--json"]);
    assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(), "BF16 to F32 loses nothing");
}

#[test]
fn convert_keeps_the_type_unless_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out.gguf");
    for (args, expected) in [(&[][..], 32), (&["--type", "F16"][..], 1), (&["--type", "f32"][..], 0)] {
        json(&[&["convert", MODEL, &out, "--json"][..], args].concat());
        let file = Gguf::open(&out).unwrap();
        assert_eq!(file.metadata().need_u64("general.file_type").unwrap(), expected, "{args:?}");
    }
    let (code, error) = fails(&["convert", &out, &path(&dir, "again.gguf")]);
    assert!(code == 2 && error.contains("GGUF file already"), "{code} {error}");
}

/// A packed directory keeps its codes, in either layout the same; quantizing it again has to be asked for.
#[test]
fn convert_keeps_codes() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, args) in [("gptq", &[][..]), ("vllm", &["--format", "compressed-tensors"][..])] {
        let (packed, out) = (path(&dir, name), path(&dir, &format!("{name}.gguf")));
        let rules = ["--rtn", "--sym", "--module", ".*up_proj=bits:8,sym:false", "--skip", r".*\.0\."];
        common::out(&[&["gptq", MODEL, &packed][..], &rules, args].concat());
        let report = json(&["convert", &packed, &out, "--json"]);
        let of = |name: &str| {
            let tensors = report["tensors"].as_array().unwrap();
            tensors.iter().find(|t| t["name"] == name).unwrap().clone()
        };
        assert_eq!(
            (&of("blk.1.attn_q.weight")["type"], &of("blk.1.attn_q.weight")["nmse"]),
            (&"Q4_0".into(), &0.0.into())
        );
        // Asymmetric 8 bits: where all codes less zero points fit a byte Q8_0, else by value.
        let up = of("blk.1.ffn_up.weight")["type"].clone();
        assert!(up == "Q8_0" || up == "F16", "{up}");
        assert_eq!(of("blk.0.attn_q.weight")["type"], "BF16");
        assert_eq!(of("token_embd.weight")["type"], "BF16");
        files.push(std::fs::read(&out).unwrap());
        let (code, error) = fails(&["gguf", &packed, &path(&dir, "no.gguf"), "--type", "Q4_K_M"]);
        assert!(code != 0 && error.contains("--allow-requantize"), "{error}");
        json(&["gguf", &packed, &path(&dir, "again.gguf"), "--type", "Q4_K_M", "--allow-requantize", "--json"]);
        assert!(
            common::out(&["convert", &packed, &path(&dir, "table.gguf"), "--type", "f16"])
                .contains("keep their codes as Q4_0: exact")
        );
    }
    // But for the name, which is the folder's.
    assert_eq!(files[0].len(), files[1].len());
    let differing = files[0].iter().zip(&files[1]).filter(|(a, b)| a != b).count();
    assert!((1..=4).contains(&differing), "{differing}");
}

#[test]
fn options_choose_types() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out.gguf");
    let base = ["gguf", MODEL, &out, "--type", "Q4_K_M", "--dry-run", "--json"].map(str::to_owned);
    for (args, tensor, expected) in [
        (&[][..], "output.weight", "Q6_K"),
        (&["--pure"][..], "output.weight", "Q4_K"),
        (&["--leave-output-tensor"][..], "output.weight", "BF16"),
        (&["--output-tensor-type", "q8_0"][..], "output.weight", "Q8_0"),
        (&["--token-embedding-type", "Q5_K"][..], "token_embd.weight", "Q5_K"),
        (&["--tensor-type", r"blk\.[01]\.ffn=Q3_K", "--tensor-type", "ffn=q5_0"][..], "blk.1.ffn_up.weight", "Q3_K"),
        (&["--tensor-type", r"blk\.[01]\.ffn=Q3_K", "--tensor-type", "ffn=q5_0"][..], "blk.2.ffn_up.weight", "Q5_0"),
    ] {
        let args: Vec<&str> = base.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let report = json(&args);
        let found = report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == tensor).unwrap();
        assert_eq!(found["type"], expected, "{args:?}");
        assert!(report["out"].is_null() && !Path::new(&out).exists());
    }
}

#[test]
fn wrong_usage_is_exit_2_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = path(&dir, "out.gguf");
    std::fs::write(&out, b"old").unwrap();
    let q8 = path(&dir, "q8.gguf");
    json(&["gguf", MODEL, &q8, "--type", "Q8_0", "--json"]);
    let model = MODEL.to_owned();
    for (args, expected) in [
        (&["gguf", &model, &out, "--type", "Q4"][..], "Q4_K_M"),
        (&["gguf", &model, &out], "--type"),
        (&["gguf", &model, &out, "--type", "Q4_0", "--tensor-type", "attn_v"], "REGEX=TYPE"),
        (&["gguf", &model, &out, "--type", "Q4_0", "--tensor-type", "(=Q4_0"], "pattern"),
        (&["gguf", &model, &out, "--type", "Q4_0", "--tensor-type", "v=Q4_K_M"], "Q4_K,"),
        (&["gguf", &q8, &out, "--type", "Q4_0"], "--allow-requantize"),
        (&["gguf", &q8, &q8, "--type", "Q8_0"], "overwritten"),
        (&["gguf", &model, &out, "--type", "Q2_K_S"], "importance matrix"),
        (&["convert", &model, &out, "--type", "Q8_0"], "f16"),
    ] {
        let (code, error) = fails(args);
        assert!(code == 2 && error.contains(expected), "{args:?}: {code} {error}");
        assert_eq!(std::fs::read(&out).unwrap(), b"old", "{args:?}");
    }
    let missing = PathBuf::from(&model).join("nothing").display().to_string();
    for args in [
        &["gguf", &missing, &out, "--type", "Q4_0"][..],
        &["gguf", &model, &path(&dir, "no/such/folder.gguf"), "--type", "Q4_0"],
        &["gguf", &model, &out, "--type", "Q4_0", "--imatrix", &missing],
        &["gguf", &model, &out, "--type", "Q4_0", "--imatrix", &q8],
    ] {
        let (code, error) = fails(args);
        assert!(code == 1 && error.lines().count() == 1, "{args:?}: {code} {error}");
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
}

/// llama-quantize writes where the importance weights are from; only llama.cpp's own form names its text and chunks.
#[test]
fn the_origin_of_importance_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (stats, imatrix, out) = (path(&dir, "s.safetensors"), path(&dir, "i.gguf"), path(&dir, "out.gguf"));
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pocket-6m-texts/evaluation.txt");
    let sizes = ["--samples", "4", "--seq-len", "64", "--imatrix", &imatrix, "--json"];
    json(&[&["calibrate", MODEL, text, &stats][..], &sizes].concat());
    for (file, dataset, chunks) in [(&imatrix, Some("evaluation.txt"), Some(4)), (&stats, None, None)] {
        json(&["gguf", MODEL, &out, "--type", "Q4_0", "--imatrix", file, "--json"]);
        let gguf = Gguf::open(&out).unwrap();
        let metadata = gguf.metadata();
        let expected: String = file.chars().take(127).collect();
        assert_eq!(metadata.get_str("quantize.imatrix.file").unwrap(), Some(expected.as_str()));
        assert_eq!(metadata.get_str("quantize.imatrix.dataset").unwrap(), dataset, "{file}");
        assert_eq!(metadata.get_u64("quantize.imatrix.chunks_count").unwrap(), chunks, "{file}");
        // Seven linear layers in each of six blocks.
        assert_eq!(metadata.get_u64("quantize.imatrix.entries_count").unwrap(), Some(42), "{file}");
    }
}
