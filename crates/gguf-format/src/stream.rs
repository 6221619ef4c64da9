//! The reader over a source that is not in memory: the header is read, tensors when they are asked for.

use crate::header::Header;
use crate::limits::Limits;
use crate::{Error, Metadata, Result, TensorInfo};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A GGUF file in anything that reads and seeks. Memory holds its header; the data of a tensor are read into the caller's buffer.
///
/// ```
/// # use gguf_format::{GgmlType, Metadata, TensorSpec, WritePlan};
/// # let spec = TensorSpec { name: "w".into(), shape: vec![2, 3], ty: GgmlType::F32 };
/// # let bytes = WritePlan::new(&Metadata::new(), &[spec])?.to_bytes(&[&[7; 24]])?;
/// use gguf_format::GgufReader;
/// let mut reader = GgufReader::new(std::io::Cursor::new(bytes))?;
/// let tensor = reader.header().need_tensor("w")?.clone();
/// let mut row = [0; 12];
/// reader.read_at(&tensor, 12, &mut row)?;
/// assert_eq!(row, [7; 12]);
/// # Ok::<(), gguf_format::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufReader<R> {
    source: R,
    name: String,
    header: Header,
}

/// What is read of a file before it is known how long its header is.
const FIRST_READ: u64 = 64 << 10;

impl GgufReader<File> {
    /// Opens a file and reads its header, with the default [`Limits`].
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::InFile`] around what is wrong in the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| Error::Io { path: name.clone(), source })?;
        Self::named(file, name, &Limits::default()).map_err(|e| e.in_file(path))
    }
}

impl<R: Read + Seek> GgufReader<R> {
    /// Reads the header of a file that starts where `source` does, with the default [`Limits`].
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] with the offset of the first thing that is wrong.
    pub fn new(source: R) -> Result<Self> {
        Self::with_limits(source, &Limits::default())
    }

    /// [`GgufReader::new`] with other limits.
    pub fn with_limits(source: R, limits: &Limits) -> Result<Self> {
        Self::named(source, "input".into(), limits)
    }

    fn named(mut source: R, name: String, limits: &Limits) -> Result<Self> {
        let io = |source| Error::Io { path: name.clone(), source };
        let mut file_len = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut bytes = Vec::new();
        let mut wanted = FIRST_READ;
        loop {
            let more = wanted.min(file_len).saturating_sub(bytes.len() as u64);
            bytes.reserve_exact(more as usize);
            source.by_ref().take(more).read_to_end(&mut bytes).map_err(io)?;
            if (bytes.len() as u64) < wanted {
                // All of it, or what is left of it.
                file_len = bytes.len() as u64;
            }
            if let Some(header) = Header::parse_prefix(&bytes, file_len, limits)? {
                return Ok(Self { source, name, header });
            }
            wanted = wanted.saturating_mul(2);
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        self.header.metadata()
    }

    /// Reads the data of a tensor, as they are in the file, into `buffer`, which has their length.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of another length, [`Error::Io`].
    pub fn read(&mut self, tensor: &TensorInfo, buffer: &mut [u8]) -> Result<()> {
        if buffer.len() as u64 != tensor.byte_len() {
            return Err(length(tensor, format!("a buffer of {} bytes", tensor.byte_len()), buffer.len()));
        }
        self.read_at(tensor, 0, buffer)
    }

    /// Reads a part of the data of a tensor: `buffer.len()` bytes from byte `offset` of it.
    ///
    /// # Errors
    /// [`Error::Length`] for bytes past the end of the tensor, [`Error::Io`].
    pub fn read_at(&mut self, tensor: &TensorInfo, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > tensor.byte_len()) {
            let expected = format!("bytes of the {} of tensor `{}`", tensor.byte_len(), tensor.name());
            return Err(length(tensor, expected, format_args!("{} from {offset}", buffer.len())));
        }
        let io = |source| Error::Io { path: self.name.clone(), source };
        self.source.seek(SeekFrom::Start(tensor.file_offset().saturating_add(offset))).map_err(io)?;
        self.source.read_exact(buffer).map_err(io)
    }

    /// Gives the source back.
    pub fn into_inner(self) -> R {
        self.source
    }
}

fn length(tensor: &TensorInfo, expected: String, found: impl std::fmt::Display) -> Error {
    Error::Length { ty: tensor.ggml_type(), expected, found: found.to_string() }
}
