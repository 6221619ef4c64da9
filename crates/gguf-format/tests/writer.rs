//! The writer: what it refuses, and that a target is whole or untouched.

use gguf_format::{
    Error, GgmlType, Gguf, GgufWriter, Limits, Metadata, SizedTensor, TensorSpec, Value, ValueType, WritePlan,
};
use std::path::Path;

fn spec(name: &str, shape: &[u64], ty: GgmlType) -> TensorSpec {
    TensorSpec { name: name.into(), shape: shape.into(), ty }
}

fn specs() -> Vec<TensorSpec> {
    vec![spec("a", &[2, 3], GgmlType::F32), spec("empty", &[0, 3], GgmlType::F32), spec("b", &[5], GgmlType::F16)]
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_ggml_would_not_read_is_refused() {
    type Change = fn(&mut Metadata, &mut Vec<TensorSpec>);
    let cases: &[(&str, Change, &str)] = &[
        ("empty key", |m, _| m.set("", 1u8), "key: a key must not be empty"),
        ("long key", |m, _| m.set(&"k".repeat(65_536), 1u8), "key: 65536 bytes long"),
        ("alignment 0", |m, _| m.set("general.alignment", 0u32), "key `general.alignment`: must be u32"),
        ("alignment 48", |m, _| m.set("general.alignment", 48u32), "is u32 48"),
        ("alignment u64", |m, _| m.set("general.alignment", 32u64), "is u64 32"),
        (
            "array of arrays",
            |m, _| {
                let bytes = [&9u32.to_le_bytes()[..], &[0; 8]].concat();
                m.set("nested", Value::from_le_bytes(ValueType::ARRAY, &bytes).unwrap());
            },
            "key `nested`: an array of arrays",
        ),
        ("name of 64 bytes", |_, t| t[0].name = "n".repeat(64), "a name of 64 bytes"),
        ("NUL in a name", |_, t| t[0].name = "a\0b".into(), "a NUL in the name"),
        ("name twice", |_, t| t[2].name = "a".into(), "tensor `a`: the name is used twice"),
        ("5 dimensions", |_, t| t[0].shape = vec![1; 5], "tensor `a`: 5 dimensions"),
        ("product", |_, t| t[0].shape = vec![1 << 62, 4], "tensor `a`: the product"),
        ("huge dimension beside 0", |_, t| t[0].shape = vec![u64::MAX, 0], "tensor `a`: the product"),
        ("bytes", |_, t| t[0].shape = vec![1 << 62], "tensor `a`: [4611686018427387904] of F32 are more than"),
        ("file", |_, t| t[0].shape = vec![1 << 61], "larger than 2^63"),
        ("row not whole blocks", |_, t| t[0].ty = GgmlType::Q4_K, "rows of 3 values are not whole blocks of 256"),
        ("unknown type", |_, t| t[0].ty = GgmlType::from_id(99), "the size of type-99 is not known"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    for (name, change, words) in cases {
        let (mut metadata, mut tensors) = (Metadata::new(), specs());
        change(&mut metadata, &mut tensors);
        let error = GgufWriter::create(&path, &metadata, &tensors).expect_err(name);
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("out.gguf"), "{name}: {text}");
        assert!(names(folder.path()).is_empty(), "{name}");
    }
    GgufWriter::create(&path, &Metadata::new(), &specs()).unwrap();
}

#[test]
fn a_given_length_must_be_that_of_a_known_type() {
    let sized = |byte_len| [SizedTensor { spec: spec("a", &[4], GgmlType::F32), byte_len }];
    assert!(WritePlan::sized(&Metadata::new(), &sized(16)).is_ok());
    let error = WritePlan::sized(&Metadata::new(), &sized(15)).unwrap_err().to_string();
    assert_eq!(error, "tensor `a`: [4] of F32 are 16 bytes, 15 given");
}

#[test]
fn tensors_are_padded_to_the_alignment_of_the_metadata() {
    for alignment in [1u32, 8, 32, 64, 4096] {
        let mut metadata = Metadata::new();
        metadata.set("general.alignment", alignment);
        let plan = WritePlan::new(&metadata, &specs()).unwrap();
        let bytes = plan.to_bytes(&[&[1; 24], &[], &[2; 10]]).unwrap();
        assert_eq!(bytes.len() as u64, plan.file_len(), "{alignment}");
        assert_eq!(bytes.len() % alignment as usize, 0, "{alignment}");
        let gguf = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
        gguf.strict_check().unwrap();
        assert_eq!(gguf.alignment(), u64::from(alignment));
        assert_eq!(gguf.data(gguf.tensor("b").unwrap()), [2; 10]);
    }
}

#[test]
fn target_is_untouched_until_the_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.gguf");
    std::fs::write(&path, b"old").unwrap();
    let old = |what| {
        assert_eq!(std::fs::read(&path).unwrap(), b"old", "{what}");
        assert_eq!(names(folder.path()), ["out.gguf"], "{what}");
    };
    let create = || GgufWriter::create(&path, &Metadata::new(), &specs()).unwrap();

    let mut writer = create();
    writer.write(&[0; 24]).unwrap();
    assert_eq!(names(folder.path()).len(), 2, "the temporary file is beside the target");
    drop(writer);
    old("dropped");

    let mut writer = create();
    writer.write(&[0; 20]).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.ends_with("out.gguf: tensor `a`: 24 bytes declared, only 20 given"), "{error}");
    old("too little");

    let mut writer = create();
    writer.write(&[0; 20]).unwrap();
    let error = writer.write(&[0; 5]).unwrap_err().to_string();
    assert!(error.ends_with("tensor `a`: 24 bytes declared, 1 more given than that"), "{error}");
    assert!(writer.write(&[0; 4]).unwrap_err().to_string().contains("an earlier write failed"));
    assert!(writer.finish().is_err());
    old("too much");

    let mut writer = create();
    writer.write(&[1; 24]).unwrap();
    writer.write(&[2; 10]).unwrap();
    assert!(writer.write(&[]).is_ok());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let size = writer.finish().unwrap();
    assert_eq!(names(folder.path()), ["out.gguf"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    let gguf = Gguf::open(&path).unwrap();
    gguf.strict_check().unwrap();
    assert_eq!(gguf.data(gguf.tensor("b").unwrap()), [2; 10]);

    let mut writer = create();
    writer.write(&[1; 24]).unwrap();
    writer.write(&[2; 10]).unwrap();
    assert!(writer.write(&[0]).unwrap_err().to_string().contains("more data than tensors"));
}

#[test]
fn targets_that_cannot_be_are_errors_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let create = |path: &Path| GgufWriter::create(path, &Metadata::new(), &[]).map(drop).unwrap_err();
    let missing = folder.path().join("no").join("out.gguf");
    let error = create(&missing);
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("out.gguf"), "{error}");
    let error = create(folder.path());
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(Gguf::open(folder.path()).unwrap_err().to_string().contains("directory"));
    let error = Gguf::open(&missing).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("out.gguf"), "{error}");
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    let error = Gguf::open(&empty).unwrap_err().to_string();
    assert!(error.ends_with("empty.gguf: header at offset 0x0: expected 4 bytes, found 0 left"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_stay_devices_are_refused_and_the_mode_is_the_ordinary_one() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (link, file) = (folder.path().join("link.gguf"), folder.path().join("file.gguf"));
    let ordinary = folder.path().join("ordinary");
    std::fs::write(&ordinary, b"").unwrap();
    std::fs::write(&file, b"old").unwrap();
    std::os::unix::fs::symlink("file.gguf", &link).unwrap();
    GgufWriter::create(&link, &Metadata::new(), &[]).unwrap().finish().unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Gguf::open(&file).is_ok());
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), mode(&ordinary));
    let error = GgufWriter::create("/dev/null", &Metadata::new(), &[]).unwrap_err().to_string();
    assert_eq!(error, "/dev/null: file: the target is there and is not a regular file");
}
