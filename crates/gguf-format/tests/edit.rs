//! Editing, splitting, merging: the file is what the edit says, and nothing else in it has changed.

mod common;

use gguf_format::edit::{SplitLimit, SplitRule};
use gguf_format::{ByteOrder, Edit, GgmlType, Gguf, GgufSplits, Limits, Metadata, TensorSpec, Value, WritePlan};
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn parse(bytes: &[u8]) -> Gguf<&[u8]> {
    Gguf::parse(bytes, &Limits::default()).unwrap()
}

fn spec(name: &str, shape: &[u64], ty: GgmlType) -> TensorSpec {
    TensorSpec { name: name.into(), shape: shape.into(), ty }
}

/// Four keys, four tensors of three types.
fn sample() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("general.name", "sample");
    metadata.set("llama.block_count", 2u32);
    metadata.set("tokenizer.ggml.tokens", ["a", "b"]);
    let specs = [
        spec("a", &[2, 3], GgmlType::F32),
        spec("b", &[5], GgmlType::F16),
        spec("c", &[2, 32], GgmlType::Q8_0),
        spec("d", &[4], GgmlType::F32),
    ];
    let data: Vec<Vec<u8>> = [24usize, 10, 68, 16].iter().map(|&n| (1..=n as u8).collect()).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    WritePlan::new(&metadata, &specs).unwrap().to_bytes(&data).unwrap()
}

fn llama_cpp_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = common::shared("models/stories260K.gguf").into_iter().collect();
    for folder in ["data/gguf", "golden/llama_cpp"] {
        let Some(folder) = common::shared(folder) else { continue };
        let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        files.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "gguf")));
    }
    files
}

#[test]
fn an_edit_without_a_change_changes_nothing() {
    for path in llama_cpp_files() {
        let file = Gguf::open(&path).unwrap();
        let original = std::fs::read(&path).unwrap();
        assert!(Edit::of(&file).to_bytes().unwrap() == original, "{}", path.display());
        // There and back again.
        let mut edit = Edit::of(&file);
        edit.set("some.key", 7u8).rename("some.key", "other.key").unwrap();
        edit.remove("other.key").unwrap();
        edit.set_alignment(32).unwrap();
        if let Some(first) = file.tensors().first() {
            edit.rename_tensor(first.name(), "elsewhere").unwrap();
            edit.rename_tensor("elsewhere", first.name()).unwrap();
        }
        assert!(edit.to_bytes().unwrap() == original, "{}", path.display());
    }
}

#[test]
fn a_file_can_be_edited_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, sample()).unwrap();
    let file = Gguf::open(&path).unwrap();
    let mut edit = Edit::of(&file);
    // A longer header moves all data, which are read from the file while its successor is written.
    edit.set("general.description", "x".repeat(1000));
    edit.write(&path).unwrap();
    let again = Gguf::open(&path).unwrap();
    again.strict_check().unwrap();
    assert_eq!(again.metadata().len(), 5);
    for (old, new) in file.tensors().iter().zip(again.tensors()) {
        assert_eq!(file.data(old), again.data(new));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn refused_edits_leave_the_target() {
    type Change = fn(&mut Edit<'_>) -> gguf_format::Result<()>;
    let cases: &[(Change, &str)] = &[
        (|e| e.remove("no").map(drop), "key `no` is missing"),
        (|e| e.rename("no", "yes"), "key `no` is missing"),
        (|e| e.rename("general.name", "llama.block_count"), "key `llama.block_count`: it is there already"),
        (|e| e.rename_tensor("no", "yes"), "tensor `no` is missing"),
        (|e| e.rename_tensor("a", "b"), "tensor `b`: it is there already"),
        (|e| e.remove_tensor("no").map(drop), "tensor `no` is missing"),
        (|e| e.replace_tensor("no", GgmlType::F32, &[1], vec![0; 4]), "tensor `no` is missing"),
        (|e| e.add_tensor(spec("a", &[1], GgmlType::F32), vec![0; 4]), "tensor `a`: it is there already"),
        (|e| e.set_alignment(48), "48 is not a power of two"),
        (|e| e.rename_tensor("a", &"n".repeat(64)), "a name of 64 bytes"),
        (|e| e.replace_tensor("a", GgmlType::F32, &[2], vec![0; 4]), "[2] of F32 are 8 bytes, 4 given"),
        (|e| e.rename("general.name", ""), "a key must not be empty"),
        (
            |e| {
                e.set("general.alignment", 7u32);
                Ok(())
            },
            "must be u32, a power of two",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    std::fs::write(&path, b"old").unwrap();
    let bytes = sample();
    let file = parse(&bytes);
    for (change, words) in cases {
        let mut edit = Edit::of(&file);
        let error = change(&mut edit).and_then(|()| edit.write(&path).map(drop)).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old", "{words}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{words}");
    }
}

#[test]
fn alignment_moves_the_data_and_nothing_else() {
    let bytes = sample();
    let file = parse(&bytes);
    for alignment in [1u32, 8, 32, 64, 4096] {
        let mut edit = Edit::of(&file);
        edit.set_alignment(alignment).unwrap();
        let moved = edit.to_bytes().unwrap();
        let again = parse(&moved);
        again.strict_check().unwrap();
        assert_eq!(again.alignment(), u64::from(alignment));
        assert_eq!(again.metadata().contains_key("general.alignment"), alignment != 32);
        for (old, new) in file.tensors().iter().zip(again.tensors()) {
            assert_eq!((old.name(), file.data(old)), (new.name(), again.data(new)));
            assert!(new.file_offset().is_multiple_of(u64::from(alignment)));
        }
        // Back: the key stays, now that there is one.
        let mut back = Edit::of(&again);
        back.set_alignment(32).unwrap();
        if alignment != 32 {
            back.remove("general.alignment").unwrap();
        }
        assert_eq!(back.to_bytes().unwrap(), bytes);
    }
}

/// `big.gguf` is what gguf-py's gguf_convert_endian makes of `little.gguf`: tests/data/byte_order.py.
#[test]
fn byte_order_is_turned_as_gguf_py_turns_it() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (from, to, order) in [("little", "big", ByteOrder::Big), ("big", "little", ByteOrder::Little)] {
        let file = Gguf::open(data.join(from).with_extension("gguf")).unwrap();
        let mut edit = Edit::of(&file);
        edit.set_byte_order(order).unwrap();
        let expected = std::fs::read(data.join(to).with_extension("gguf")).unwrap();
        assert!(edit.to_bytes().unwrap() == expected, "{from} to {to}");
    }
    for path in llama_cpp_files() {
        let file = Gguf::open(&path).unwrap();
        let mut edit = Edit::of(&file);
        edit.set_byte_order(ByteOrder::Big).unwrap();
        let big = edit.to_bytes().unwrap();
        let big = parse(&big);
        assert_eq!((big.byte_order(), big.metadata()), (ByteOrder::Big, file.metadata()));
        let mut edit = Edit::of(&big);
        edit.set_byte_order(ByteOrder::Little).unwrap();
        assert!(edit.to_bytes().unwrap() == std::fs::read(&path).unwrap(), "{}", path.display());
    }
}

/// Data from a file of the other byte order, and given ones, come out in the order of the file.
#[test]
fn replaced_tensors_get_the_byte_order_of_the_file() {
    let bytes = sample();
    let little = parse(&bytes);
    let mut edit = Edit::of(&little);
    edit.set_byte_order(ByteOrder::Big).unwrap();
    let big = edit.to_bytes().unwrap();
    let big = parse(&big);
    let mut edit = Edit::of(&big);
    edit.replace_tensor_from("a", &little, "d").unwrap();
    edit.replace_tensor("b", GgmlType::F16, &[1], vec![0x00, 0x3c]).unwrap();
    let mixed = edit.to_bytes().unwrap();
    let mixed = parse(&mixed);
    let data = |name: &str| mixed.data_in(ByteOrder::Little, mixed.need_tensor(name).unwrap()).unwrap().into_owned();
    assert_eq!(data("a"), little.data(little.need_tensor("d").unwrap()));
    assert_eq!(data("b"), [0x00, 0x3c]);
    assert_eq!(mixed.data(mixed.need_tensor("b").unwrap()), [0x3c, 0x00]);
    let unknown = spec("u", &[4], GgmlType::from_id(77));
    let mut edit = Edit::of(&little);
    edit.add_tensor(unknown, vec![0; 32]).unwrap();
    let error = edit.set_byte_order(ByteOrder::Big).unwrap_err().to_string();
    assert_eq!(error, "tensor `u`: the byte order of type-77 is not known");
}

fn rule(limit: SplitLimit) -> SplitRule {
    SplitRule { limit, no_tensors_in_first: false }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of llama.cpp's gguf-split, compiled from llama.cpp 0c1e57098 (in the source package of llama-cpp-python 0.3.36) and run on
/// stories260K.gguf: `gguf-split --split --split-max-tensors 20`, `--split-max-size 1M`, `--no-tensor-first-split --split-max-tensors 20`.
#[test]
fn parts_are_those_of_gguf_split() {
    let Some(path) = common::shared("models/stories260K.gguf") else { return };
    let original = std::fs::read(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    let second_to_last = [
        "8b6d7a36c77a5089c5436ceafa4a5cf86f020a64f7200f6abe56b7af26e737db",
        "1a4a6e8a1bf3dd9ddd3575f3378998382da0d3418ec749c59ec41f73d6ce0f94",
        "2310aa24574043a2a398464c5c245aadfcb39183ff96ba0a9fac2dbd7a73a766",
    ];
    let cases: [(SplitRule, &[&str]); 3] = [
        (
            rule(SplitLimit::Tensors(20)),
            &[
                "a9f20db76f65f360cc945e7d94ef8a98649177000b1596907c5d8746792f4dc4",
                "6fd778b5fd55da76fd09dfd1a4ca1534d5cbc7481109c91ab551b594f12751bf",
                "5347b2ce84e83ce7f5e0a636bac675fae1cc76eeaa109aade687ed516d991584",
            ],
        ),
        (
            rule(SplitLimit::Bytes(1_000_000)),
            &[
                "7b273e1dbfab11dc67dce479deb5923fef27c39cbf56a20b3a928a47b77dab3c",
                "50d019817c2626eb9e8a41f361ff5bfa538757e6f708a3076cd3356354a75694",
            ],
        ),
        // gguf-split pads a file without tensors, too, up to 31 bytes; so its first part is compared without them below.
        (SplitRule { no_tensors_in_first: true, ..rule(SplitLimit::Tensors(20)) }, &second_to_last),
    ];
    for (rule, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("model");
        let edit = Edit::of(&file);
        let parts = edit.split(rule).unwrap().write(&prefix).unwrap();
        let skipped = usize::from(rule.no_tensors_in_first);
        let found: Vec<String> = parts.iter().skip(skipped).map(|p| sha256(&std::fs::read(&p.path).unwrap())).collect();
        assert_eq!(found, expected, "{rule:?}");
        if rule.no_tensors_in_first {
            let mut first = std::fs::read(&parts[0].path).unwrap();
            first.resize(first.len().next_multiple_of(32), 0);
            assert_eq!(sha256(&first), "bca66d2dd075e6186cd4fbbec5536cafc6f7a0d6a50a6c239181a8b1e6511fcb");
        }
        for (i, part) in parts.iter().enumerate() {
            assert_eq!(part.bytes, std::fs::metadata(&part.path).unwrap().len());
            let name = format!("{}-{:05}-of-{:05}.gguf", prefix.display(), i + 1, parts.len());
            assert_eq!(part.path, Path::new(&name));
        }
        // And back, to the byte.
        let opened = GgufSplits::open(&parts[0].path).unwrap();
        assert!(Edit::merge(&opened).unwrap().to_bytes().unwrap() == original, "{rule:?}");
    }
}

#[test]
fn limits_of_parts() {
    let bytes = sample();
    let file = parse(&bytes);
    let edit = Edit::of(&file);
    // Padded, the tensors take 32, 32, 96 and 32 bytes.
    let cases: [(SplitLimit, &[usize]); 7] = [
        (SplitLimit::Tensors(1), &[1, 1, 1, 1]),
        (SplitLimit::Tensors(3), &[3, 1]),
        (SplitLimit::Tensors(4), &[4]),
        (SplitLimit::Bytes(64), &[2, 1, 1]),
        (SplitLimit::Bytes(1), &[1, 1, 1, 1]),
        (SplitLimit::Bytes(128), &[2, 2]),
        (SplitLimit::Bytes(u64::MAX), &[4]),
    ];
    for (limit, expected) in cases {
        let parts = edit.split(rule(limit)).unwrap().parts("p");
        let counts: Vec<usize> = parts.iter().map(|p| p.tensors.len()).collect();
        assert_eq!(counts, expected, "{limit:?}");
    }
    for limit in [SplitLimit::Tensors(0), SplitLimit::Bytes(0)] {
        assert!(edit.split(rule(limit)).is_err());
    }
    let empty = Edit::default();
    assert_eq!(empty.split(rule(SplitLimit::Tensors(1))).unwrap().parts("p").len(), 1);
    // A file that is a part already, or was merged by gguf-split, gets the keys anew, at the end.
    let mut again = Edit::of(&file);
    again.set("split.count", 0u16).set("split.no", 0u16).set("last", 1u8);
    let folder = tempfile::tempdir().unwrap();
    let parts = again.split(rule(SplitLimit::Tensors(2))).unwrap().write(folder.path().join("p")).unwrap();
    let keys: Vec<String> = Gguf::open(&parts[0].path).unwrap().metadata().iter().map(|(k, _)| k.into()).collect();
    assert_eq!(keys[4..], ["last", "split.no", "split.tensors.count", "split.count"]);
}

#[test]
fn a_failed_split_leaves_what_is_there() {
    let bytes = sample();
    let file = parse(&bytes);
    let edit = Edit::of(&file);
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("p");
    let first = folder.path().join("p-00001-of-00002.gguf");
    std::fs::write(&first, b"old").unwrap();
    // A folder stands where the second part should go.
    std::fs::create_dir(folder.path().join("p-00002-of-00002.gguf")).unwrap();
    let error = edit.split(rule(SplitLimit::Tensors(2))).unwrap().write(&prefix).unwrap_err().to_string();
    assert!(error.contains("p-00002-of-00002.gguf") && error.contains("not a regular file"), "{error}");
    assert_eq!(std::fs::read(&first).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

fn set(edit: &mut Edit<'_>, key: &str, value: impl Into<Value>) {
    edit.set(key, value);
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let bytes = sample();
    let file = parse(&bytes);
    let folder = tempfile::tempdir().unwrap();
    let parts = Edit::of(&file).split(rule(SplitLimit::Tensors(2))).unwrap().write(folder.path().join("p")).unwrap();
    let raw: Vec<Vec<u8>> = parts.iter().map(|p| std::fs::read(&p.path).unwrap()).collect();
    type Change = fn(&mut Edit<'_>);
    let cases: &[(Change, &str)] = &[
        (|e| set(e, "split.no", 0u16), "found 0 and 2"),
        (|e| set(e, "split.count", 3u16), "found 1 and 3"),
        (|e| set(e, "split.no", "1"), "key `split.no`: expected an integer"),
        (|e| drop(e.remove("split.no")), "key `split.no` is missing"),
        (|e| e.rename_tensor("c", "a").unwrap(), "tensor `a` once, found it in part 1, too"),
        (|e| drop(e.remove_tensor("c")), "expected 4 tensors"),
        (|e| set(e, "general.name", "other"), "key `general.name`: part 2 has it otherwise than the first"),
        (|e| set(e, "new", 1u8), "key `new`: part 2 has it otherwise than the first"),
    ];
    let merge = |parts: Vec<Gguf<&[u8]>>| Edit::merge(&GgufSplits::from_parts(parts)?)?.to_bytes();
    for (change, words) in cases {
        let second = parse(&raw[1]);
        let mut edit = Edit::of(&second);
        change(&mut edit);
        let second = edit.to_bytes().unwrap();
        let error = merge(vec![parse(&raw[0]), parse(&second)]).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(merge(vec![parse(&raw[0]), parse(&raw[1])]).unwrap(), bytes);

    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("plain.gguf"), &bytes).unwrap();
    std::fs::copy(&parts[0].path, path("renamed.gguf")).unwrap();
    std::fs::copy(&parts[0].path, path("lonely-00001-of-00002.gguf")).unwrap();
    for (name, words) in [
        ("plain.gguf", "no part of a split"),
        ("renamed.gguf", "does not end in `-00001-of-00002.gguf`"),
        ("p-00002-of-00002.gguf", "part 2 of 2 of a model; the first is"),
        ("lonely-00001-of-00002.gguf", "lonely-00002-of-00002.gguf"),
        ("missing.gguf", "missing.gguf"),
    ] {
        let error = GgufSplits::open(path(name)).and_then(|model| Edit::merge(&model)?.to_bytes()).expect_err(name);
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

/// One step of an edit, with numbers that choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, u32),
    Remove(u8),
    Rename(u8, u8),
    RenameTensor(u8, u8),
    RemoveTensor(u8),
    Replace(u8, u8),
    Add(u8, u8),
    Align(u8),
    Turn(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0u8..12;
    prop_oneof![
        (n(), any::<u32>()).prop_map(|(k, v)| Step::Set(k, v)),
        n().prop_map(Step::Remove),
        (n(), n()).prop_map(|(a, b)| Step::Rename(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::RenameTensor(a, b)),
        n().prop_map(Step::RemoveTensor),
        (n(), any::<u8>()).prop_map(|(t, v)| Step::Replace(t, v)),
        (n(), any::<u8>()).prop_map(|(t, v)| Step::Add(t, v)),
        (0u8..9).prop_map(Step::Align),
        any::<bool>().prop_map(Step::Turn),
    ]
}

type Keys = Vec<(String, Value)>;
type Tensors = Vec<(String, GgmlType, Vec<u64>, Vec<u8>)>;

fn key(n: u8) -> String {
    format!("key.{n}")
}

fn name(n: u8) -> String {
    format!("t{n}")
}

/// The step on lists, and whether it can be done.
fn on_model(step: &Step, keys: &mut Keys, tensors: &mut Tensors, order: &mut ByteOrder) -> bool {
    let key_at = |keys: &Keys, k: &str| keys.iter().position(|(key, _)| key == k);
    let tensor_at = |tensors: &Tensors, n: &str| tensors.iter().position(|t| t.0 == n);
    let mut set = |k: String, v: Value| match key_at(keys, &k) {
        Some(at) => keys[at].1 = v,
        None => keys.push((k, v)),
    };
    match *step {
        Step::Set(k, v) => set(key(k), v.into()),
        Step::Align(a) => {
            if a != 5 || key_at(keys, "general.alignment").is_some() {
                match key_at(keys, "general.alignment") {
                    Some(at) => keys[at].1 = (1u32 << a).into(),
                    None => keys.push(("general.alignment".into(), (1u32 << a).into())),
                }
            }
        }
        Step::Remove(k) => match key_at(keys, &key(k)) {
            Some(at) => drop(keys.remove(at)),
            None => return false,
        },
        Step::Rename(a, b) => match (key_at(keys, &key(a)), key_at(keys, &key(b))) {
            (Some(at), other) if other.is_none_or(|o| o == at) => keys[at].0 = key(b),
            _ => return false,
        },
        Step::RenameTensor(a, b) => match (tensor_at(tensors, &name(a)), tensor_at(tensors, &name(b))) {
            (Some(at), other) if other.is_none_or(|o| o == at) => tensors[at].0 = name(b),
            _ => return false,
        },
        Step::RemoveTensor(t) => match tensor_at(tensors, &name(t)) {
            Some(at) => drop(tensors.remove(at)),
            None => return false,
        },
        Step::Replace(t, v) => match tensor_at(tensors, &name(t)) {
            Some(at) => tensors[at] = (name(t), GgmlType::Q4_0, vec![2, 32], vec![v; 36]),
            None => return false,
        },
        Step::Add(t, v) => match tensor_at(tensors, &name(t)) {
            None => tensors.push((name(t), GgmlType::F16, vec![u64::from(v % 5)], vec![v; 2 * usize::from(v % 5)])),
            Some(_) => return false,
        },
        Step::Turn(big) => *order = if big { ByteOrder::Big } else { ByteOrder::Little },
    }
    true
}

fn on_edit(step: &Step, edit: &mut Edit<'_>) -> gguf_format::Result<()> {
    match *step {
        Step::Set(k, v) => {
            edit.set(&key(k), v);
            Ok(())
        }
        Step::Align(a) => edit.set_alignment(1 << a),
        Step::Remove(k) => edit.remove(&key(k)).map(drop),
        Step::Rename(a, b) => edit.rename(&key(a), &key(b)),
        Step::RenameTensor(a, b) => edit.rename_tensor(&name(a), &name(b)),
        Step::RemoveTensor(t) => edit.remove_tensor(&name(t)).map(drop),
        Step::Replace(t, v) => edit.replace_tensor(&name(t), GgmlType::Q4_0, &[2, 32], vec![v; 36]),
        Step::Add(t, v) => {
            let data = vec![v; 2 * usize::from(v % 5)];
            edit.add_tensor(spec(&name(t), &[u64::from(v % 5)], GgmlType::F16), data)
        }
        Step::Turn(big) => edit.set_byte_order(if big { ByteOrder::Big } else { ByteOrder::Little }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Random edits in several rounds, each written and read again: the file is what the lists say.
    #[test]
    fn the_file_is_what_the_edit_says(rounds in vec(vec(step(), 0..12), 1..4), limit in 1u64..5, tensorless in any::<bool>()) {
        let (mut keys, mut tensors, mut order) = (Keys::new(), Tensors::new(), ByteOrder::Little);
        let mut bytes = Edit::default().to_bytes().unwrap();
        for steps in rounds {
            let file = parse(&bytes);
            let mut edit = Edit::of(&file);
            for step in &steps {
                let possible = on_model(step, &mut keys, &mut tensors, &mut order);
                prop_assert_eq!(on_edit(step, &mut edit).is_ok(), possible, "{:?}", step);
            }
            let next = edit.to_bytes().unwrap();
            prop_assert_eq!(next.len() as u64, edit.plan().unwrap().file_len());
            let again = parse(&next);
            again.strict_check().unwrap();
            prop_assert_eq!(again.byte_order(), order);
            let found: Keys = again.metadata().iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
            prop_assert_eq!(&found, &keys);
            let found: Tensors = again.tensors().iter().map(|t| {
                let data = again.data_in(ByteOrder::Little, t).unwrap().into_owned();
                (t.name().to_owned(), t.ggml_type(), t.shape().to_vec(), data)
            }).collect();
            prop_assert_eq!(&found, &tensors);

            // Split and merged it is the same file.
            let folder = tempfile::tempdir().unwrap();
            let rule = SplitRule { limit: SplitLimit::Tensors(limit), no_tensors_in_first: tensorless };
            let parts = edit.split(rule).unwrap().write(folder.path().join("p")).unwrap();
            let opened = GgufSplits::open(&parts[0].path).unwrap();
            for part in opened.parts() {
                part.strict_check().unwrap();
            }
            prop_assert!(Edit::merge(&opened).unwrap().to_bytes().unwrap() == next);
            bytes = next;
        }
    }
}
