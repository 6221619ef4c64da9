//! The header: everything in front of the tensors' data, parsed once and checked.

use crate::byte_order::ByteOrder;
use crate::limits::Limits;
use crate::name_index::NameIndex;
use crate::parse::{Cursor, Encoding, Part};
use crate::tensor_info::{Entry, element_count};
use crate::value::{ValueType, found};
use crate::{Error, GgmlType, Metadata, Result, TensorInfo, Value};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Alignment of the data section without the key `general.alignment`.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// What a file says about itself: version, byte order, metadata, and name, shape, type and place of each tensor.
///
/// It holds no tensor data and borrows nothing. Metadata and shapes are the same whatever version and byte order they were read from.
#[derive(Clone, Debug)]
pub struct Header {
    version: u32,
    byte_order: ByteOrder,
    alignment: u64,
    data_start: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
}

impl Header {
    /// Parses and checks the header of a file of `file_len` bytes that begins with `bytes`; `None` if that needs more of them.
    ///
    /// This is how to read a header piece by piece from wherever a file lies: get some bytes of its beginning (64 KiB, say), and twice as
    /// many after each `None`. A file whose bytes are all at hand never gives `None`.
    ///
    /// # Errors
    /// [`Error::Malformed`], with the offset of the first thing that is wrong.
    pub fn parse_prefix(bytes: &[u8], file_len: u64, limits: &Limits) -> Result<Option<Self>> {
        let mut cursor = Cursor::prefix(bytes, file_len);
        match Self::read(&mut cursor, limits) {
            Err(_) if cursor.is_short() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Parses and checks the header at the start of a whole file.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        Self::read(&mut Cursor::new(bytes), limits)
    }

    fn read(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<Self> {
        cursor.set_bound(limits.header_bytes);
        let (version, byte_order) = read_magic_and_version(cursor)?;
        cursor.encoding = Encoding { order: byte_order, narrow: version == 1 };
        let length = cursor.encoding.length_bytes();
        // A tensor takes at least: length of the name, dimensions 4, type 4, offset 8. A key: its length, a byte, type 4, a byte.
        let n_tensors = cursor.count(length + 16, limits.tensors, "tensors", Part::Header)?;
        let n_keys = cursor.count(length + 6, limits.metadata, "keys", Part::Header)?;
        let (metadata, alignment) = read_metadata(cursor, n_keys, limits)?;
        let (mut tensors, index) = read_tensor_infos(cursor, n_tensors, alignment, limits)?;
        // The data section starts at the next multiple of the alignment; without tensors there is none.
        let data_start = match tensors.is_empty() {
            true => cursor.pos(),
            false => cursor.pos().next_multiple_of(alignment),
        };
        let file_len = cursor.pos() + cursor.left();
        place_tensors(&mut tensors, data_start, file_len)?;
        Ok(Self { version, byte_order, alignment, data_start, metadata, tensors, index })
    }

    /// Version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Byte order of the file, its tensors' data included.
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// Alignment of tensors, a power of two: `general.alignment`, or 32.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the data section starts, from the start of the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
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
        self.tensors.get(self.index.find(name, name_at(&self.tensors))?)
    }

    /// By name, or [`Error::MissingTensor`].
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.into() })
    }
}

fn read_magic_and_version(cursor: &mut Cursor<'_>) -> Result<(u32, ByteOrder)> {
    let part = Part::Header;
    let magic = cursor.take(4, part)?;
    if magic != b"GGUF" {
        let found = String::from_utf8_lossy(magic).into_owned();
        return Err(part.malformed(0, "the magic bytes \"GGUF\"", format_args!("{found:?}")));
    }
    // A big-endian file has no mark but its version, which little-endian readers see with its bytes swapped.
    let little = cursor.u32(part)?;
    let (version, order) = match little & 0xffff == 0 {
        true => (little.swap_bytes(), ByteOrder::Big),
        false => (little, ByteOrder::Little),
    };
    match (version, order) {
        (1..=3, order) => Ok((version, order)),
        (0, _) | (_, ByteOrder::Little) => Err(part.malformed(4, "version 1, 2 or 3", version)),
        (_, ByteOrder::Big) => Err(part.malformed(4, "version 1, 2 or 3", format_args!("{version}, big endian"))),
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
            // How long such a value is cannot be known, nor where the next key starts.
            return Err(part.malformed(type_at, "a value type from 0 to 12", ty.0));
        }
        let value = cursor.value(ty, limits, part)?;
        if key == ALIGNMENT_KEY {
            alignment =
                alignment_of(&value).ok_or_else(|| part.malformed(type_at, ALIGNMENT_RULE, found(&value.view())))?;
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

type Infos = (Vec<TensorInfo>, NameIndex);

/// The name of the tensor at a place of a list.
fn name_at<'a>(tensors: &'a [TensorInfo]) -> impl Fn(usize) -> Option<&'a str> {
    |i| tensors.get(i).map(TensorInfo::name)
}

/// Sizes and places are filled in by [`place_tensors`].
fn read_tensor_infos(cursor: &mut Cursor<'_>, count: u64, alignment: u64, limits: &Limits) -> Result<Infos> {
    let mut tensors = Vec::new();
    let mut index = NameIndex::default();
    for number in 0..count {
        let at = cursor.pos();
        let name = cursor.name(limits.name_bytes, Part::TensorNumber(number))?;
        let part = Part::Tensor(name);
        if index.find(name, name_at(&tensors)).is_some() {
            return Err(part.malformed(at, "a name used once", "it a second time"));
        }
        index.push(name, name_at(&tensors));
        let at = cursor.pos();
        let dims = cursor.u32(part)?;
        if dims > limits.dims {
            return Err(part.malformed(at, format!("at most {} dimensions", limits.dims), dims));
        }
        let at = cursor.pos();
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(cursor.length(part)?);
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
        tensors.push(TensorInfo(Entry { name, shape, ty, part: 0, offset, file_offset: 0, byte_len }.into()));
    }
    Ok((tensors, index))
}

/// Sets the place of every tensor and the length of those of unknown type; checks that all lie in the file and none over another.
fn place_tensors(tensors: &mut [TensorInfo], data_start: u64, file_len: u64) -> Result<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // Of tensors at the same place, those without data come first. An unknown type has data if it has elements.
    order.sort_by_key(|&i| {
        let t = &tensors[i];
        (t.data_offset(), t.byte_len() != 0 || (t.ggml_type().layout().is_none() && t.element_count() != 0))
    });
    // From the back, `next` is where the tensor behind starts.
    let mut next: Option<(u64, usize)> = None;
    for &i in order.iter().rev() {
        let tensor = &*tensors[i].0;
        let elements = tensors[i].element_count();
        let part = Part::Tensor(&tensor.name);
        let past_end = |len: u64| {
            let found = format!("{len} bytes at {} + {} in a file of {file_len}", data_start, tensor.offset);
            part.malformed(data_start.saturating_add(tensor.offset), "data inside the file", found)
        };
        let start = data_start.checked_add(tensor.offset).ok_or_else(|| past_end(tensor.byte_len))?;
        let limit = next.map_or(file_len, |(at, _)| at.min(file_len));
        let byte_len = match tensor.ty.layout() {
            Some(_) => tensor.byte_len,
            None if elements == 0 => 0,
            None => limit.saturating_sub(start),
        };
        let end = start.checked_add(byte_len).ok_or_else(|| past_end(byte_len))?;
        // A tensor without data may stand at the very end, even where the padding before it is missing.
        if byte_len > 0 && end > file_len || byte_len == 0 && tensor.offset > file_len {
            return Err(past_end(byte_len));
        }
        if byte_len == 0 && tensor.ty.layout().is_none() && elements != 0 {
            return Err(part.malformed(start, "data of its own", "no byte before the next tensor or the end"));
        }
        if let Some((at, behind)) = next
            && end > at
        {
            let found = format!("{byte_len} bytes, {} of them in {}", end - at, Part::Tensor(tensors[behind].name()));
            return Err(part.malformed(start, "tensors that do not overlap", found));
        }
        next = Some((start, i));
        let tensor = &mut *tensors[i].0;
        (tensor.file_offset, tensor.byte_len) = (start, byte_len);
    }
    Ok(())
}
