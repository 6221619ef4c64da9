//! `quant w8a8`: directories that the other commands read, schemes, resuming, and what is refused.

mod common;

use common::{MODEL, command, fails, json, out, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A safetensors file's header.
fn header(dir: &Path) -> Value {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[8..8 + len]).unwrap()
}

const UP: &str = "model.layers.0.mlp.up_proj";

/// Every scheme: the config and the tensors that readers ask for, and divergence as small as 8 bits should have it.
#[test]
fn directories_that_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64"];
    let int8 = json!({"num_bits": 8, "type": "int", "symmetric": true});
    let float = json!({"num_bits": 8, "type": "float", "symmetric": true});
    let asymmetric = json!({"num_bits": 8, "type": "int", "symmetric": false});
    // Options, whether calibrated, what a weight is, what activations are, strategy, tensors of a module beside the weight, most KL.
    let cases: [(&[&str], bool, &str, &Value, &str, &[&str], f64); 8] = [
        (&["--scheme", "int8", "--weights", "rtn"], false, "int8", &int8, "token", &["weight_scale"], 2e-3),
        (&["--scheme", "int8"], true, "int8", &int8, "token", &["weight_scale"], 2e-3),
        (
            &["--scheme", "int8", "--weights", "rtn", "--activations", "static"],
            true,
            "int8",
            &int8,
            "tensor",
            &["input_scale", "weight_scale"],
            0.1,
        ),
        (
            &[
                "--scheme",
                "int8",
                "--activations",
                "static",
                "--asymmetric",
                "--range",
                "percentile",
                "--percentile",
                "99.9",
            ],
            true,
            "int8",
            &asymmetric,
            "tensor",
            &["input_scale", "input_zero_point", "weight_scale"],
            0.2,
        ),
        (
            &["--scheme", "int8", "--weights", "rtn", "--asymmetric"],
            false,
            "int8",
            &asymmetric,
            "token",
            &["weight_scale"],
            2e-3,
        ),
        (&["--scheme", "fp8", "--weights", "rtn"], false, "fp8", &float, "token", &["weight_scale"], 5e-3),
        (&["--scheme", "fp8"], true, "fp8", &float, "token", &["weight_scale"], 5e-3),
        (
            &["--scheme", "fp8", "--activations", "static", "--range", "max"],
            true,
            "fp8",
            &float,
            "tensor",
            &["input_scale", "weight_scale"],
            5e-3,
        ),
    ];
    for (index, (options, needs_text, ty, activations, strategy, parts, most)) in cases.into_iter().enumerate() {
        let target = dir.path().join(index.to_string());
        let path = target.to_str().unwrap();
        let calibrated = if needs_text { &calibrated[..] } else { &[] };
        let report = json(&[&["w8a8", MODEL, path, "--json"][..], options, calibrated].concat());
        assert_eq!(report["out"], path);
        let tensors = report["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 42);
        for tensor in tensors {
            assert_eq!((&tensor["type"], &tensor["bits"]), (&json!(ty), &json!(8)));
            assert!(tensor["nmse"].as_f64().unwrap() < if ty == "int8" { 3e-4 } else { 1.5e-3 }, "{tensor}");
            assert!((tensor["bits_per_weight"].as_f64().unwrap() - 8.1).abs() < 0.1, "{tensor}");
            assert_eq!(tensor["loss"].is_null(), options.contains(&"rtn"), "{tensor}");
        }
        let config: Value = serde_json::from_slice(&std::fs::read(target.join("config.json")).unwrap()).unwrap();
        let quantization = &config["quantization_config"];
        let format = if ty == "int8" { "int-quantized" } else { "float-quantized" };
        assert_eq!((&quantization["format"], &quantization["ignore"]), (&json!(format), &json!(["lm_head"])));
        let group = &quantization["config_groups"]["group_0"];
        for (key, value) in activations.as_object().unwrap() {
            assert_eq!(&group["input_activations"][key], value, "{options:?} {key}");
        }
        let input = &group["input_activations"];
        assert_eq!((&input["strategy"], &input["dynamic"]), (&json!(strategy), &json!(strategy == "token")));
        assert_eq!((&group["weights"]["strategy"], &group["weights"]["symmetric"]), (&json!("channel"), &json!(true)));
        let header = header(&target);
        let module = format!("{UP}.");
        let mut found: Vec<&str> = header.as_object().unwrap().keys().filter_map(|k| k.strip_prefix(&module)).collect();
        found.sort_unstable();
        let mut expected = [&["weight"][..], parts].concat();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let tensor = &header[&format!("{UP}.weight")];
        assert_eq!(tensor["dtype"], if ty == "int8" { "I8" } else { "F8_E4M3" });

        let facts = &json(&["inspect", path, "--json"])["compressed_tensors"];
        assert!(facts["loads_in"]["vllm"].as_str().unwrap().starts_with("yes"), "{facts}");
        assert!(facts["loads_in"]["transformers"].as_str().unwrap().starts_with("yes"), "{facts}");
        let perplexity = json(&["perplexity", path, &text, "--ctx", "128", "--chunks", "8", "--base", MODEL, "--json"]);
        let kl = perplexity["kl"]["mean"].as_f64().unwrap();
        println!("{options:?}: mean KL {kl:.2e}");
        assert!(kl < most && kl > 1e-5, "{options:?}: {kl}");
        let weights = [
            "perplexity",
            path,
            &text,
            "--ctx",
            "128",
            "--chunks",
            "8",
            "--base",
            MODEL,
            "--json",
            "--activations",
            "f32",
        ];
        let alone = json(&weights)["kl"]["mean"].as_f64().unwrap();
        assert!(alone < kl, "{options:?}: {alone} {kl}");
    }
    let said = json(&["run", dir.path().join("1").to_str().unwrap(), "-p", "Once", "-n", "4", "--raw", "--json"]);
    assert_eq!(said["generated_tokens"], 4);
    let bench = json(&["bench", dir.path().join("5").to_str().unwrap(), "-p", "16", "-n", "2", "-r", "1", "--json"]);
    assert!(bench["results"][0]["tokens_per_second"].as_f64().unwrap() > 0.0);
}

/// As GGUF: whole numbers keep their codes, the file computes what the weights alone do; FP8 goes by value.
#[test]
fn converted() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (scheme, message) in
        [("int8", "42 matrices keep their codes as Q8_0"), ("fp8", "42 matrices by value: FP8 codes")]
    {
        let (target, gguf) = (path(scheme), path(&format!("{scheme}.gguf")));
        out(&["w8a8", MODEL, &target, "--scheme", scheme, "--weights", "rtn"]);
        let said = out(&["convert", &target, &gguf]);
        assert!(
            said.contains(message) && said.contains("one dynamic scale per token) are left to the reader"),
            "{said}"
        );
        let args = ["--ctx", "128", "--chunks", "4", "--base", MODEL, "--json"];
        let kl = |model: &str, more: &[&str]| {
            json(&[&["perplexity", model, &text][..], &args, more].concat())["kl"]["mean"].as_f64().unwrap()
        };
        let (file, directory) = (kl(&gguf, &[]), kl(&target, &["--activations", "f32"]));
        assert!((file / directory - 1.0).abs() < 0.1, "{scheme}: {file} {directory}");
    }
    let (code, error) = fails(&["diff", &path("int8"), &path("fp8")]);
    assert!(code == 1 && error.lines().count() == 1, "{error}");
    // A quantized directory is no source.
    let (_, error) = fails(&["w8a8", &path("int8"), &path("again"), "--scheme", "int8", "--weights", "rtn"]);
    assert!(error.contains("quantized already"), "{error}");
}

/// Layers that are skipped are named for other readers; a run that was cut short ends the same.
#[test]
fn skipped_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let options = [
        "--scheme",
        "int8",
        "--activations",
        "static",
        "--smooth",
        "--rotate=full",
        "--skip",
        r".*\.1\.(mlp\.down|self_attn\.v)_proj",
    ];
    let calibrated = ["--calibration", &text, "--samples", "16", "--seq-len", "128"];
    let args = |target: &str| {
        [&["w8a8", MODEL, target, "--json"][..], &options, &calibrated]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    let run = |target: &str| json(&args(target).iter().map(String::as_str).collect::<Vec<_>>());
    let whole = run(&path("whole"));
    assert_eq!(whole["tensors"].as_array().unwrap().len(), 40);
    // Of the layers that are skipped, rotated as the others, too.
    let of = ["perplexity", &path("whole"), &text, "--ctx", "128", "--chunks", "4", "--base", MODEL, "--json"];
    let kl = json(&[&of[..], &["--activations", "f32"]].concat())["kl"]["mean"].as_f64().unwrap();
    assert!(kl < 2e-3, "{kl}");

    let target = path("cut");
    let cut = args(&target);
    let mut child = command(&cut.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // After the first layers are on disk.
    let parts = || -> usize {
        let folders: Vec<PathBuf> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
        let files = |p: &PathBuf| {
            std::fs::read_dir(p).map_or(0, |d| {
                d.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().contains("part"))).count()
            })
        };
        folders.iter().filter(|p| p.file_name().unwrap().to_string_lossy().contains("cut")).map(files).sum()
    };
    while parts() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !Path::new(&target).exists() {
        let resumed = run(&target);
        println!("resumed after {} layers", resumed["resumed_layers"]);
    }
    let bytes = |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors")).unwrap();
    assert!(bytes("whole") == bytes("cut"));
}

/// Scales and rotations leave a model that 8 bits hold as well; what is done while the model runs is said to readers.
#[test]
fn smoothed_and_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64", "--json"];
    let cases: [(&[&str], bool, bool); 6] = [
        (&["--scheme", "int8", "--smooth"], false, false),
        (&["--scheme", "int8", "--weights", "rtn", "--smooth=0.5"], false, false),
        (&["--scheme", "int8", "--weights", "rtn", "--rotate"], true, false),
        (&["--scheme", "int8", "--rotate=full"], true, true),
        (&["--scheme", "fp8", "--rotate=folded", "--smooth"], true, false),
        (&["--scheme", "int8", "--weights", "rtn", "--rotate=full", "--smooth=0.5"], true, true),
    ];
    for (index, (options, rotated, while_running)) in cases.into_iter().enumerate() {
        let target = dir.path().join(index.to_string());
        let path = target.to_str().unwrap();
        let report = json(&[&["w8a8", MODEL, path][..], options, &calibrated].concat());
        let smoothed = report["smoothed_inputs"].as_u64().unwrap();
        match options.last() {
            Some(&"--smooth=0.5") => assert_eq!(smoothed, if while_running { 18 } else { 24 }, "{options:?}"),
            Some(&"--smooth") => assert!(smoothed <= 24, "{options:?}"),
            _ => assert_eq!(smoothed, 0, "{options:?}"),
        }
        let config: Value = serde_json::from_slice(&std::fs::read(target.join("config.json")).unwrap()).unwrap();
        let group = &config["quantization_config"]["transform_config"]["config_groups"]["R4"];
        assert_eq!(group["head_dim"], if while_running { json!(128) } else { Value::Null });
        // The weights of norms are in the linears behind them.
        let bytes = std::fs::read(target.join("model.safetensors")).unwrap();
        let norm = &header(&target)["model.norm.weight"];
        let one: &[u8] = match norm["dtype"].as_str().unwrap() {
            "F16" => &[0, 0x3c],
            "BF16" => &[0x80, 0x3f],
            _ => &[0, 0, 0x80, 0x3f],
        };
        let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let at = |i: usize| head + norm["data_offsets"][i].as_u64().unwrap() as usize;
        assert_eq!(bytes[at(0)..at(1)].chunks(one.len()).all(|value| value == one), rotated, "{options:?}");
        let loads = &json(&["inspect", path, "--json"])["compressed_tensors"]["loads_in"];
        let word = if while_running { "wrongly: the rotation R4" } else { "yes" };
        assert!(loads["transformers"].as_str().unwrap().starts_with(word), "{loads}");
        let of = ["perplexity", path, &text, "--ctx", "128", "--chunks", "8", "--base", MODEL, "--json"];
        let kl = json(&of)["kl"]["mean"].as_f64().unwrap();
        println!("{options:?}: mean KL {kl:.2e}, {smoothed} inputs smoothed");
        assert!(kl > 1e-5 && kl < if options.contains(&"fp8") { 5e-3 } else { 2e-3 }, "{options:?}: {kl}");
        if while_running {
            let (code, error) = fails(&["convert", path, dir.path().join("x.gguf").to_str().unwrap()]);
            assert!(code == 1 && error.contains("which GGUF has no place for"), "{error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let target = dir.path().join("out").to_str().unwrap().to_owned();
    let calibrated = ["--calibration", &text, "--samples", "8", "--seq-len", "64"];
    let cases: [(&[&str], &str); 12] = [
        (&["--scheme", "int8", "--smooth=2"], "0 to 1"),
        (&["--scheme", "int8", "--smooth=nan"], "0 to 1"),
        (&["--scheme", "int8", "--rotate=all"], "all"),
        (&[], "--scheme"),
        (&["--scheme", "int4"], "int4"),
        (&["--scheme", "fp8", "--asymmetric"], "FP8 has no zero points"),
        (&["--scheme", "int8", "--range", "max"], "--activations static"),
        (&["--scheme", "int8", "--activations", "static", "--percentile", "0"], "--percentile"),
        (&["--scheme", "int8", "--activations", "static", "--percentile", "nan"], "--percentile"),
        (&["--scheme", "int8", "--activations", "token"], "token"),
        (&["--scheme", "int8", "--skip", "["], "--skip"),
        (&["--scheme", "int8", "--skip", "model"], "leave every module in full precision"),
    ];
    for (options, expected) in cases {
        let (code, error) = fails(&[&["w8a8", MODEL, &target][..], options, &calibrated].concat());
        let lines: Vec<&str> = error.lines().filter(|line| !line.starts_with("warning")).collect();
        assert!(code == 2 && lines.len() == 1 && error.contains(expected), "{code} {error}");
    }
    for options in [
        &["--scheme", "int8"][..],
        &["--scheme", "fp8", "--weights", "rtn", "--activations", "static"],
        &["--scheme", "int8", "--weights", "rtn", "--smooth"],
    ] {
        let (code, error) = fails(&[&["w8a8", MODEL, &target][..], options].concat());
        assert!(code == 2 && error.contains("--calibration"), "{code} {error}");
    }
    assert!(!Path::new(&target).exists());
}

type Change = fn(&mut Value, &mut Value);

/// Directories with one defect each: one line that names the file, and the module or the key.
#[test]
fn defects_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path());
    let good = dir.path().join("good");
    let options = ["--scheme", "int8", "--weights", "rtn", "--activations", "static", "--asymmetric"];
    let calibrated = ["--calibration", &text, "--samples", "2", "--seq-len", "64"];
    out(&[&["w8a8", MODEL, good.to_str().unwrap()][..], &options, &calibrated].concat());
    let config: Value = serde_json::from_slice(&std::fs::read(good.join("config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(good.join("model.safetensors")).unwrap();
    let head = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = header(&good);
    let cases: [(&str, Change, &[&str]); 9] = [
        ("static", |c, _| c["input_activations"]["dynamic"] = json!(true), &[]),
        (
            "missing",
            |_, h| rename(h, "input_scale", "input_scales"),
            &["safetensors", UP, "`input_scale`", "static", "nothing"],
        ),
        ("zero", |_, h| rename(h, "input_zero_point", "zero"), &[UP, "`input_zero_point`", "asymmetric"]),
        ("no_scale", |_, h| rename(h, "weight_scale", "scale"), &["up_proj.weight_scale", "nothing"]),
        ("scheme", |c, _| c["weights"]["type"] = json!("float"), &["config.json", "weights: type", "int-quantized"]),
        ("mixed", |c, _| c["input_activations"]["type"] = json!("float"), &["config.json", "input_activations: type"]),
        ("token", |c, _| c["input_activations"]["strategy"] = json!("token"), &["config.json", "Token, static"]),
        (
            "fp8",
            |c, _| {
                c["weights"]["type"] = json!("float");
                c["input_activations"] = json!({"num_bits": 8, "type": "float", "strategy": "tensor"});
                c["format"] = json!("float-quantized");
            },
            &["`weight`", "F8_E4M3, found I8"],
        ),
        ("targets", |c, _| c["targets"] = json!(["re:.*q_proj"]), &["full precision, as the config says"]),
    ];
    for (name, change, words) in cases {
        let bad = dir.path().join(name);
        copy(&good, &bad);
        let (mut config, mut header) = (config.clone(), header.clone());
        change(&mut config["quantization_config"]["config_groups"]["group_0"], &mut header);
        std::fs::write(bad.join("config.json"), config.to_string()).unwrap();
        let header = header.to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + head..]].concat();
        std::fs::write(bad.join("model.safetensors"), file).unwrap();
        if words.is_empty() {
            // Dynamic scales for tensors: the static ones are left aside.
            json(&["run", bad.to_str().unwrap(), "-p", "Once", "-n", "1", "--raw", "--json"]);
            continue;
        }
        let (code, error) = fails(&["run", bad.to_str().unwrap(), "-p", "Once", "-n", "1", "--raw"]);
        assert!(code == 1 && error.lines().count() == 1, "{name}: {error}");
        for word in words {
            assert!(error.contains(word), "{name}: {error}: {word}");
        }
        // Looked at, it says the same, and what is there.
        let report = json(&["inspect", bad.to_str().unwrap(), "--json"]);
        assert!(report["compressed_tensors"]["error"].is_string(), "{name}: {report}");
    }
    for cut in [7, 100, bytes.len() / 2, bytes.len() - 1] {
        let bad = dir.path().join(format!("cut{cut}"));
        copy(&good, &bad);
        std::fs::write(bad.join("model.safetensors"), &bytes[..cut]).unwrap();
        let (code, error) = fails(&["perplexity", bad.to_str().unwrap(), &text]);
        assert!(code == 1 && error.lines().count() == 1 && error.contains("model.safetensors"), "{cut}: {error}");
    }
}

fn rename(header: &mut Value, from: &str, to: &str) {
    let header = header.as_object_mut().unwrap();
    let tensor = header.remove(&format!("{UP}.{from}")).unwrap();
    header.insert(format!("{UP}.{to}"), tensor);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
