//! Real files read equal to gguf-py, key by key and tensor by tensor (`data/gguf_py.py` made the facts).

mod common;

use gguf_format::{Gguf, GgufReader, ValueView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// The bytes of one element; in front of a string's, its length.
fn hash(view: &ValueView<'_>, out: &mut Sha256) {
    match *view {
        ValueView::U8(v) => out.update(v.to_le_bytes()),
        ValueView::I8(v) => out.update(v.to_le_bytes()),
        ValueView::U16(v) => out.update(v.to_le_bytes()),
        ValueView::I16(v) => out.update(v.to_le_bytes()),
        ValueView::U32(v) => out.update(v.to_le_bytes()),
        ValueView::I32(v) => out.update(v.to_le_bytes()),
        ValueView::U64(v) => out.update(v.to_le_bytes()),
        ValueView::I64(v) => out.update(v.to_le_bytes()),
        ValueView::F32(v) => out.update(v.to_le_bytes()),
        ValueView::F64(v) => out.update(v.to_le_bytes()),
        ValueView::Bool(v) => out.update([u8::from(v)]),
        ValueView::Str(v) => {
            out.update((v.len() as u64).to_le_bytes());
            out.update(v);
        }
        ValueView::Array(array) => array.values().for_each(|v| hash(&v, out)),
        ref other => panic!("{other:?}"),
    }
}

fn facts(gguf: &Gguf<impl AsRef<[u8]>>) -> Value {
    let keys: Vec<Value> = gguf
        .metadata()
        .iter()
        .map(|(key, value)| {
            let mut digest = Sha256::new();
            hash(&value.view(), &mut digest);
            let (element, count) = match value.view() {
                ValueView::Array(a) => (Some(a.element_type().0), a.len()),
                _ => (None, 1),
            };
            json!([key, value.value_type().0, element, count, hex(digest)])
        })
        .collect();
    let tensors: Vec<Value> = gguf
        .tensors()
        .iter()
        .map(|t| {
            let digest = Sha256::new_with_prefix(gguf.data(t));
            json!([t.name(), t.ggml_type().id(), t.shape(), t.file_offset(), t.byte_len(), hex(digest)])
        })
        .collect();
    json!({ "keys": keys, "tensors": tensors })
}

fn check(path: &Path, expected: &Value) {
    let gguf = Gguf::open(path).unwrap();
    let found = facts(&gguf);
    for part in ["keys", "tensors"] {
        let (found, expected) = (found[part].as_array().unwrap(), expected[part].as_array().unwrap());
        for (f, e) in found.iter().zip(expected) {
            assert_eq!(f, e, "{}", path.display());
        }
        assert_eq!(found.len(), expected.len(), "{part} of {}", path.display());
    }
    let reader = GgufReader::open(path).unwrap();
    assert_eq!((reader.metadata(), reader.header().tensors()), (gguf.metadata(), gguf.tensors()));
}

#[test]
fn vocabularies_and_a_model() {
    let facts: Value = serde_json::from_str(include_str!("data/gguf_py.json")).unwrap();
    let files = facts["files"].as_object().unwrap();
    assert_eq!(files.len(), 7);
    for (name, expected) in files {
        let folder = if name.starts_with("ggml-vocab") { "data/gguf" } else { "models" };
        if let Some(path) = common::shared(&format!("{folder}/{name}")) {
            check(&path, expected);
        }
    }
}
