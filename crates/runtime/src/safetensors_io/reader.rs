//! Reads parts of tensors of a safetensors file without mapping or loading it.

use super::Dtype;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The safetensors library refuses longer headers too.
const MAX_HEADER: u64 = 100_000_000;

/// Type, shape and place of one tensor, checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Type as the header spells it.
    pub dtype: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// Offset of the data in the file.
    pub offset: u64,
    /// Bytes of the data.
    pub bytes: u64,
}

/// An opened file whose header is checked: every tensor of a type in [`Dtype`] lies inside the file and is as long as its shape says.
#[derive(Debug)]
pub struct SafetensorsReader {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsReader {
    /// Opens the file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] naming the tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let file_len = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let header = read_header(path, &mut file, file_len)?;
        let data_start = 8 + header.len() as u64;
        let json: serde_json::Value = serde_json::from_slice(&header)
            .map_err(|e| Error::malformed(path, "safetensors header", "JSON", e.to_string()))?;
        let serde_json::Value::Object(entries) = json else {
            return Err(Error::malformed(path, "safetensors header", "a JSON object", "another JSON value"));
        };
        let mut tensors = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        for (name, value) in entries {
            if name == "__metadata__" {
                metadata = serde_json::from_value(value)
                    .map_err(|e| Error::malformed(path, "__metadata__", "strings by key", e.to_string()))?;
                continue;
            }
            let entry = parse_entry(&value, data_start, file_len)
                .map_err(|(expected, found)| Error::malformed(path, format!("tensor `{name}`"), expected, found))?;
            tensors.insert(name, entry);
        }
        Ok(Self { path: path.to_path_buf(), file, tensors, metadata })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// A tensor that must be there, of that type.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is missing or of another type.
    pub fn need(&self, name: &str, dtype: Dtype) -> Result<&TensorEntry> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(self.malformed(name, "a tensor of this name", "none"));
        };
        if entry.dtype != dtype.name() {
            return Err(self.malformed(name, dtype.name(), entry.dtype.clone()));
        }
        Ok(entry)
    }

    /// `count` F32 values of a tensor from element `first`.
    pub fn read_f32(&mut self, name: &str, first: u64, count: u64) -> Result<Vec<f32>> {
        self.read_values(name, Dtype::F32, first, count, f32::from_le_bytes)
    }

    /// `count` F64 values of a tensor from element `first`.
    pub fn read_f64(&mut self, name: &str, first: u64, count: u64) -> Result<Vec<f64>> {
        self.read_values(name, Dtype::F64, first, count, f64::from_le_bytes)
    }

    /// `count` I32 values of a tensor from element `first`.
    pub fn read_i32(&mut self, name: &str, first: u64, count: u64) -> Result<Vec<i32>> {
        self.read_values(name, Dtype::I32, first, count, i32::from_le_bytes)
    }

    /// `count` I64 values of a tensor from element `first`.
    pub fn read_i64(&mut self, name: &str, first: u64, count: u64) -> Result<Vec<i64>> {
        self.read_values(name, Dtype::I64, first, count, i64::from_le_bytes)
    }

    fn read_values<T, const N: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        first: u64,
        count: u64,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let size = dtype.size();
        let entry = self.need(name, dtype)?;
        let (start, len) = match (first.checked_mul(size), count.checked_mul(size)) {
            (Some(s), Some(l)) if s.checked_add(l).is_some_and(|end| end <= entry.bytes) => (entry.offset + s, l),
            _ => {
                let expected = format!("values {first}..{}", first.saturating_add(count));
                return Err(self.malformed(name, expected, format!("{} values", entry.bytes / size)));
            }
        };
        // Bounded by the file's length, which the header was checked against.
        let mut bytes = vec![0u8; len as usize];
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|&b| value(b)).collect())
    }

    fn malformed(&self, tensor: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(&self.path, format!("tensor `{tensor}`"), expected, found)
    }
}

fn read_header(path: &Path, file: &mut File, file_len: u64) -> Result<Vec<u8>> {
    let mut length = [0u8; 8];
    if file_len < 8 {
        return Err(Error::malformed(path, "safetensors header", "8 bytes of length", format!("{file_len} bytes")));
    }
    file.read_exact(&mut length).map_err(|e| Error::io(path, e))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > file_len - 8 {
        let expected = format!("at most {} bytes", MAX_HEADER.min(file_len - 8));
        return Err(Error::malformed(path, "length of the safetensors header", expected, format!("{length}")));
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact(&mut header).map_err(|e| Error::io(path, e))?;
    Ok(header)
}

/// The entry, or what was expected and what was found.
fn parse_entry(
    value: &serde_json::Value,
    data_start: u64,
    file_len: u64,
) -> std::result::Result<TensorEntry, (String, String)> {
    let wrong = |expected: &str| (expected.to_owned(), value.to_string().chars().take(120).collect::<String>());
    let dtype = value["dtype"].as_str().ok_or_else(|| wrong("a dtype"))?.to_owned();
    let ints = |key: &str| -> Option<Vec<u64>> { value[key].as_array()?.iter().map(|v| v.as_u64()).collect() };
    let shape = ints("shape").ok_or_else(|| wrong("a shape"))?;
    let offsets = ints("data_offsets").ok_or_else(|| wrong("data_offsets"))?;
    let &[begin, end] = offsets.as_slice() else {
        return Err(wrong("two data_offsets"));
    };
    let inside = data_start.checked_add(end).is_some_and(|e| e <= file_len);
    if begin > end || !inside {
        return Err((format!("data within {} bytes", file_len - data_start), format!("{begin}..{end}")));
    }
    if let Some(known) = Dtype::from_name(&dtype) {
        let need = shape.iter().try_fold(known.size(), |n, &d| n.checked_mul(d));
        if need != Some(end - begin) {
            return Err((format!("data of {dtype} {shape:?}"), format!("{} bytes", end - begin)));
        }
    }
    Ok(TensorEntry { dtype, shape, offset: data_start + begin, bytes: end - begin })
}

#[cfg(test)]
mod tests {
    use super::super::{SafetensorsWriter, TensorSpec};
    use super::*;

    fn write(path: &Path) {
        let specs = [
            TensorSpec::new("b", Dtype::I32, [3]),
            TensorSpec::new("a", Dtype::F32, [2, 2]),
            TensorSpec::new("e", Dtype::F64, [0]),
        ];
        let mut w = SafetensorsWriter::create(path, &specs, &[("k".into(), "v".into())]).unwrap();
        w.write_i32(&[-1, 2, 3]).unwrap();
        w.write_f32(&[1.0, 2.0]).unwrap();
        w.write_f32(&[3.0, 4.0]).unwrap();
        let len = w.file_len();
        assert_eq!(w.finish().unwrap(), len);
        assert_eq!(std::fs::metadata(path).unwrap().len(), len);
    }

    #[test]
    fn the_safetensors_library_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&path);
        let bytes = std::fs::read(&path).unwrap();
        let st = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let a = st.tensor("a").unwrap();
        assert_eq!((a.dtype(), a.shape()), (safetensors::Dtype::F32, &[2usize, 2][..]));
        assert_eq!(a.data()[4..8], 2.0f32.to_le_bytes());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn reads_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&path);
        let mut r = SafetensorsReader::open(&path).unwrap();
        assert_eq!(r.metadata()["k"], "v");
        assert_eq!(r.read_f32("a", 1, 2).unwrap(), [2.0, 3.0]);
        assert_eq!(r.read_i32("b", 0, 3).unwrap(), [-1, 2, 3]);
        assert_eq!(r.read_f64("e", 0, 0).unwrap(), [0.0f64; 0]);
        for (result, text) in [
            (r.read_f32("a", 3, 2), "expected values 3..5"),
            (r.read_f32("a", u64::MAX, 2), "expected values"),
            (r.read_f32("b", 0, 1), "expected F32, found I32"),
            (r.read_f32("z", 0, 1), "tensor `z`"),
        ] {
            assert!(result.unwrap_err().to_string().contains(text), "{text}");
        }
    }

    #[test]
    fn an_unfinished_file_leaves_the_target_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, b"old").unwrap();
        let specs = [TensorSpec::new("a", Dtype::F32, [2])];
        let mut w = SafetensorsWriter::create(&path, &specs, &[]).unwrap();
        w.write_f32(&[1.0]).unwrap();
        assert!(w.finish().is_err());
        let mut w = SafetensorsWriter::create(&path, &specs, &[]).unwrap();
        assert!(w.write_f32(&[1.0; 3]).is_err());
        drop(w);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(SafetensorsWriter::create(&path, &[specs[0].clone(), specs[0].clone()], &[]).is_err());
        assert!(SafetensorsWriter::create(dir.path().join("no/x"), &specs, &[]).is_err());
    }

    #[test]
    fn malformed_headers_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let file = |header: &str, data: &[u8]| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            bytes
        };
        let cases: [(&str, Vec<u8>); 9] = [
            ("empty", vec![]),
            ("header_past_end", 100u64.to_le_bytes().to_vec()),
            ("header_huge", u64::MAX.to_le_bytes().to_vec()),
            ("not_json", file("{", b"")),
            ("array", file("[]", b"")),
            ("tensor_past_end", file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, b"123")),
            ("shape_and_bytes", file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, b"1234")),
            ("offsets_reversed", file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, b"1234")),
            (
                "shape_overflow",
                file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, b""),
            ),
        ];
        for (name, bytes) in cases {
            std::fs::write(&path, bytes).unwrap();
            let error = SafetensorsReader::open(&path).expect_err(name);
            assert!(matches!(error, Error::Malformed { .. }), "{name}: {error}");
        }
    }
}
