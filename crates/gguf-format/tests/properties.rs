//! No bytes make the parser panic, and what is written comes back to the byte.

#[path = "common/raw.rs"]
mod raw;

use gguf_format::{GgmlType, Gguf, Limits, Metadata, SizedTensor, TensorSpec, Value, ValueView, WritePlan};
use proptest::collection::vec;
use proptest::prelude::*;

/// Everything a caller can do with a file that was read.
fn use_all(gguf: &Gguf<&[u8]>) {
    for (key, value) in gguf.metadata().iter() {
        let _ = value.to_string();
        let _ = format!("{value:.3}");
        let m = gguf.metadata();
        let _ = (m.get_u64(key), m.get_i64(key), m.get_f32(key), m.get_bool(key), m.get_str(key));
        if let Ok(Some(array)) = m.get_array(key) {
            assert_eq!(array.values().count(), array.len());
            let _ = array.strs().map(|s| assert_eq!(s.count(), array.len()));
            let _ = array.ints().map(|s| assert_eq!(s.count(), array.len()));
            let _ = array.floats().map(|s| assert_eq!(s.count(), array.len()));
            let _ = array.bools().map(|s| assert_eq!(s.count(), array.len()));
        }
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.data(tensor).len() as u64, tensor.byte_len());
        assert_eq!(gguf.tensor(tensor.name()), Some(tensor));
    }
    // What ggml takes can be written again and is the same then, but for bytes behind the end and the version.
    if gguf.strict_check().is_ok() {
        let bytes = rewrite(gguf);
        let again = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
        assert_eq!(again.metadata(), gguf.metadata());
        assert_eq!(again.tensors(), gguf.tensors());
        assert_eq!(bytes.len() as u64, WritePlan::sized(gguf.metadata(), &sized(gguf)).unwrap().file_len());
        assert!(gguf.tensors().iter().all(|t| again.data(t) == gguf.data(t)));
    }
}

fn sized(gguf: &Gguf<&[u8]>) -> Vec<SizedTensor> {
    gguf.tensors().iter().map(SizedTensor::from).collect()
}

fn rewrite(gguf: &Gguf<&[u8]>) -> Vec<u8> {
    let data: Vec<&[u8]> = gguf.tensors().iter().map(|t| gguf.data(t)).collect();
    WritePlan::sized(gguf.metadata(), &sized(gguf)).unwrap().to_bytes(&data).unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u32>().prop_map(|bits| Value::from(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::from(f64::from_bits(bits))),
        any::<bool>().prop_map(Value::from),
        vec(any::<u8>(), 0..20).prop_map(Value::string),
        vec(any::<u16>(), 0..20).prop_map(Value::from),
        vec(any::<bool>(), 0..20).prop_map(Value::from),
        vec(any::<f64>(), 0..20).prop_map(Value::from),
        vec(vec(any::<u8>(), 0..9), 0..20).prop_map(Value::strings),
    ]
}

/// Known types, and one without a size.
fn spec() -> impl Strategy<Value = (GgmlType, Vec<u64>)> {
    let ty = prop_oneof![prop::sample::select(GgmlType::KNOWN), Just(GgmlType::from_id(77))];
    (ty, vec(0u64..4, 0..4)).prop_map(|(ty, mut shape)| {
        let block = ty.layout().map_or(1, |l| u64::from(l.block_len));
        match shape.last_mut() {
            Some(row) => *row *= block,
            None if block > 1 => shape.push(block),
            None => {}
        }
        (ty, shape)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..400), keys in 0u64..4, tensors in 0u64..4) {
        let _ = Gguf::parse(&bytes[..], &Limits::default()).map(|g| use_all(&g));
        // Behind a header that gets the parser further.
        let mut deep = b"GGUF\x03\0\0\0".to_vec();
        deep.extend(tensors.to_le_bytes());
        deep.extend(keys.to_le_bytes());
        deep.extend(&bytes);
        let _ = Gguf::parse(&deep[..], &Limits::default()).map(|g| use_all(&g));
    }

    #[test]
    fn changed_bytes_do_not_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        extra in vec(any::<u8>(), 0..3),
    ) {
        let mut bytes = raw::Raw::valid().bytes();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        bytes.extend(extra);
        let _ = Gguf::parse(&bytes[..], &Limits::default()).map(|g| use_all(&g));
        bytes.truncate(cut.index(bytes.len()));
        let _ = Gguf::parse(&bytes[..], &Limits::default()).map(|g| use_all(&g));
    }

    #[test]
    fn files_come_back_to_the_byte(
        values in vec((".{0,12}", value()), 0..12),
        specs in vec(spec(), 0..6),
        alignment in 0u32..9,
        seed in any::<u8>(),
    ) {
        let mut metadata = Metadata::new();
        metadata.set("general.alignment", 1u32 << alignment);
        for (key, value) in values {
            metadata.set(&format!("k{key}"), value);
        }
        // Bytes of an unknown type fill whole units of alignment: where it ends, the reader cannot know.
        let sized: Vec<SizedTensor> = specs
            .into_iter()
            .enumerate()
            .map(|(i, (ty, shape))| {
                let count: u64 = shape.iter().product();
                let byte_len = ty.bytes_for(count).unwrap_or(if count == 0 { 0 } else { 512 });
                SizedTensor { spec: TensorSpec { name: format!("t{i}"), shape, ty }, byte_len }
            })
            .collect();
        let data: Vec<Vec<u8>> = sized.iter().map(|t| vec![seed; t.byte_len as usize]).collect();
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let plan = WritePlan::sized(&metadata, &sized).unwrap();
        let bytes = plan.to_bytes(&slices).unwrap();
        prop_assert_eq!(bytes.len() as u64, plan.file_len());

        let gguf = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
        prop_assert_eq!(gguf.metadata(), &metadata);
        prop_assert_eq!(gguf.data_start(), plan.header_len());
        for (tensor, (written, data)) in gguf.tensors().iter().zip(sized.iter().zip(&data)) {
            prop_assert_eq!(&SizedTensor::from(tensor), written);
            prop_assert_eq!(gguf.data(tensor), &data[..]);
        }
        prop_assert!(rewrite(&gguf) == bytes);
        if sized.iter().all(|t| t.spec.ty.layout().is_some()) {
            gguf.strict_check().unwrap();
        }
    }

    #[test]
    fn values_are_checked_and_come_back(value in value(), ty in 0u32..14, bytes in vec(any::<u8>(), 0..40)) {
        let again = Value::from_le_bytes(value.value_type(), value.as_le_bytes()).unwrap();
        prop_assert_eq!(&again, &value);
        if let ValueView::Array(array) = value.view() {
            prop_assert_eq!(array.values().count(), array.len());
        }
        if let Ok(value) = Value::from_le_bytes(gguf_format::ValueType(ty), &bytes) {
            let _ = value.to_string();
        }
    }
}
