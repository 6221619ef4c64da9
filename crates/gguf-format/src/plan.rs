//! The plan of a file: checked, its header in memory and its size known, nothing written yet.

use crate::byte_order::ByteOrder;
use crate::header::{ALIGNMENT_KEY, ALIGNMENT_RULE, DEFAULT_ALIGNMENT, alignment_of};
use crate::name_index::NameIndex;
use crate::parse::{Encoding, recode};
use crate::tensor_info::element_count;
use crate::value::ValueType;
use crate::{Error, GgmlType, Limits, Metadata, Result, TensorInfo, ValueView};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A tensor to be written: name, shape (rows first), type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, at most 63 bytes (ggml's limit).
    pub name: String,
    /// Rows first.
    pub shape: Vec<u64>,
    /// Type of the data.
    pub ty: GgmlType,
}

/// A tensor to be written whose length is given: the way to copy one of a type without a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizedTensor {
    /// Name, shape, type.
    pub spec: TensorSpec,
    /// Bytes of the data. Of a type with a known size it must be that size.
    pub byte_len: u64,
}

impl From<&TensorInfo> for TensorSpec {
    fn from(info: &TensorInfo) -> Self {
        Self { name: info.name().into(), shape: info.shape().to_vec(), ty: info.ggml_type() }
    }
}

impl From<&TensorInfo> for SizedTensor {
    fn from(info: &TensorInfo) -> Self {
        Self { spec: info.into(), byte_len: info.byte_len() }
    }
}

/// Where one tensor's data goes.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) byte_len: u64,
}

/// A checked plan of a GGUF v3 file: header and sizes, as ggml's strict reader takes it. Tensors follow one another in the given order,
/// each padded to the alignment, the last one too.
///
/// Files are little endian unless [`WritePlan::in_order`] says otherwise.
///
/// [`WritePlan::file_len`] tells the size of the file before anything is written.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// Without the padding, which an alignment of 2^31 makes large.
    pub(crate) header: Vec<u8>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) alignment: u64,
    header_len: u64,
    file_len: u64,
}

impl WritePlan {
    /// Checks names, keys, shapes and sizes, and lays the header out. The alignment is `general.alignment` of `metadata`, 32 if absent.
    ///
    /// # Errors
    /// [`Error::Refused`], naming the key or tensor, for everything ggml's reader would refuse.
    pub fn new(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self> {
        let sized = tensors.iter().map(|spec| {
            let byte_len = element_count(&spec.shape).and_then(|n| spec.ty.bytes_for(n));
            (spec, byte_len)
        });
        Self::build(metadata, sized, ByteOrder::Little)
    }

    /// [`WritePlan::new`] with the length of each tensor's data given.
    pub fn sized(metadata: &Metadata, tensors: &[SizedTensor]) -> Result<Self> {
        Self::in_order(ByteOrder::Little, metadata, tensors)
    }

    /// [`WritePlan::sized`] of a file in the given byte order.
    ///
    /// The header is written in that order. The tensors' data are written as they are given: they must have the order of the file
    /// ([`swap_tensor_bytes`](crate::swap_tensor_bytes), [`Gguf::data_in`](crate::Gguf::data_in)).
    pub fn in_order(order: ByteOrder, metadata: &Metadata, tensors: &[SizedTensor]) -> Result<Self> {
        Self::build(metadata, tensors.iter().map(|t| (&t.spec, Some(t.byte_len))), order)
    }

    fn build<'a>(
        metadata: &Metadata,
        tensors: impl ExactSizeIterator<Item = (&'a TensorSpec, Option<u64>)>,
        order: ByteOrder,
    ) -> Result<Self> {
        let alignment = alignment(metadata)?;
        let mut header = Vec::new();
        header.extend_from_slice(b"GGUF");
        header.extend_from_slice(&order.u32_bytes(3));
        header.extend_from_slice(&order.u64_bytes(tensors.len() as u64));
        header.extend_from_slice(&order.u64_bytes(metadata.len() as u64));
        push_metadata(&mut header, metadata, order)?;
        let mut names = NameIndex::default();
        let mut slots: Vec<Slot> = Vec::with_capacity(tensors.len());
        let mut data_len = 0u64;
        for (spec, byte_len) in tensors {
            let byte_len = check_tensor(spec, byte_len)?;
            let name_at = |i| slots.get(i).map(|slot: &Slot| slot.name.as_str());
            if names.find(&spec.name, name_at).is_some() {
                return Err(refused_tensor(&spec.name, "the name is used twice"));
            }
            names.push(&spec.name, name_at);
            push_tensor(&mut header, spec, data_len, order);
            data_len = byte_len
                .checked_next_multiple_of(alignment)
                .and_then(|padded| data_len.checked_add(padded))
                .ok_or_else(|| refused_tensor(&spec.name, "the file would be larger than 2^64 bytes"))?;
            slots.push(Slot { name: spec.name.clone(), byte_len });
        }
        // Without tensors there is no data section and nothing to align.
        let header_len = match slots.is_empty() {
            true => header.len() as u64,
            false => (header.len() as u64).next_multiple_of(alignment),
        };
        let file_len = header_len
            .checked_add(data_len)
            .filter(|&len| i64::try_from(len).is_ok())
            .ok_or_else(|| refused("file", "it would be larger than 2^63 bytes"))?;
        Ok(Self { header, slots, alignment, header_len, file_len })
    }

    /// Bytes before the data of the first tensor, padding included.
    pub fn header_len(&self) -> u64 {
        self.header_len
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The file in memory, from the data of each tensor.
    ///
    /// ```
    /// use gguf_format::{GgmlType, Gguf, Limits, Metadata, TensorSpec, WritePlan};
    /// let spec = TensorSpec { name: "w".into(), shape: vec![2, 3], ty: GgmlType::F32 };
    /// let bytes = WritePlan::new(&Metadata::new(), &[spec])?.to_bytes(&[&[0; 24]])?;
    /// assert_eq!(Gguf::parse(bytes, &Limits::default())?.tensors()[0].shape(), [2, 3]);
    /// # Ok::<(), gguf_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] if the number of tensors or the length of one differs from the plan.
    pub fn to_bytes(&self, data: &[&[u8]]) -> Result<Vec<u8>> {
        if data.len() != self.slots.len() {
            return Err(refused("file", format!("{} tensors planned, {} given", self.slots.len(), data.len())));
        }
        if usize::try_from(self.file_len).is_err() {
            return Err(refused("file", format!("{} bytes do not fit in memory", self.file_len)));
        }
        let mut out = self.header.clone();
        out.resize(self.header_len as usize, 0);
        for (slot, data) in self.slots.iter().zip(data) {
            if data.len() as u64 != slot.byte_len {
                let reason = format!("{} bytes planned, {} given", slot.byte_len, data.len());
                return Err(refused_tensor(&slot.name, reason));
            }
            out.extend_from_slice(data);
            let padded = (out.len() as u64).next_multiple_of(self.alignment);
            out.resize(padded as usize, 0);
        }
        Ok(out)
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(value) => alignment_of(value).ok_or_else(|| {
            refused_key(ALIGNMENT_KEY, format!("must be {ALIGNMENT_RULE}, is {} {value:.4}", value.value_type()))
        }),
    }
}

fn push_metadata(header: &mut Vec<u8>, metadata: &Metadata, order: ByteOrder) -> Result<()> {
    let limits = Limits::default();
    for (key, value) in metadata.iter() {
        if key.is_empty() {
            return Err(refused("key", "a key must not be empty"));
        }
        if key.len() as u64 > limits.key_bytes {
            return Err(refused("key", format!("{} bytes long, at most {} can be", key.len(), limits.key_bytes)));
        }
        match value.view() {
            ValueView::Str(s) if s.len() as u64 > limits.string_bytes => {
                return Err(refused_key(key, "a string of more than 2^30 bytes"));
            }
            ValueView::Array(a) if a.len() as u64 > limits.array_elements => {
                return Err(refused_key(key, "an array of more than 2^30 elements"));
            }
            ValueView::Array(a) if a.element_type() == ValueType::ARRAY => {
                return Err(refused_key(key, "an array of arrays, which ggml's reader does not take"));
            }
            _ => {}
        }
        push_str(header, key, order);
        header.extend_from_slice(&order.u32_bytes(value.value_type().0));
        match order {
            ByteOrder::Little => header.extend_from_slice(value.as_le_bytes()),
            ByteOrder::Big => recode(value.value_type(), value.as_le_bytes(), Encoding::default(), order, header)?,
        }
    }
    Ok(())
}

/// The length of the data.
fn check_tensor(spec: &TensorSpec, byte_len: Option<u64>) -> Result<u64> {
    let TensorSpec { name, shape, ty } = spec;
    let limits = Limits::default();
    let refuse = |reason: String| Err(refused_tensor(name, reason));
    if name.len() as u64 > limits.name_bytes {
        return refuse(format!("a name of {} bytes; ggml takes at most {}", name.len(), limits.name_bytes));
    }
    if name.contains('\0') {
        return refuse("a NUL in the name, where ggml's would end".into());
    }
    if shape.len() > limits.dims as usize {
        return refuse(format!("{} dimensions; ggml takes at most {}", shape.len(), limits.dims));
    }
    let Some(count) = element_count(shape) else {
        return refuse(format!("the product of {shape:?} is above 2^63 - 1"));
    };
    let Some(layout) = ty.layout() else {
        return match byte_len {
            Some(len) => Ok(len),
            None => refuse(format!("the size of {ty} is not known")),
        };
    };
    let row_len = shape.last().copied().unwrap_or(1);
    if !row_len.is_multiple_of(layout.block_len.into()) {
        return refuse(format!("rows of {row_len} values are not whole blocks of {} for {ty}", layout.block_len));
    }
    match (ty.bytes_for(count), byte_len) {
        (Some(needed), Some(given)) if needed != given => {
            refuse(format!("{shape:?} of {ty} are {needed} bytes, {given} given"))
        }
        (Some(needed), _) => Ok(needed),
        (None, _) => refuse(format!("{shape:?} of {ty} are more than 2^64 bytes")),
    }
}

fn push_tensor(header: &mut Vec<u8>, spec: &TensorSpec, offset: u64, order: ByteOrder) {
    push_str(header, &spec.name, order);
    header.extend_from_slice(&order.u32_bytes(spec.shape.len() as u32));
    for &dim in spec.shape.iter().rev() {
        header.extend_from_slice(&order.u64_bytes(dim));
    }
    header.extend_from_slice(&order.u32_bytes(spec.ty.id()));
    header.extend_from_slice(&order.u64_bytes(offset));
}

fn push_str(header: &mut Vec<u8>, s: &str, order: ByteOrder) {
    header.extend_from_slice(&order.u64_bytes(s.len() as u64));
    header.extend_from_slice(s.as_bytes());
}

pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Refused { what: what.into(), reason: reason.into() }
}

fn refused_key(key: &str, reason: impl Into<String>) -> Error {
    refused(format!("key `{key}`"), reason)
}

pub(crate) fn refused_tensor(name: &str, reason: impl Into<String>) -> Error {
    refused(format!("tensor `{name}`"), reason)
}
