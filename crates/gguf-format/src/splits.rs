//! A model in several files, as llama.cpp's gguf-split cuts it: `NAME-00001-of-00003.gguf`.

use crate::name_index::NameIndex;
use crate::parse::Part;
use crate::{ByteOrder, Departure, Error, Gguf, Metadata, Result, TensorInfo};
use alloc::borrow::Cow;
use alloc::format;
#[cfg(feature = "std")]
use alloc::string::String;
use alloc::vec::Vec;

/// The number of this part, from 0: u16.
pub(crate) const SPLIT_NO: &str = "split.no";
/// The number of parts: u16.
pub(crate) const SPLIT_COUNT: &str = "split.count";
/// The number of tensors of all parts: i32.
pub(crate) const SPLIT_TENSORS: &str = "split.tensors.count";

/// The files of a model as one: a single file, or all parts of a split one.
///
/// Metadata are those of the first part; the others hold the keys `split.*` and tensors. The tensors of all parts are one list, and names are
/// unique over all of them ([`TensorInfo::part`] tells where a tensor is).
#[derive(Debug)]
pub struct GgufSplits<S> {
    parts: Vec<Gguf<S>>,
    tensors: Vec<TensorInfo>,
    index: NameIndex,
}

#[cfg(feature = "mmap")]
impl GgufSplits<crate::Mmap> {
    /// Maps a file, and where its key `split.count` is above 1 the other parts, which lie beside it and are named
    /// `NAME-00001-of-0000N.gguf` like it. `first` is the first part.
    ///
    /// # Errors
    /// Those of [`Gguf::open`] for each part, and of [`GgufSplits::from_parts`]; [`Error::InFile`] around [`Error::Refused`] for another part
    /// than the first, and for a name that does not tell the others.
    pub fn open(first: impl AsRef<std::path::Path>) -> Result<Self> {
        Self::open_with(first, &crate::Limits::default())
    }

    /// [`GgufSplits::open`] with other limits (for each part).
    pub fn open_with(first: impl AsRef<std::path::Path>, limits: &crate::Limits) -> Result<Self> {
        let path = first.as_ref();
        let gguf = Gguf::open_with(path, limits)?;
        let (no, count) = split_numbers(gguf.metadata()).map_err(|e| e.in_file(path))?;
        let Some(paths) = split_paths(path, no, count) else {
            let ending = split_ending(no, count);
            let reason = format!("part {} of {count} of a model, but its name does not end in `{ending}`", no + 1);
            return Err(crate::plan::refused("file", reason).in_file(path));
        };
        if no > 0 {
            let first = paths.first().map(|p| p.display().to_string()).unwrap_or_default();
            let reason = format!("part {} of {count} of a model; the first is `{first}`", no + 1);
            return Err(crate::plan::refused("file", reason).in_file(path));
        }
        let mut parts = Vec::from([gguf]);
        for path in paths.iter().skip(1) {
            parts.push(Gguf::open_with(path, limits)?);
        }
        Self::from_parts(parts).map_err(|e| e.in_file(path))
    }
}

/// How the name of a part ends; `no` counts from 0.
#[cfg(feature = "std")]
pub(crate) fn split_ending(no: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

/// The paths of all `count` parts of a model from that of part `no` (from 0), in order: `NAME-00001-of-0000N.gguf` and so on, in one folder.
/// A model of one part has any name. `None` where the name does not end as that of part `no` does.
#[cfg(feature = "std")]
pub fn split_paths(path: &std::path::Path, no: u64, count: u64) -> Option<Vec<std::path::PathBuf>> {
    if count == 1 {
        return Some(Vec::from([path.to_path_buf()]));
    }
    let stem = path.file_name()?.to_str()?.strip_suffix(&split_ending(no, count))?;
    Some((0..count).map(|no| path.with_file_name(format!("{stem}{}", split_ending(no, count)))).collect())
}

/// `split.no` and `split.count`; 0 and 1 for a file that is not a part.
fn split_numbers(metadata: &Metadata) -> Result<(u64, u64)> {
    let count = metadata.get_u64(SPLIT_COUNT)?.unwrap_or(1).max(1);
    let no = if count == 1 { metadata.get_u64(SPLIT_NO)?.unwrap_or(0) } else { metadata.need_u64(SPLIT_NO)? };
    match no < count && count <= u64::from(u16::MAX) {
        true => Ok((no, count)),
        false => Err(Error::KeyType {
            key: SPLIT_NO.into(),
            expected: "a number below `split.count`, which is a u16",
            found: format!("{no} of {count}"),
        }),
    }
}

impl<S: AsRef<[u8]>> GgufSplits<S> {
    /// One model from its parts, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the part: `split.no` or `split.count` that do not fit its place and the number of parts, another byte
    /// order than the first has, a tensor's name that another part has, or a number of tensors that is not `split.tensors.count`.
    pub fn from_parts(parts: Vec<Gguf<S>>) -> Result<Self> {
        let mut tensors: Vec<TensorInfo> = Vec::with_capacity(parts.iter().map(|p| p.tensors().len()).sum());
        let mut index = NameIndex::default();
        let mut order = ByteOrder::Little;
        for (no, gguf) in parts.iter().enumerate() {
            let (found_no, found_count) = split_numbers(gguf.metadata())?;
            let part_name = format!("part {} of {}", no + 1, parts.len());
            let part = Part::Named(&part_name);
            if (found_no, found_count) != (no as u64, parts.len() as u64) {
                let expected = format!("`split.no` {no} and `split.count` {}", parts.len());
                return Err(part.malformed(0, expected, format_args!("{found_no} and {found_count}")));
            }
            if no == 0 {
                order = gguf.byte_order();
            } else if gguf.byte_order() != order {
                return Err(part.malformed(4, format!("{order} endian, as the first part"), gguf.byte_order()));
            }
            for tensor in gguf.tensors() {
                let name_at = |i: usize| tensors.get(i).map(TensorInfo::name);
                if let Some(earlier) = index.find(tensor.name(), name_at).and_then(|i| tensors.get(i)) {
                    let found = format!("it in part {}, too", earlier.part() + 1);
                    return Err(part.malformed(
                        tensor.file_offset(),
                        format!("tensor `{}` once", tensor.name()),
                        found,
                    ));
                }
                index.push(tensor.name(), name_at);
                let mut tensor = tensor.clone();
                tensor.0.part = no as u32;
                tensors.push(tensor);
            }
        }
        if parts.len() > 1
            && let Some(first) = parts.first()
            && let Some(expected) = first.metadata().get_u64(SPLIT_TENSORS)?
            && expected != tensors.len() as u64
        {
            let part = Part::Named("the parts together");
            return Err(part.malformed(0, format!("{expected} tensors, as `{SPLIT_TENSORS}` says"), tensors.len()));
        }
        match parts.is_empty() {
            true => Err(crate::plan::refused("model", "no parts")),
            false => Ok(Self { parts, tensors, index }),
        }
    }

    /// The files, at least one.
    pub fn parts(&self) -> &[Gguf<S>] {
        &self.parts
    }

    fn first(&self) -> &Gguf<S> {
        // There is at least one.
        &self.parts[0]
    }

    /// Keys and values of the first part.
    pub fn metadata(&self) -> &Metadata {
        self.first().metadata()
    }

    /// Byte order of all parts.
    pub fn byte_order(&self) -> ByteOrder {
        self.first().byte_order()
    }

    /// The tensors of all parts, part after part.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// By name, O(1).
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(self.index.find(name, |i| self.tensors.get(i).map(TensorInfo::name))?)
    }

    /// By name, or [`Error::MissingTensor`].
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    /// [`Gguf::data`] of the part that the tensor is in; empty for a tensor of another model whose part is not there.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        self.parts.get(tensor.part() as usize).map_or(&[], |part| part.data(tensor))
    }

    /// [`Gguf::data_in`] of the part that the tensor is in.
    ///
    /// # Errors
    /// Those of [`Gguf::data_in`].
    pub fn data_in(&self, order: ByteOrder, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        self.parts.get(tensor.part() as usize).map_or(Ok(Cow::Borrowed(&[])), |part| part.data_in(order, tensor))
    }

    /// [`Gguf::departures`] of all parts.
    pub fn departures(&self) -> Vec<Departure> {
        self.parts.iter().flat_map(Gguf::departures).collect()
    }
}
