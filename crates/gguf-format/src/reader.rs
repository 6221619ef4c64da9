//! The reader over bytes at hand: header parsed once and checked, then views that cannot fail.

use crate::byte_order::{ByteOrder, swap_tensor_bytes};
use crate::header::Header;
use crate::limits::Limits;
use crate::{Metadata, Result, TensorInfo};
use alloc::borrow::Cow;

/// A GGUF file over any storage of bytes: `&[u8]`, `Vec<u8>`, a memory map.
///
/// Versions 1, 2 and 3, little and big endian. Everything is checked when the header is parsed; afterwards [`Gguf::data`] cannot fail.
/// Tensors may lie in any order and with gaps between them, which ggml's reader refuses: [`Gguf::strict_check`] tells. Types with unknown
/// numbers are kept.
#[derive(Debug)]
pub struct Gguf<S> {
    storage: S,
    header: Header,
}

#[cfg(feature = "mmap")]
impl Gguf<crate::Mmap> {
    /// Maps the file and parses its header, with the default [`Limits`]. See [`Mmap::open`](crate::Mmap::open) on files that change.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), or [`Error::InFile`](crate::Error::InFile) around what is wrong in the file.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::open_with(path, &Limits::default())
    }

    /// [`Gguf::open`] with other limits.
    pub fn open_with(path: impl AsRef<std::path::Path>, limits: &Limits) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(crate::Mmap::open(path)?, limits).map_err(|e| e.in_file(path))
    }
}

impl<S: AsRef<[u8]>> Gguf<S> {
    /// Parses and checks the header.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed), with the offset of the first thing that is wrong.
    pub fn parse(storage: S, limits: &Limits) -> Result<Self> {
        let header = Header::parse(storage.as_ref(), limits)?;
        Ok(Self { storage, header })
    }

    /// The header: all that is not tensor data.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version()
    }

    /// Byte order of the file, and so of what [`Gguf::data`] gives.
    pub fn byte_order(&self) -> ByteOrder {
        self.header.byte_order()
    }

    /// Alignment of tensors, a power of two: `general.alignment`, or 32.
    pub fn alignment(&self) -> u64 {
        self.header.alignment()
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        self.header.metadata()
    }

    /// The tensors, in the order of the header.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.header.tensors()
    }

    /// By name, O(1).
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensor(name)
    }

    /// By name, or [`Error::MissingTensor`](crate::Error::MissingTensor).
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.header.need_tensor(name)
    }

    /// The bytes of a tensor of this file, as they are in it: in a big-endian file the numbers of its blocks are big endian, too
    /// ([`Gguf::data_in`] turns them). (Of a tensor of another file: whatever lies there, empty if that is past the end.)
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // For tensors of this file the range was checked by the parser, so the conversions lose nothing.
        let start = tensor.file_offset() as usize;
        self.storage.as_ref().get(start..start.saturating_add(tensor.byte_len() as usize)).unwrap_or_default()
    }

    /// The bytes of a tensor with the numbers of its blocks in the given byte order: borrowed where the file has that order, else a copy.
    /// [`blocks`](crate::blocks) and all else in this crate that computes takes [`ByteOrder::Little`].
    ///
    /// # Errors
    /// [`Error::NoCodec`](crate::Error::NoCodec) if they would have to be turned and the type is not known.
    pub fn data_in(&self, order: ByteOrder, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        let data = self.data(tensor);
        if order == self.byte_order() {
            return Ok(Cow::Borrowed(data));
        }
        let mut turned = data.to_vec();
        swap_tensor_bytes(tensor.ggml_type(), &mut turned)?;
        Ok(Cow::Owned(turned))
    }

    /// Where the data section starts, from the start of the file.
    pub fn data_start(&self) -> u64 {
        self.header.data_start()
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }
}
