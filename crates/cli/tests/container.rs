//! `edit`, `split`, `merge`, `diff` and `verify`, as a script sees them: exit codes, JSON keys, files.

mod common;

use common::{fails, json, out, quant};
use gguf_format::{Edit, GgmlType, Gguf, Metadata, TensorSpec, WritePlan};
use std::path::Path;
use std::process::Command;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Three keys, three tensors.
    fn sample(&self) -> String {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", "llama");
        metadata.set("general.name", "sample");
        metadata.set("llama.block_count", 2u32);
        let spec = |name: &str, shape: &[u64], ty| TensorSpec { name: name.into(), shape: shape.into(), ty };
        let specs =
            [spec("a", &[8], GgmlType::F32), spec("b", &[2, 32], GgmlType::Q8_0), spec("c", &[3], GgmlType::F16)];
        let plan = WritePlan::new(&metadata, &specs).unwrap();
        let path = self.path("sample.gguf");
        std::fs::write(&path, plan.to_bytes(&[&[0; 32], &[1; 68], &[2; 6]]).unwrap()).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn edit_changes_what_it_is_told() {
    let folder = Folder::new();
    let (file, to) = (folder.sample(), folder.path("out.gguf"));
    let template = folder.path("template.txt");
    std::fs::write(&template, "{{ a }}\n").unwrap();
    let report = json(&[
        "edit",
        &file,
        &to,
        "--rename",
        "general.name=general.title",
        "--set",
        "general.title=string:b=c:d",
        "--set",
        "llama.block_count=u64:3",
        "--set",
        "ids=array[i32]:1,-2",
        "--set-file",
        &format!("tokenizer.chat_template={template}"),
        "--remove",
        "general.architecture",
        "--rename-tensor",
        "a=x",
        "--remove-tensor",
        "c",
        "--alignment",
        "64",
        "--json",
    ]);
    assert_eq!(report, serde_json::json!({ "out": to, "bytes": read(&to).len(), "keys": 5, "tensors": 2 }));
    let edited = Gguf::open(&to).unwrap();
    edited.strict_check().unwrap();
    let keys: Vec<String> = edited.metadata().iter().map(|(k, v)| format!("{k} {} {v}", v.value_type())).collect();
    assert_eq!(
        keys,
        [
            "general.title string \"b=c:d\"",
            "llama.block_count u64 3",
            "ids array [1, -2]",
            "tokenizer.chat_template string \"{{ a }}\\n\"",
            "general.alignment u32 64",
        ]
    );
    let names: Vec<&str> = edited.tensors().iter().map(|t| t.name()).collect();
    assert_eq!((names, edited.alignment()), (vec!["x", "b"], 64));
    assert_eq!(edited.data(edited.tensor("b").unwrap()), [1; 68]);
    assert_eq!(out(&["edit", &file, &to]), format!("{to}: {} bytes, 3 keys, 3 tensors\n", read(&file).len()));
    assert!(read(&to) == read(&file), "without an option nothing changes");
}

#[test]
fn edit_in_place_turns_and_replaces() {
    let folder = Folder::new();
    let file = folder.sample();
    let original = read(&file);
    out(&["edit", &file, &file, "--byte-order", "big"]);
    assert_eq!(read(&file)[4..8], [0, 0, 0, 3]);
    // A tensor of a big-endian file in a little-endian one.
    let other = folder.path("other.gguf");
    std::fs::write(&other, &original).unwrap();
    out(&["edit", &other, &other, "--set", "x=u8:1", "--replace-tensor", &format!("a={file}")]);
    out(&["edit", &other, &other, "--remove", "x"]);
    assert!(read(&other) == original);
    out(&["edit", &file, &file, "--byte-order", "little"]);
    assert!(read(&file) == original);
    assert_eq!(folder.names(), ["other.gguf", "sample.gguf"]);
}

#[test]
fn failed_edits_are_one_line_and_leave_the_target() {
    let folder = Folder::new();
    let (file, to) = (folder.sample(), folder.path("out.gguf"));
    std::fs::write(&to, b"old").unwrap();
    let (missing, text) = (folder.path("missing.gguf"), folder.path("text"));
    std::fs::write(&text, b"no model").unwrap();
    let long = format!("a={}", "n".repeat(64));
    let cases: &[(i32, &[&str], &str)] = &[
        (2, &["--set", "general.name"], "KEY=TYPE:VALUE"),
        (2, &["--set", "n=u8:300"], "`300` is no u8"),
        (2, &["--alignment", "48"], "power of two"),
        (2, &["--byte-order", "middle"], "little, big"),
        (2, &["--rename", "a"], "--rename <OLD=NEW>"),
        (1, &["--remove", "no.key"], "sample.gguf: key `no.key` is missing"),
        (1, &["--rename", "general.name=llama.block_count"], "it is there already"),
        (1, &["--rename-tensor", "no=x"], "sample.gguf: tensor `no` is missing"),
        (1, &["--rename-tensor", &long], "out.gguf: tensor `nnnn"),
        (1, &["--remove-tensor", "no"], "tensor `no` is missing"),
        (1, &["--set-file", &format!("k={missing}")], "missing.gguf"),
        (1, &["--replace-tensor", &format!("a={missing}")], "missing.gguf"),
        (1, &["--replace-tensor", &format!("a={text}")], "text: header"),
        (1, &["--set", "general.alignment=u32:48"], "must be u32, a power of two"),
    ];
    for (code, options, words) in cases {
        let (found, error) = fails(&[&["edit", &file, &to], *options].concat());
        assert!(found == *code && error.contains(words) && error.lines().count() == 1, "{options:?}: {found} {error}");
        assert_eq!(read(&to), b"old", "{options:?}");
        assert_eq!(folder.names(), ["out.gguf", "sample.gguf", "text"], "{options:?}");
    }
    let (code, error) = fails(&["edit", &missing, &to]);
    assert!(code == 1 && error.contains("missing.gguf"), "{error}");
}

#[test]
fn split_and_merge_are_inverse() {
    let folder = Folder::new();
    let (file, prefix, merged) = (folder.sample(), folder.path("part"), folder.path("merged.gguf"));
    let report = json(&["split", &file, &prefix, "--max-tensors", "2", "--dry-run", "--json"]);
    assert_eq!((&report["written"], folder.names().len()), (&false.into(), 1));
    for (options, tensors) in [
        (&["--max-tensors", "2"][..], &[2, 1][..]),
        (&["--max-size", "1K"], &[3]),
        (&["--max-size", "64"], &[1, 1, 1]),
        (&["--max-tensors", "2", "--no-tensor-first-split"], &[0, 2, 1]),
    ] {
        let report = json(&[&["split", &file, &prefix, "--json"], options].concat());
        let parts = report["parts"].as_array().unwrap();
        let found: Vec<i64> = parts.iter().map(|p| p["tensors"].as_i64().unwrap()).collect();
        assert_eq!(found, tensors, "{options:?}");
        for (i, part) in parts.iter().enumerate() {
            let path = format!("{prefix}-{:05}-of-{:05}.gguf", i + 1, parts.len());
            assert_eq!((&part["path"], &part["bytes"]), (&path.as_str().into(), &read(&path).len().into()));
            assert_eq!(json(&["verify", &path, "--json"])["ok"], true);
        }
        let first = parts[0]["path"].as_str().unwrap();
        let report = json(&["merge", first, &merged, "--json"]);
        let bytes = read(&merged).len();
        let expected =
            serde_json::json!({ "out": merged, "bytes": bytes, "keys": 3, "tensors": 3, "parts": parts.len() });
        assert_eq!(report, expected);
        assert!(read(&merged) == read(&file), "{options:?}");
    }
    let text = out(&["split", &file, &prefix, "--max-tensors", "2"]);
    assert!(text.starts_with("part") && text.lines().count() == 3, "{text}");
}

#[test]
fn failed_splits_and_merges_leave_the_targets() {
    let folder = Folder::new();
    let (file, prefix, to) = (folder.sample(), folder.path("p"), folder.path("out.gguf"));
    std::fs::write(&to, b"old").unwrap();
    for options in [
        &[][..],
        &["--max-tensors", "0"],
        &["--max-size", "0"],
        &["--max-size", "5T"],
        &["--max-tensors", "1", "--max-size", "1M"],
    ] {
        let (code, error) = fails(&[&["split", &file, &prefix], options].concat());
        assert!(code == 2 && error.lines().count() == 1, "{options:?}: {error}");
    }
    let (code, error) = fails(&["split", &file, &folder.path("no/such/p"), "--max-tensors", "1"]);
    assert!(code == 1 && error.contains("no/such"), "{error}");
    let (code, error) = fails(&["merge", &file, &to]);
    assert!(code == 1 && error.contains("no part of a split") && error.lines().count() == 1, "{error}");
    out(&["split", &file, &prefix, "--max-tensors", "2"]);
    let (first, second) = (format!("{prefix}-00001-of-00002.gguf"), format!("{prefix}-00002-of-00002.gguf"));
    let (code, error) = fails(&["merge", &second, &to]);
    assert!(code == 1 && error.contains("part 2 of 2 of a model; the first is"), "{error}");
    std::fs::remove_file(&second).unwrap();
    let (code, error) = fails(&["merge", &first, &to]);
    assert!(code == 1 && error.contains("p-00002-of-00002.gguf"), "{error}");
    assert_eq!(read(&to), b"old");
    assert_eq!(folder.names(), ["out.gguf", "p-00001-of-00002.gguf", "sample.gguf"]);
}

/// A disk that fills up, by a limit on the size of a file: the write fails in the middle.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_targets() {
    let folder = Folder::new();
    // 8 MiB of tensors against a limit of 2 MiB: more than any buffer holds back.
    let specs: Vec<TensorSpec> =
        (0..8).map(|i| TensorSpec { name: format!("t{i}"), shape: vec![1 << 18], ty: GgmlType::F32 }).collect();
    let data = vec![0; 1 << 20];
    let plan = WritePlan::new(&Metadata::new(), &specs).unwrap();
    let (file, prefix) = (folder.path("big.gguf"), folder.path("p"));
    std::fs::write(&file, plan.to_bytes(&[&data[..]; 8]).unwrap()).unwrap();
    out(&["split", &file, &prefix, "--max-tensors", "4"]);
    let (first, to) = (format!("{prefix}-00001-of-00002.gguf"), folder.path("out.gguf"));
    std::fs::write(&to, b"old").unwrap();
    let before = (folder.names(), read(&file), read(&first));
    for args in [
        &["edit", &file, &to, "--set", "k=u8:1"][..],
        &["edit", &file, &file, "--set", "k=u8:1"],
        &["split", &file, &prefix, "--max-tensors", "4"],
        &["merge", &first, &to],
    ] {
        let quoted: Vec<String> = args.iter().map(|a| format!("'{a}'")).collect();
        // 512-byte units in sh. The signal that would end the process is ignored, so that the write itself fails.
        let script =
            format!("trap '' XFSZ; ulimit -f 4096; exec '{}' {}", env!("CARGO_BIN_EXE_quant"), quoted.join(" "));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(
            error.starts_with("error: ") && error.lines().count() == 1 && error.contains(".gguf"),
            "{args:?}: {error}"
        );
        assert_eq!(read(&to), b"old", "{args:?}");
        assert!((folder.names(), read(&file), read(&first)) == before, "{args:?}: {:?}", folder.names());
    }
}

#[test]
fn verify_says_what_is_wrong_and_who_minds() {
    let folder = Folder::new();
    let file = folder.sample();
    let report = json(&["verify", &file, "--sha256", "--json"]);
    assert_eq!((&report["ok"], &report["version"], &report["byte_order"]), (&true.into(), &3.into(), &"little".into()));
    assert_eq!(report["findings"], serde_json::json!([]));
    let readers: Vec<&String> = report["readers"].as_object().unwrap().keys().collect();
    assert_eq!(readers, ["llama.cpp", "gguf-py", "candle", "gguf-format"]);
    assert!(report["readers"].as_object().unwrap().values().all(|v| v.is_null()));
    // SHA-256 of 32 zero bytes.
    let zeros = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
    assert_eq!(report["tensors"][0]["sha256"], zeros);
    assert!(json(&["verify", &file, "--json"])["tensors"][0].get("sha256").is_none());
    let text = out(&["verify", &file, "--sha256"]);
    assert!(text.contains("version 3, little endian, 3 keys, 3 tensors") && text.contains(&format!("{zeros}  a\n")));
    assert!(text.ends_with("no fault\n"), "{text}");

    // An infinite scale in the second block of `b`.
    let bad = folder.path("bad.gguf");
    let gguf = Gguf::open(&file).unwrap();
    let mut data = vec![1; 68];
    data[34..36].copy_from_slice(&[0x00, 0x7c]);
    let mut edit = Edit::of(&gguf);
    edit.replace_tensor("b", GgmlType::Q8_0, &[2, 32], data).unwrap();
    edit.write(&bad).unwrap();
    let output = quant(&["verify", &bad, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("error: {bad}: 1 tensor with numbers that are not finite\n")
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let offset = Gguf::open(&bad).unwrap().tensor("b").unwrap().file_offset() + 34;
    let expected =
        serde_json::json!({ "count": 1, "block": 1, "offset": offset, "field": "scale d", "kind": "infinity" });
    assert_eq!((&report["ok"], &report["tensors"][1]["non_finite"]), (&false.into(), &expected));
    let text = String::from_utf8(quant(&["verify", &bad]).stdout).unwrap();
    let line = format!(
        "fault: tensor `b` (Q8_0): 1 number not finite, the first in block 1 at offset {offset:#x}: scale d is infinity"
    );
    assert!(text.contains(&line), "{text}");
}

#[test]
fn verify_goes_on_where_a_reader_stops() {
    let folder = Folder::new();
    let file = folder.sample();
    let broken = folder.path("broken.gguf");
    let mut bytes = read(&file);
    // The second tensor takes the first one's name.
    let at = bytes.windows(9).position(|w| w == b"\x01\0\0\0\0\0\0\0b").unwrap();
    bytes[at + 8] = b'a';
    bytes.truncate(bytes.len() - 32);
    std::fs::write(&broken, &bytes).unwrap();
    let output = quant(&["verify", &broken, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rules: Vec<&str> = report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["duplicate_tensor", "data_past_end"]);
    assert!(report["readers"]["candle"].as_str().unwrap().contains("tensor `c`"), "{report}");
    assert!(report["readers"]["llama.cpp"].as_str().unwrap().contains("a second time"), "{report}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("error: {broken}: 2 faults in its structure\n"));

    // What only other readers refuse is no fault.
    let unknown_to_candle = folder.path("iq4.gguf");
    let gguf = Gguf::open(&file).unwrap();
    let mut edit = Edit::of(&gguf);
    edit.replace_tensor("b", GgmlType::IQ4_NL, &[32], vec![0; 18]).unwrap();
    edit.write(&unknown_to_candle).unwrap();
    let text = out(&["verify", &unknown_to_candle]);
    assert!(text.contains("candle       refuses it: tensor `b`") && text.contains("note: tensor `b`"), "{text}");

    let text_file = folder.path("text");
    std::fs::write(&text_file, "Once upon a time").unwrap();
    assert_eq!(quant(&["verify", &text_file]).status.code(), Some(1));
    let (code, error) = fails(&["verify", &folder.path("missing")]);
    assert!(code == 1 && error.contains("missing") && error.lines().count() == 1, "{error}");
}

#[test]
fn diff_exits_1_where_content_differs() {
    let folder = Folder::new();
    let (file, other) = (folder.sample(), folder.path("other.gguf"));
    assert_eq!(out(&["diff", &file, &file]), "identical\n");
    out(&["edit", &file, &other, "--alignment", "64"]);
    out(&["edit", &other, &other, "--remove", "general.alignment"]);
    out(&["edit", &other, &other, "--byte-order", "big"]);
    let report = json(&["diff", &file, &other, "--json"]);
    assert_eq!((&report["equal"], &report["identical"]), (&true.into(), &false.into()));
    assert_eq!(report["layout"], serde_json::json!(["byte order: little, big"]));

    out(&[
        "edit",
        &file,
        &other,
        "--set",
        "llama.block_count=u32:3",
        "--remove",
        "general.name",
        "--set",
        "x=array[u8]:1",
        "--rename-tensor",
        "c=d",
    ]);
    let output = quant(&["diff", &file, &other]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "- key `general.name`: string \"sample\"\n",
        "~ key `llama.block_count`: u32 2 -> u32 3\n",
        "+ key `x`: array[u8] [1]\n",
        "- tensor `c`: F16 [3]\n",
        "+ tensor `d`: F16 [3]\n",
        "different: 3 keys and 2 tensors\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let output = quant(&["diff", &file, &other, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["equal"], false);
    assert_eq!(
        report["keys"][1],
        serde_json::json!({ "key": "llama.block_count", "first": { "type": "u32", "value": 2 }, "second": { "type": "u32", "value": 3 } })
    );
    assert_eq!(report["tensors"][0]["second"], serde_json::Value::Null);
    let (code, error) = fails(&["diff", &file, &folder.path("missing")]);
    assert!(code == 1 && error.contains("missing") && error.lines().count() == 1, "{error}");
}
