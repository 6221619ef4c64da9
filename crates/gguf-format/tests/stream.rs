//! Reading without the file in memory.

use gguf_format::{Error, GgmlType, Gguf, GgufReader, GgufWriter, Header, Limits, Metadata, TensorSpec};
use std::io::{Cursor, Read, Seek, SeekFrom};

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        // Short reads, as pipes and sockets give them.
        let most = buf.len().min(5000);
        let n = self.inner.read(&mut buf[..most])?;
        self.read += n as u64;
        Ok(n)
    }
}

impl<R: Seek> Seek for Counted<R> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

/// A header of 600 kB, data of 4 MB.
fn write(path: &std::path::Path) {
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.tokens", (0..40_000).map(|i| format!("tok{i}")).collect::<Vec<_>>());
    let spec = |name: &str| TensorSpec { name: name.into(), shape: vec![1 << 19], ty: GgmlType::F32 };
    let mut writer = GgufWriter::create(path, &metadata, &[spec("a"), spec("b")]).unwrap();
    writer.write(&vec![1; 1 << 21]).unwrap();
    writer.write(&(0..1u32 << 21).map(|i| i as u8).collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn the_header_is_read_and_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(&path);
    let whole = Gguf::open(&path).unwrap();
    let source = Counted { inner: std::fs::File::open(&path).unwrap(), read: 0 };
    let mut reader = GgufReader::new(source).unwrap();
    assert_eq!(reader.metadata(), whole.metadata());
    assert_eq!(reader.header().tensors(), whole.tensors());
    let tensor = reader.header().need_tensor("b").unwrap().clone();
    let mut buffer = vec![0; 1 << 21];
    reader.read(&tensor, &mut buffer).unwrap();
    assert!(buffer == whole.data(&tensor));
    let mut some = [0; 4];
    reader.read_at(&tensor, 255, &mut some).unwrap();
    assert_eq!(some, [255, 0, 1, 2]);
    for (offset, len) in [((1 << 21) - 3, 4), (u64::MAX, 1), (1 << 21, 1)] {
        assert!(matches!(reader.read_at(&tensor, offset, &mut vec![0; len]), Err(Error::Length { .. })));
    }
    assert!(matches!(reader.read(&tensor, &mut some), Err(Error::Length { .. })));
    // Twice the header at the most, and the tensor.
    let read = reader.into_inner().read;
    assert!(read < 2 * whole.data_start() + (1 << 21) + 4096, "{read} bytes read");
    assert!(GgufReader::open(&path).is_ok());
    assert!(GgufReader::open(dir.path().join("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn a_prefix_is_enough_or_says_that_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(&path);
    let bytes = std::fs::read(&path).unwrap();
    let header_len = Gguf::parse(&bytes[..], &Limits::default()).unwrap().data_start() as usize;
    let parse = |len: usize| Header::parse_prefix(&bytes[..len], bytes.len() as u64, &Limits::default());
    for len in [0, 3, 4, 8, 20, 100, header_len / 2] {
        assert!(parse(len).unwrap().is_none(), "{len}");
    }
    assert_eq!(parse(header_len).unwrap().unwrap().tensors().len(), 2);
    // A file that is shorter than the header says is wrong, not incomplete.
    assert!(Header::parse_prefix(&bytes[..1000], 1000, &Limits::default()).is_err());
}

#[test]
fn a_source_that_fails() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
            Ok(100)
        }
    }
    let e = GgufReader::new(Broken).map(drop).unwrap_err();
    assert!(matches!(e, Error::Io { .. }) && e.to_string().contains("unplugged"), "{e}");
    assert!(matches!(GgufReader::new(Cursor::new(b"GGUF")), Err(Error::Malformed { .. })));
    assert!(matches!(GgufReader::new(Cursor::new([])), Err(Error::Malformed { .. })));
}

#[test]
fn the_limit_of_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(&path);
    let mut limits = Limits::default();
    limits.header_bytes = 100_000;
    let source = Counted { inner: std::fs::File::open(&path).unwrap(), read: 0 };
    let e = GgufReader::with_limits(source, &limits).map(drop).unwrap_err().to_string();
    assert!(e.contains("a header of at most 100000 bytes"), "{e}");
    assert!(Gguf::open_with(&path, &limits).is_err());
}
