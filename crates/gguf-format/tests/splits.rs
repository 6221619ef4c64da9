//! A model in several files.

use gguf_format::{Error, GgmlType, Gguf, GgufSplits, Limits, Metadata, TensorSpec, WritePlan, split_paths};
use std::path::{Path, PathBuf};

/// One part: `split.*` keys as gguf-split writes them, and a tensor of two values for each name.
fn part(no: u16, count: u16, tensors: i32, names: &[&str]) -> Vec<u8> {
    let mut metadata = Metadata::new();
    if no == 0 {
        metadata.set("general.name", "whole");
    }
    metadata.set("split.no", no);
    metadata.set("split.count", count);
    metadata.set("split.tensors.count", tensors);
    file(&metadata, names, no as u8)
}

fn file(metadata: &Metadata, names: &[&str], fill: u8) -> Vec<u8> {
    let specs: Vec<_> =
        names.iter().map(|n| TensorSpec { name: (*n).into(), shape: vec![2], ty: GgmlType::F32 }).collect();
    let data = [fill; 8];
    WritePlan::new(metadata, &specs).unwrap().to_bytes(&vec![&data[..]; names.len()]).unwrap()
}

fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

const FIRST: &str = "m-00001-of-00003.gguf";

fn three() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (FIRST, part(0, 3, 4, &["a", "b"])),
        ("m-00002-of-00003.gguf", part(1, 3, 4, &[])),
        ("m-00003-of-00003.gguf", part(2, 3, 4, &["c", "d"])),
    ]
}

#[test]
fn parts_are_one_model() {
    let dir = folder(&three());
    let model = GgufSplits::open(dir.path().join(FIRST)).unwrap();
    assert_eq!(model.parts().len(), 3);
    assert_eq!(model.metadata().need_str("general.name").unwrap(), "whole");
    let places: Vec<_> = model.tensors().iter().map(|t| (t.name(), t.part(), model.data(t)[0])).collect();
    assert_eq!(places, [("a", 0, 0), ("b", 0, 0), ("c", 2, 2), ("d", 2, 2)]);
    assert_eq!(model.need_tensor("d").unwrap().name(), "d");
    assert!(model.tensor("e").is_none() && model.departures().is_empty());

    // A file of its own is a model of one part, whatever its name.
    let alone = folder(&[("x", file(&Metadata::new(), &["w"], 7))]);
    let model = GgufSplits::open(alone.path().join("x")).unwrap();
    assert_eq!((model.parts().len(), model.data(&model.tensors()[0])), (1, &[7; 8][..]));
}

#[test]
fn each_defect_is_named() {
    type Change = fn(&mut Vec<(&'static str, Vec<u8>)>);
    let cases: &[(&str, Change, &[&str])] = &[
        ("part missing", |f| drop(f.remove(1)), &["m-00002-of-00003.gguf"]),
        ("part of another model", |f| f[1].1 = part(1, 2, 4, &[]), &["part 2 of 3", "1 and 2"]),
        ("parts exchanged", |f| f[1].1 = part(2, 3, 4, &[]), &["part 2 of 3", "`split.no` 1", "found 2 and 3"]),
        ("name twice", |f| f[2].1 = part(2, 3, 4, &["c", "a"]), &["part 3 of 3", "tensor `a` once", "part 1, too"]),
        (
            "too few tensors",
            |f| f[2].1 = part(2, 3, 4, &["c"]),
            &["4 tensors, as `split.tensors.count` says", "found 3"],
        ),
        ("no split.no", |f| f[1].1 = file(&Metadata::new(), &[], 0), &["part 2 of 3", "found 0 and 1"]),
        ("number past the count", |f| f[0].1 = part(3, 3, 4, &["a"]), &["split.no", "3 of 3"]),
        ("damaged part", |f| f[2].1.truncate(30), &["m-00003-of-00003.gguf", "offset"]),
        ("a name that does not tell", |f| f[0].0 = "m.gguf", &["does not end in `-00001-of-00003.gguf`"]),
    ];
    for (name, change, wanted) in cases {
        let mut files = three();
        change(&mut files);
        let dir = folder(&files);
        let error = GgufSplits::open(dir.path().join(files[0].0)).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(wanted.iter().all(|w| text.contains(w)) && !text.contains('\n'), "{name}: {text}");
    }
}

#[test]
fn another_part_than_the_first() {
    let dir = folder(&three());
    let e = GgufSplits::open(dir.path().join("m-00003-of-00003.gguf")).map(drop).unwrap_err().to_string();
    assert!(e.contains("part 3 of 3") && e.contains(FIRST), "{e}");
}

#[test]
fn parts_from_memory() {
    let parts: Vec<_> = three().into_iter().map(|(_, b)| Gguf::parse(b, &Limits::default()).unwrap()).collect();
    assert_eq!(GgufSplits::from_parts(parts).unwrap().tensors().len(), 4);
    assert!(matches!(GgufSplits::<Vec<u8>>::from_parts(Vec::new()), Err(Error::Refused { .. })));
}

#[test]
fn paths_of_parts() {
    let paths = split_paths(Path::new("d/m-00002-of-00003.gguf"), 1, 3).unwrap();
    assert_eq!(paths[2], PathBuf::from("d/m-00003-of-00003.gguf"));
    assert_eq!(paths.len(), 3);
    assert_eq!(split_paths(Path::new("d/m-00002-of-00003.gguf"), 0, 3), None);
    assert_eq!(split_paths(Path::new("any"), 0, 1).unwrap(), [PathBuf::from("any")]);
}
