//! The reader: header parsed once and checked, then views that cannot fail.

use crate::limits::Limits;
use crate::parse::{Cursor, Part};
use crate::tensor_info::element_count;
use crate::value::ValueType;
use crate::{GgmlType, Metadata, Result, TensorInfo, Value};
use std::collections::HashMap;

/// Alignment of the data section without the key `general.alignment`.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// A GGUF file over any storage of bytes: `&[u8]`, `Vec<u8>`, a memory map.
///
/// Versions 2 and 3, little endian. Everything is checked when the header is parsed; afterwards [`Gguf::data`] cannot fail. Tensors may lie
/// in any order and with gaps between them, which ggml's reader refuses: [`Gguf::strict_check`] tells. Types with unknown numbers are kept.
#[derive(Debug)]
pub struct Gguf<S> {
    storage: S,
    version: u32,
    alignment: u64,
    data_start: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<Box<str>, usize>,
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
        let bytes = storage.as_ref();
        let mut cursor = Cursor::new(bytes);
        let version = read_magic_and_version(&mut cursor)?;
        // A tensor takes at least: name length 8, dimensions 4, type 4, offset 8. A key: length 8, a byte, type 4, a byte.
        let n_tensors = cursor.count(24, limits.tensors, "tensors", Part::Header)?;
        let n_keys = cursor.count(14, limits.metadata, "keys", Part::Header)?;
        let (metadata, alignment) = read_metadata(&mut cursor, n_keys, limits)?;
        let (mut tensors, index) = read_tensor_infos(&mut cursor, n_tensors, alignment, limits)?;
        // The data section starts at the next multiple of the alignment; without tensors there is none.
        let data_start = match tensors.is_empty() {
            true => cursor.pos() as u64,
            false => (cursor.pos() as u64).next_multiple_of(alignment),
        };
        place_tensors(&mut tensors, data_start, bytes.len() as u64)?;
        Ok(Self { version, alignment, data_start, metadata, tensors, index, storage })
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensors, a power of two: `general.alignment`, or 32.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, in the order of the header.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// By name, O(1).
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// By name, or [`Error::MissingTensor`](crate::Error::MissingTensor).
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| crate::Error::MissingTensor { name: name.into() })
    }

    /// The bytes of a tensor of this file. (Of a tensor of another file: whatever lies there, empty if that is past the end.)
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // For tensors of this file the range was checked by `place_tensors`, so the conversions lose nothing.
        let start = tensor.file_offset as usize;
        self.storage.as_ref().get(start..start.saturating_add(tensor.byte_len as usize)).unwrap_or_default()
    }

    /// Where the data section starts, from the start of the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
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

fn read_magic_and_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let part = Part::Header;
    let magic = cursor.take(4, part)?;
    if magic != b"GGUF" {
        let found = String::from_utf8_lossy(magic).into_owned();
        return Err(part.malformed(0, "the magic bytes \"GGUF\"", format_args!("{found:?}")));
    }
    match cursor.u32(part)? {
        version @ (2 | 3) => Ok(version),
        // A big-endian file has no mark but its swapped version.
        swapped if swapped & 0xffff == 0 && swapped != 0 => {
            Err(part.malformed(4, "a little-endian file", format_args!("big-endian version {}", swapped.swap_bytes())))
        }
        version => Err(part.malformed(4, "version 2 or 3", version)),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64, limits: &Limits) -> Result<(Metadata, u64)> {
    let mut metadata = Metadata::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for number in 0..count {
        let at = cursor.pos();
        let key = cursor.name(limits.key_bytes, Part::KeyNumber(number))?;
        let part = Part::Key(key);
        if key.is_empty() {
            return Err(Part::KeyNumber(number).malformed(at, "a key", "an empty one"));
        }
        if metadata.contains_key(key) {
            return Err(part.malformed(at, "a key used once", "it a second time"));
        }
        let type_at = cursor.pos();
        let ty = ValueType(cursor.u32(part)?);
        if ty.name().is_none() {
            return Err(part.malformed(type_at, "a value type from 0 to 12", ty.0));
        }
        let start = cursor.pos();
        cursor.skip_value(ty, limits, part)?;
        let value = Value::from_checked(ty, cursor.since(start));
        if key == ALIGNMENT_KEY {
            alignment = alignment_of(&value)
                .ok_or_else(|| part.malformed(type_at, ALIGNMENT_RULE, format_args!("{ty} {value:.4}")))?;
        }
        metadata.set(key, value);
    }
    Ok((metadata, alignment))
}

/// What [`alignment_of`] takes.
pub(crate) const ALIGNMENT_RULE: &str = "u32, a power of two";

pub(crate) fn alignment_of(value: &Value) -> Option<u64> {
    match value.view() {
        crate::ValueView::U32(v) if v.is_power_of_two() => Some(v.into()),
        _ => None,
    }
}

type Infos = (Vec<TensorInfo>, HashMap<Box<str>, usize>);

/// Sizes and places are filled in by [`place_tensors`].
fn read_tensor_infos(cursor: &mut Cursor<'_>, count: u64, alignment: u64, limits: &Limits) -> Result<Infos> {
    let mut tensors = Vec::new();
    let mut index = HashMap::new();
    for number in 0..count {
        let at = cursor.pos();
        let name = cursor.name(limits.name_bytes, Part::TensorNumber(number))?;
        let part = Part::Tensor(name);
        if index.insert(Box::from(name), tensors.len()).is_some() {
            return Err(part.malformed(at, "a name used once", "it a second time"));
        }
        let at = cursor.pos();
        let dims = cursor.u32(part)?;
        if dims > limits.dims {
            return Err(part.malformed(at, format!("at most {} dimensions", limits.dims), dims));
        }
        let at = cursor.pos();
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(cursor.u64(part)?);
        }
        shape.reverse();
        let element_count = element_count(&shape)
            .ok_or_else(|| part.malformed(at, "dimensions with a product below 2^63", format_args!("{shape:?}")))?;
        let at = cursor.pos();
        let ty = GgmlType::from_id(cursor.u32(part)?);
        let row_len = shape.last().copied().unwrap_or(1);
        if let Some(layout) = ty.layout()
            && !row_len.is_multiple_of(layout.block_len.into())
        {
            return Err(part.malformed(at, format!("rows of whole blocks of {} for {ty}", layout.block_len), row_len));
        }
        let byte_len = match ty.layout() {
            Some(_) => ty
                .bytes_for(element_count)
                .ok_or_else(|| part.malformed(at, "a size below 2^64 bytes", format_args!("{shape:?} of {ty}")))?,
            None => 0,
        };
        let at = cursor.pos();
        let offset = cursor.u64(part)?;
        if !offset.is_multiple_of(alignment) {
            return Err(part.malformed(at, format!("an offset that is a multiple of {alignment}"), offset));
        }
        let (name, shape) = (name.into(), shape.into());
        tensors.push(TensorInfo { name, shape, ty, offset, file_offset: 0, byte_len, element_count });
    }
    Ok((tensors, index))
}

/// Sets the place of every tensor and the length of those of unknown type; checks that all lie in the file and none over another.
fn place_tensors(tensors: &mut [TensorInfo], data_start: u64, file_len: u64) -> Result<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // Of tensors at the same place, those without data come first. An unknown type has data if it has elements.
    order.sort_by_key(|&i| {
        let t = &tensors[i];
        (t.offset, t.byte_len != 0 || (t.ty.layout().is_none() && t.element_count != 0))
    });
    // From the back, `next` is where the tensor behind starts.
    let mut next: Option<(u64, usize)> = None;
    for &i in order.iter().rev() {
        let tensor = &tensors[i];
        let part = Part::Tensor(&tensor.name);
        let past_end = |len: u64| {
            let found = format!("{len} bytes at {} + {} in a file of {file_len}", data_start, tensor.offset);
            part.malformed(data_start.saturating_add(tensor.offset) as usize, "data inside the file", found)
        };
        let start = data_start.checked_add(tensor.offset).ok_or_else(|| past_end(tensor.byte_len))?;
        let limit = next.map_or(file_len, |(at, _)| at.min(file_len));
        let byte_len = match tensor.ty.layout() {
            Some(_) => tensor.byte_len,
            None if tensor.element_count == 0 => 0,
            None => limit.saturating_sub(start),
        };
        let end = start.checked_add(byte_len).ok_or_else(|| past_end(byte_len))?;
        // A tensor without data may stand at the very end, even where the padding before it is missing.
        if byte_len > 0 && end > file_len || byte_len == 0 && tensor.offset > file_len {
            return Err(past_end(byte_len));
        }
        if byte_len == 0 && tensor.ty.layout().is_none() && tensor.element_count != 0 {
            return Err(part.malformed(start as usize, "data of its own", "no byte before the next tensor or the end"));
        }
        if let Some((at, behind)) = next
            && end > at
        {
            let found = format!("{byte_len} bytes, {} of them in tensor `{}`", end - at, tensors[behind].name);
            return Err(part.malformed(start as usize, "tensors that do not overlap", found));
        }
        next = Some((start, i));
        let tensor = &mut tensors[i];
        (tensor.file_offset, tensor.byte_len) = (start, byte_len);
    }
    Ok(())
}
