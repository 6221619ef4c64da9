//! Comparing two files.

use gguf_format::diff::{BytesDiff, diff};
use gguf_format::{ByteOrder, Edit, GgmlType, Gguf, Limits, Metadata, TensorSpec, WritePlan, blocks};

fn parse(bytes: Vec<u8>) -> Gguf<Vec<u8>> {
    Gguf::parse(bytes, &Limits::default()).unwrap()
}

fn sample() -> Gguf<Vec<u8>> {
    let mut metadata = Metadata::new();
    metadata.set("name", "x");
    metadata.set("n", 2u32);
    let spec = |name: &str, shape: &[u64]| TensorSpec { name: name.into(), shape: shape.into(), ty: GgmlType::F32 };
    let data: Vec<Vec<u8>> =
        [64usize, 4].iter().map(|&n| (0..n).flat_map(|i| (i as f32 * 0.5 + 1.0).to_le_bytes()).collect()).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    parse(WritePlan::new(&metadata, &[spec("a", &[2, 32]), spec("b", &[4])]).unwrap().to_bytes(&data).unwrap())
}

#[test]
fn what_differs_is_named() {
    let file = sample();
    assert_eq!(diff(&file, &file).unwrap(), Default::default());
    let mut edit = Edit::of(&file);
    edit.set("n", 2u64).rename("name", "title").unwrap();
    let other = parse(edit.to_bytes().unwrap());
    let found = diff(&file, &other).unwrap();
    let keys: Vec<_> = found.keys.iter().map(|k| (k.key, k.first.is_some(), k.second.is_some())).collect();
    assert_eq!(keys, [("name", true, false), ("n", true, true), ("title", false, true)]);
    assert!(found.tensors.is_empty() && !found.is_same_content());

    let mut edit = Edit::of(&file);
    let mut data = file.data(&file.tensors()[0]).to_vec();
    data[9] ^= 1;
    data[200] ^= 1;
    edit.replace_tensor("a", GgmlType::F32, &[2, 32], data).unwrap();
    edit.rename_tensor("b", "c").unwrap();
    let other = parse(edit.to_bytes().unwrap());
    let found = diff(&file, &other).unwrap();
    let tensors: Vec<_> = found.tensors.iter().map(|t| (t.name, t.first.is_some(), t.second.is_some())).collect();
    assert_eq!(tensors, [("a", true, true), ("b", true, false), ("c", false, true)]);
    assert_eq!(found.tensors[0].bytes, Some(BytesDiff { count: 2, first: 9 }));
    assert!(found.tensors[0].values.unwrap().nmse > 0.0);
    assert!(found.keys.is_empty() && found.layout.is_empty());
}

#[test]
fn another_type_is_compared_by_value() {
    let file = sample();
    let values: Vec<f32> = (0..64).map(|i| i as f32 * 0.5 + 1.0).collect();
    let mut q8 = vec![0; 68];
    blocks::quantize(GgmlType::Q8_0, &values, 32, None, &mut q8).unwrap();
    let mut edit = Edit::of(&file);
    edit.replace_tensor("a", GgmlType::Q8_0, &[2, 32], q8).unwrap();
    edit.replace_tensor("b", GgmlType::F32, &[2, 2], vec![0; 16]).unwrap();
    let other = parse(edit.to_bytes().unwrap());
    let found = diff(&file, &other).unwrap();
    let values = found.tensors[0].values.unwrap();
    assert!(found.tensors[0].bytes.is_none() && values.nmse < 1e-4 && values.max_abs < 0.14, "{values:?}");
    assert_eq!((found.tensors[1].bytes, found.tensors[1].values), (None, None), "another shape");
    assert!(found.layout[0].starts_with("bytes: "), "{:?}", found.layout);
}

#[test]
fn layout_is_no_content() {
    let file = sample();
    let mut edit = Edit::of(&file);
    edit.set_byte_order(ByteOrder::Big).unwrap();
    let name = edit.remove("name").unwrap();
    edit.set("name", name);
    let tensor = edit.remove_tensor("a").unwrap();
    edit.add_tensor(tensor.spec, tensor.data.into_owned()).unwrap();
    let other = parse(edit.to_bytes().unwrap());
    let found = diff(&file, &other).unwrap();
    assert!(found.is_same_content(), "{found:?}");
    assert_eq!(found.layout, ["byte order: little, big", "the order of the keys", "the order of the tensors"]);
}

#[test]
fn not_a_number_and_infinities() {
    let file = sample();
    let with = |value: f32| {
        let mut edit = Edit::of(&file);
        let data: Vec<u8> = [value, 1.0, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        edit.replace_tensor("b", GgmlType::F32, &[4], data).unwrap();
        parse(edit.to_bytes().unwrap())
    };
    let (nan, infinite) = (with(f32::NAN), with(f32::INFINITY));
    assert!(diff(&nan, &nan).unwrap().is_same_content());
    let max_abs = |a, b| diff(a, b).unwrap().tensors[0].values.unwrap().max_abs;
    assert!(max_abs(&nan, &file).is_nan());
    assert_eq!(max_abs(&infinite, &file), f64::INFINITY);
}
