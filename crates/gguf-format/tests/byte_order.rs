//! Every version in both byte orders; and a file that gguf-py's converter turned (`data/byte_order.py`, gguf-py 0.19.0).

use gguf_format::{ByteOrder, Error, GgmlType, Gguf, Limits, SizedTensor, WritePlan};
use std::borrow::Cow;

/// Writes the numbers of one version and byte order, by hand.
struct Pen {
    out: Vec<u8>,
    big: bool,
    version: u32,
}

impl Pen {
    fn bytes<const N: usize>(&mut self, little: [u8; N]) {
        let mut bytes = little;
        if self.big {
            bytes.reverse();
        }
        self.out.extend(bytes);
    }

    fn u32(&mut self, v: u32) {
        self.bytes(v.to_le_bytes());
    }

    fn u64(&mut self, v: u64) {
        self.bytes(v.to_le_bytes());
    }

    /// u32 in version 1, then u64.
    fn len(&mut self, v: u64) {
        if self.version == 1 { self.u32(v as u32) } else { self.u64(v) }
    }

    fn str(&mut self, s: &str) {
        self.len(s.len() as u64);
        self.out.extend(s.as_bytes());
    }
}

fn file(version: u32, big: bool) -> Vec<u8> {
    let mut p = Pen { out: b"GGUF".to_vec(), big, version };
    p.u32(version);
    p.len(2); // tensors
    p.len(7); // keys
    p.str("name");
    p.u32(8);
    p.str("x");
    p.str("f64");
    p.u32(12);
    p.u64(0.1f64.to_bits());
    p.str("bool");
    p.u32(7);
    p.out.push(1);
    p.str("tokens");
    p.u32(9);
    p.u32(8);
    p.len(3);
    ["a", "", "cd"].iter().for_each(|s| p.str(s));
    p.str("ids");
    p.u32(9);
    p.u32(2);
    p.len(2);
    p.bytes(1u16.to_le_bytes());
    p.bytes(0x1234u16.to_le_bytes());
    p.str("nested");
    p.u32(9);
    p.u32(9);
    p.len(1);
    p.u32(5);
    p.len(2);
    p.u32(7);
    p.u32(u32::MAX);
    p.str("general.alignment");
    p.u32(4);
    p.u32(64);
    for (name, dims, ty, offset) in [("w", &[32u64, 2][..], GgmlType::Q4_0, 0), ("b", &[3][..], GgmlType::F32, 64)] {
        p.str(name);
        p.u32(dims.len() as u32);
        dims.iter().for_each(|&d| p.len(d));
        p.u32(ty.id());
        p.u64(offset);
    }
    p.out.resize(p.out.len().next_multiple_of(64), 0);
    for block in 0..2u8 {
        p.bytes([0x34, block]);
        p.out.extend([block; 16]);
    }
    p.out.resize(p.out.len().next_multiple_of(64), 0);
    (0..3).for_each(|i| p.u32((i as f32).to_bits()));
    p.out.resize(p.out.len().next_multiple_of(64), 0);
    p.out
}

#[test]
fn every_version_in_both_orders_reads_the_same() {
    let twin_bytes = file(3, false);
    let twin = Gguf::parse(&twin_bytes[..], &Limits::default()).unwrap();
    assert_eq!(twin.metadata().need_str("name").unwrap(), "x");
    assert_eq!(twin.metadata().need_array("ids").unwrap().ints().unwrap().collect::<Vec<_>>(), [1, 0x1234]);
    assert_eq!(twin.metadata().get("nested").unwrap().to_string(), "[[7, -1]]");
    for version in 1..=3 {
        for (big, order) in [(false, ByteOrder::Little), (true, ByteOrder::Big)] {
            let bytes = file(version, big);
            let gguf = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
            assert_eq!((gguf.version(), gguf.byte_order()), (version, order));
            assert_eq!(gguf.metadata(), twin.metadata());
            for (tensor, of_twin) in gguf.tensors().iter().zip(twin.tensors()) {
                assert_eq!((tensor.name(), tensor.shape()), (of_twin.name(), of_twin.shape()));
                let little = gguf.data_in(ByteOrder::Little, tensor).unwrap();
                assert_eq!(*little, *twin.data(of_twin), "version {version}, {order} endian, {}", tensor.name());
                assert_eq!(matches!(little, Cow::Borrowed(_)), !big);
                assert_eq!(*gguf.data_in(order, tensor).unwrap(), *gguf.data(tensor));
            }
            // Every truncation is an error, and none of them a panic.
            for len in 0..bytes.len() - 52 {
                assert!(Gguf::parse(&bytes[..len], &Limits::default()).is_err(), "{len}");
            }
        }
    }
}

#[test]
fn a_file_of_version_1_is_held_against_its_narrow_lengths() {
    let mut bytes = file(1, false);
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let e = Gguf::parse(&bytes[..], &Limits::default()).unwrap_err().to_string();
    assert!(e.contains("offset 0x8") && e.contains("found 4294967295"), "{e}");
}

/// The data of every tensor in the given order.
fn data<'a>(gguf: &'a Gguf<&[u8]>, order: ByteOrder) -> Vec<Cow<'a, [u8]>> {
    gguf.tensors().iter().map(|t| gguf.data_in(order, t).unwrap()).collect()
}

#[test]
fn turned_by_gguf_py() {
    let (little, big) = (include_bytes!("data/little.gguf"), include_bytes!("data/big.gguf"));
    let limits = Limits::default();
    let (l, b) = (Gguf::parse(&little[..], &limits).unwrap(), Gguf::parse(&big[..], &limits).unwrap());
    assert_eq!((l.byte_order(), b.byte_order()), (ByteOrder::Little, ByteOrder::Big));
    assert_eq!(l.metadata(), b.metadata());
    assert_eq!(l.tensors().len(), 9);
    assert_eq!(l.tensors(), b.tensors());
    assert!(data(&l, ByteOrder::Little) == data(&b, ByteOrder::Little));
    // And written: the bytes of gguf-py, whichever the source.
    let sized: Vec<SizedTensor> = l.tensors().iter().map(SizedTensor::from).collect();
    for source in [&l, &b] {
        for (order, file) in [(ByteOrder::Little, &little[..]), (ByteOrder::Big, &big[..])] {
            let data = data(source, order);
            let slices: Vec<&[u8]> = data.iter().map(|d| &**d).collect();
            let plan = WritePlan::in_order(order, source.metadata(), &sized).unwrap();
            assert!(plan.to_bytes(&slices).unwrap() == file, "from {} to {order}", source.byte_order());
        }
    }
}

#[test]
fn values_of_an_unknown_type_cannot_be_turned() {
    let mut bytes = file(3, true);
    let at = bytes.windows(4).rposition(|w| w == GgmlType::Q4_0.id().to_be_bytes()).unwrap();
    bytes[at..at + 4].copy_from_slice(&99u32.to_be_bytes());
    let gguf = Gguf::parse(&bytes[..], &Limits::default()).unwrap();
    let tensor = gguf.tensor("w").unwrap();
    assert_eq!(tensor.ggml_type(), GgmlType::from_id(99));
    assert_eq!(gguf.data(tensor).len(), 64);
    assert!(matches!(gguf.data_in(ByteOrder::Little, tensor), Err(Error::NoCodec { .. })));
    assert_eq!(*gguf.data_in(ByteOrder::Big, tensor).unwrap(), *gguf.data(tensor));
}
