//! Writes a safetensors file from tensors declared up front, in pieces, and atomically.

use super::Dtype;
use crate::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Rows first.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// A tensor of that name, type and shape.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<u64>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    /// Bytes of the data, saturating.
    pub fn byte_len(&self) -> u64 {
        self.shape.iter().fold(self.dtype.size(), |n, &d| n.saturating_mul(d))
    }
}

/// A tensor of any type, by its length.
pub(crate) struct RawSpec<'a> {
    pub(crate) name: &'a str,
    /// As the header spells it.
    pub(crate) dtype: String,
    /// Rows first.
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: u64,
}

/// A file under way: the header is written, the data follows in the declared order; the target appears with
/// [`finish`](Self::finish). Dropping the writer removes the temporary file and leaves an existing target as it was.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    header_len: u64,
    expected: u64,
    written: u64,
}

impl SafetensorsWriter {
    /// Writes the header to a temporary file beside `path`. `metadata` becomes `__metadata__`, in order.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written, [`Error::Usage`] for a name given twice or data beyond 2^63 bytes.
    pub fn create(path: impl AsRef<Path>, tensors: &[TensorSpec], metadata: &[(String, String)]) -> Result<Self> {
        let entries = tensors.iter().map(|t| RawSpec {
            name: &t.name,
            dtype: t.dtype.name().to_owned(),
            shape: t.shape.clone(),
            bytes: t.byte_len(),
        });
        Self::create_raw(path.as_ref(), entries, metadata)
    }

    /// As [`SafetensorsWriter::create`], for tensors of any type.
    pub(crate) fn create_raw<'a>(
        path: &Path,
        tensors: impl Iterator<Item = RawSpec<'a>>,
        metadata: &[(String, String)],
    ) -> Result<Self> {
        let mut header = serde_json::Map::new();
        let texts = metadata.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        header.insert("__metadata__".to_owned(), serde_json::Value::Object(texts));
        let mut offset = 0u64;
        for t in tensors {
            let end = offset.saturating_add(t.bytes);
            if end > i64::MAX as u64 {
                return Err(Error::Usage(format!("{}: tensor `{}` is too large to store", path.display(), t.name)));
            }
            let entry = serde_json::json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": [offset, end]});
            if header.insert(t.name.to_owned(), entry).is_some() {
                return Err(Error::Usage(format!("{}: two tensors are named `{}`", path.display(), t.name)));
            }
            offset = end;
        }
        let mut json = serde_json::Value::Object(header).to_string();
        while !json.len().is_multiple_of(8) {
            json.push(' ');
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".quant-").suffix(".part");
        #[cfg(unix)]
        {
            // As any other file a program creates: the umask decides.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder).map_err(|e| Error::io(path, e))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let length = (json.len() as u64).to_le_bytes();
        out.write_all(&length).and_then(|()| out.write_all(json.as_bytes())).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), out, header_len: 8 + json.len() as u64, expected: offset, written: 0 })
    }

    /// Size of the finished file.
    pub fn file_len(&self) -> u64 {
        self.header_len + self.expected
    }

    /// The next bytes of the data.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Usage`] if more comes than was declared.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.written.saturating_add(bytes.len() as u64);
        if written > self.expected {
            return Err(Error::Usage(format!("{}: more data than declared", self.path.display())));
        }
        self.out.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.written = written;
        Ok(())
    }

    /// The next values of an F32 tensor.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<()> {
        self.write_each(values, |v| v.to_le_bytes())
    }

    /// The next values of an F64 tensor.
    pub fn write_f64(&mut self, values: &[f64]) -> Result<()> {
        self.write_each(values, |v| v.to_le_bytes())
    }

    /// The next values of an I32 tensor.
    pub fn write_i32(&mut self, values: &[i32]) -> Result<()> {
        self.write_each(values, |v| v.to_le_bytes())
    }

    /// The next values of an I64 tensor.
    pub fn write_i64(&mut self, values: &[i64]) -> Result<()> {
        self.write_each(values, |v| v.to_le_bytes())
    }

    /// Syncs and renames to the target. Returns the size of the file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Usage`] if data is missing.
    pub fn finish(self) -> Result<u64> {
        let len = self.file_len();
        let Self { path, out, expected, written, .. } = self;
        if written != expected {
            return Err(Error::Usage(format!("{}: {written} of {expected} declared bytes came", path.display())));
        }
        let file = out.into_inner().map_err(|e| Error::io(&path, e.into_error()))?;
        file.as_file().sync_all().map_err(|e| Error::io(&path, e))?;
        file.persist(&path).map_err(|e| Error::io(&path, e.error))?;
        Ok(len)
    }

    fn write_each<T: Copy, const N: usize>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Result<()> {
        let mut buffer = Vec::with_capacity(N * values.len().min(1 << 16));
        for piece in values.chunks(1 << 16) {
            buffer.clear();
            buffer.extend(piece.iter().flat_map(|&v| bytes(v)));
            self.write(&buffer)?;
        }
        Ok(())
    }
}
