//! What must hold for any bytes. The fuzz targets call these, and so does a plain test with the committed corpus.

use super::counting::measure;
use gguf_format::diff::diff;
use gguf_format::imatrix::Imatrix;
use gguf_format::verify::{Reader, verify};
use gguf_format::{
    ByteOrder, Edit, GgmlType, Gguf, GgufReader, Header, Limits, Metadata, SizedTensor, WritePlan, blocks,
    swap_tensor_bytes,
};

/// Parsing `len` bytes makes no request of more than twice their number, and holds no more than eight times as much; what comes on top is
/// room for messages and first pieces of growing lists.
fn bounded<T>(len: usize, work: impl FnOnce() -> T) -> T {
    let (result, usage) = measure(work);
    assert!(usage.largest <= 2 * len + 2048, "{usage:?} for {len} bytes");
    assert!(usage.peak <= 8 * len + 16384, "{usage:?} for {len} bytes");
    result
}

/// Parses; whatever was parsed can be used in every way; all ways of reading agree.
#[allow(dead_code)]
pub(crate) fn parse(data: &[u8]) {
    let result = bounded(data.len(), || Gguf::parse(data, &Limits::default()));
    // From the first bytes alone: never an error or a success that the whole file does not give.
    let half = Header::parse_prefix(&data[..data.len() / 2], data.len() as u64, &Limits::default());
    match (&half, &result) {
        (Ok(None), _) => {}
        (Ok(Some(header)), Ok(gguf)) => assert_eq!(header.tensors(), gguf.tensors()),
        (Err(of_half), Err(of_whole)) => assert_eq!(of_half.to_string(), of_whole.to_string()),
        _ => panic!("{half:?} of a half, {result:?} of the whole"),
    }
    let read = GgufReader::new(std::io::Cursor::new(data));
    assert_eq!(read.is_ok(), result.is_ok());
    // The walk that goes on behind errors comes to the same verdict.
    let refused = verify(data).refusal(Reader::GgufFormat).map(ToString::to_string);
    assert_eq!(refused.is_some(), result.is_err(), "{refused:?} {:?}", result.as_ref().err());
    let Ok(gguf) = result else { return };
    use_all(&gguf);
    let mut read = read.unwrap();
    assert_eq!(read.metadata(), gguf.metadata());
    let mut buffer = Vec::new();
    for tensor in gguf.tensors() {
        buffer.resize(tensor.byte_len() as usize, 0);
        read.read(tensor, &mut buffer).unwrap();
        assert!(buffer == gguf.data(tensor));
    }
}

/// What was parsed and the strict rules allow is written in both byte orders, read again equal, and the same to the byte the second time.
/// Then keys are set and removed.
#[allow(dead_code)]
pub(crate) fn edit(data: &[u8]) {
    let Ok(gguf) = Gguf::parse(data, &Limits::default()) else { return };
    let sized: Vec<SizedTensor> = gguf.tensors().iter().map(SizedTensor::from).collect();
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let turned: Result<Vec<_>, _> = gguf.tensors().iter().map(|t| gguf.data_in(order, t)).collect();
        let (Ok(turned), Ok(plan)) = (turned, WritePlan::in_order(order, gguf.metadata(), &sized)) else { continue };
        // An alignment may be 2^31, and the file full of zeros.
        if plan.file_len() > 4 * data.len() as u64 + 4096 {
            continue;
        }
        let slices: Vec<&[u8]> = turned.iter().map(|d| &**d).collect();
        let bytes = plan.to_bytes(&slices).unwrap();
        assert_eq!(bytes.len() as u64, plan.file_len());
        let again = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
        assert_eq!(again.byte_order(), order);
        assert_eq!(again.metadata(), gguf.metadata());
        for (tensor, before) in again.tensors().iter().zip(gguf.tensors()) {
            assert_eq!(
                (tensor.name(), tensor.shape(), tensor.ggml_type()),
                (before.name(), before.shape(), before.ggml_type())
            );
        }
        if gguf.strict_check().is_ok() {
            again.strict_check().unwrap();
            assert!(again.tensors().iter().zip(&slices).all(|(t, before)| again.data(t) == *before));
        }
        let sized: Vec<SizedTensor> = again.tensors().iter().map(SizedTensor::from).collect();
        let slices: Vec<&[u8]> = again.tensors().iter().map(|t| again.data(t)).collect();
        if let Ok(plan) = WritePlan::in_order(order, again.metadata(), &sized) {
            let twice = plan.to_bytes(&slices).unwrap();
            assert!(again.strict_check().is_err() || twice == bytes);
        }
    }
    keys(gguf.metadata());
    // An edit without a change makes what the plan of its content makes; a change and its opposite change nothing.
    let mut edit = Edit::of(&gguf);
    let Ok(plan) = edit.plan() else { return };
    if plan.file_len() > 4 * data.len() as u64 + 4096 {
        return;
    }
    let before = edit.to_bytes().unwrap();
    assert_eq!(before.len() as u64, plan.file_len());
    edit.set("an.unused key", 1u8);
    edit.remove("an.unused key").unwrap();
    let again = Gguf::parse(&before[..], &Limits::default()).unwrap();
    assert!(edit.to_bytes().unwrap() == before);
    assert!(diff(&again, &again).unwrap().is_same_content());
    assert!(again.strict_check().is_err() || Edit::of(&again).to_bytes().unwrap() == before);
}

fn keys(before: &Metadata) {
    let mut metadata = before.clone();
    let names: Vec<String> = before.iter().map(|(key, _)| key.to_owned()).collect();
    for name in &names {
        metadata.set(&format!("{name}.copy"), before.get(name).unwrap().clone());
    }
    for name in names.iter().step_by(2) {
        assert!(metadata.remove(name).is_some() && metadata.get(name).is_none());
    }
    for name in names.iter().skip(1).step_by(2) {
        assert_eq!(metadata.get(name), before.get(name));
    }
}

/// Everything a caller can do with a file that was read.
fn use_all(gguf: &Gguf<&[u8]>) {
    let m = gguf.metadata();
    for (key, value) in m.iter() {
        assert!(m.get(key) == Some(value));
        let _ = format!("{value:.3}");
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
    let _ = gguf.departures();
}

/// Either form of an importance matrix; what was read is written in both forms and read again.
#[allow(dead_code)]
pub(crate) fn imatrix(data: &[u8]) {
    let Ok(imatrix) = bounded(data.len(), || Imatrix::parse(data)) else { return };
    imatrix.entries.keys().for_each(|name| assert!(imatrix.importance(name).is_some()));
    if let Ok(bytes) = imatrix.to_bytes() {
        let again = Imatrix::parse(&bytes).unwrap();
        assert_eq!(again.entries.len(), imatrix.entries.len());
        assert!(again.entries.iter().zip(&imatrix.entries).all(|(a, b)| a.0 == b.0 && a.1.in_sum2 == b.1.in_sum2));
    }
    if let Ok(bytes) = imatrix.to_legacy_bytes() {
        // The mean times the chunks may be too large for f32.
        let _ = Imatrix::parse(&bytes);
    }
}

/// The first byte is a type, the others are blocks of it.
#[allow(dead_code)]
pub(crate) fn dequantize(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let ty = GgmlType::from_id(first.into());
    let Some(layout) = ty.layout() else { return };
    let whole = data.len() - data.len() % layout.block_bytes as usize;
    let mut turned = data[..whole].to_vec();
    let mut values = vec![0f32; whole / layout.block_bytes as usize * layout.block_len as usize];
    assert_eq!(blocks::dequantize(ty, &turned, &mut values).is_ok(), blocks::can_dequantize(ty));
    swap_tensor_bytes(ty, &mut turned).unwrap();
    let _ = blocks::dequantize(ty, &turned, &mut values);
    swap_tensor_bytes(ty, &mut turned).unwrap();
    assert!(turned == data[..whole]);
}

/// The first byte is a type, the second says whether there are importance weights; the others are values of a row.
#[allow(dead_code)]
pub(crate) fn quantize(data: &[u8]) {
    let [first, weighted, data @ ..] = data else { return };
    let ty = GgmlType::from_id((*first).into());
    let Some(layout) = ty.layout() else { return };
    let floats: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    if floats.is_empty() {
        return;
    }
    // One block, from as many values as there are.
    let row: Vec<f32> = floats.iter().copied().cycle().take(layout.block_len as usize).collect();
    let importance: Vec<f32> = row.iter().map(|v| v.abs()).collect();
    let importance = (weighted & 1 == 1).then_some(&importance[..]);
    let mut out = vec![0; layout.block_bytes as usize];
    if blocks::quantize(ty, &row, row.len(), importance, &mut out).is_ok() {
        let mut back = vec![0f32; row.len()];
        blocks::dequantize(ty, &out, &mut back).unwrap();
    }
}
