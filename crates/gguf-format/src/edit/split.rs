//! Splitting a file into parts that llama.cpp loads as one model.

use super::{Edit, EditedTensor, plan, write_data};
use crate::plan::refused;
use crate::splits::{SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS, split_ending};
use crate::{ByteOrder, GgufWriter, Metadata, Result, WritePlan};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The keys of a split, in the order in which llama.cpp's gguf-split leaves them.
pub(super) const KEYS: [&str; 3] = [SPLIT_NO, SPLIT_TENSORS, SPLIT_COUNT];

/// When a part is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitLimit {
    /// At this number of tensors.
    Tensors(u64),
    /// Before the data of its tensors, each padded, are more than this many bytes. A tensor that is larger on its own gets a part of its own.
    Bytes(u64),
}

/// How a file is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitRule {
    /// When a part is full.
    pub limit: SplitLimit,
    /// The first part holds the metadata alone, so that it is small.
    pub no_tensors_in_first: bool,
}

/// A part of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it goes.
    pub path: PathBuf,
    /// Its tensors, as places in [`Edit::tensors`].
    pub tensors: Range<usize>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A planned split: every part checked and its size known, nothing written yet.
#[derive(Debug)]
pub struct Split<'e, 'a> {
    byte_order: ByteOrder,
    tensors: &'e [EditedTensor<'a>],
    parts: Vec<(Range<usize>, WritePlan)>,
}

impl<'a> Edit<'a> {
    /// Plans a split as llama.cpp's gguf-split makes it: tensors in order, the metadata in the first part only, and in every part the keys
    /// `split.no`, `split.tensors.count` and `split.count` (last, and anew where the file has them already).
    ///
    /// Source: tools/gguf-split/gguf-split.cpp of llama.cpp 0c1e57098. It pads every part to 32; here the first part has the alignment of
    /// the metadata, as its reader expects, and so have the others only if that is 32, since they do not hold the key.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) for a limit of 0, more than 65,535 parts, more than 2^31 - 1 tensors, or what
    /// [`Edit::plan`] refuses.
    pub fn split(&self, rule: SplitRule) -> Result<Split<'_, 'a>> {
        let total = i32::try_from(self.tensors.len())
            .map_err(|_| refused("split", format!("{} tensors, more than {}", self.tensors.len(), i32::MAX)))?;
        let ranges = self.ranges(rule)?;
        let count = u16::try_from(ranges.len())
            .map_err(|_| refused("split", format!("{} parts, more than {}", ranges.len(), u16::MAX)))?;
        let mut metadata = self.metadata.clone();
        for key in KEYS {
            metadata.remove(key);
        }
        let mut parts = Vec::with_capacity(ranges.len());
        for (no, range) in (0..count).zip(ranges) {
            if no > 0 {
                metadata = Metadata::new();
            }
            metadata.set(SPLIT_NO, no);
            metadata.set(SPLIT_TENSORS, total);
            metadata.set(SPLIT_COUNT, count);
            let plan = plan(self.byte_order, &metadata, self.tensors.get(range.clone()).unwrap_or_default())?;
            parts.push((range, plan));
        }
        Ok(Split { byte_order: self.byte_order, tensors: &self.tensors, parts })
    }

    fn ranges(&self, rule: SplitRule) -> Result<Vec<Range<usize>>> {
        if matches!(rule.limit, SplitLimit::Tensors(0) | SplitLimit::Bytes(0)) {
            return Err(refused("split", "a limit of 0"));
        }
        let alignment = self.plan()?.alignment;
        let mut ranges = Vec::new();
        if rule.no_tensors_in_first {
            ranges.push(0..0);
        }
        let (mut start, mut bytes) = (0, 0u64);
        for (at, tensor) in self.tensors.iter().enumerate() {
            // The plan is made, so that no sum of padded lengths overflows.
            let padded = (tensor.data.len() as u64).next_multiple_of(alignment);
            let full = match rule.limit {
                SplitLimit::Tensors(limit) => (at - start) as u64 >= limit,
                SplitLimit::Bytes(limit) => at > start && bytes + padded > limit,
            };
            if full {
                ranges.push(start..at);
                (start, bytes) = (at, 0);
            }
            bytes += padded;
        }
        if start < self.tensors.len() || ranges.is_empty() {
            ranges.push(start..self.tensors.len());
        }
        Ok(ranges)
    }
}

impl Split<'_, '_> {
    /// The parts as they will be written with this prefix: `PREFIX-00001-of-00003.gguf` and so on.
    pub fn parts(&self, prefix: impl AsRef<Path>) -> Vec<Part> {
        let path = |no: usize| {
            let mut path = prefix.as_ref().as_os_str().to_owned();
            path.push(split_ending(no as u64, self.parts.len() as u64));
            path.into()
        };
        let part = |(no, (tensors, plan)): (usize, &(Range<usize>, WritePlan))| Part {
            path: path(no),
            tensors: tensors.clone(),
            bytes: plan.file_len(),
        };
        self.parts.iter().enumerate().map(part).collect()
    }

    /// Writes the parts: all to temporary files first, and only when every one is complete and synced they get their names, so that an error
    /// on the way leaves what is there as it was.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) for a target that is not a regular file, [`Error::Io`](crate::Error::Io).
    pub fn write(&self, prefix: impl AsRef<Path>) -> Result<Vec<Part>> {
        let parts = self.parts(prefix);
        let mut complete = Vec::with_capacity(parts.len());
        for (part, (range, plan)) in parts.iter().zip(&self.parts) {
            let mut writer = GgufWriter::from_plan(&part.path, plan.clone())?;
            write_data(&mut writer, self.byte_order, self.tensors.get(range.clone()).unwrap_or_default())?;
            complete.push(writer.complete()?);
        }
        complete.into_iter().try_for_each(|file| file.publish().map(drop))?;
        Ok(parts)
    }
}
