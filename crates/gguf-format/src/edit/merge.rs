//! Merging the parts of a split into one file.

use super::split::KEYS;
use super::{Edit, EditedTensor};
use crate::plan::refused;
use crate::splits::SPLIT_COUNT;
use crate::{GgufSplits, Result, TensorInfo};
use std::borrow::Cow;

impl<'a> Edit<'a> {
    /// One file of the parts of a split: the keys of the first without `split.*`, the tensors of all. What was split here or by gguf-split (from
    /// a file without keys `split.*`) comes back to the byte.
    ///
    /// gguf-split keeps the three keys and sets `split.count` to 0 when it merges; here they go.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) for a file that is no part of a split, and where a later part has a key otherwise than the first,
    /// whose value would be lost. That the parts belong together is checked when they are opened ([`GgufSplits::from_parts`]).
    pub fn merge<S: AsRef<[u8]>>(model: &'a GgufSplits<S>) -> Result<Self> {
        if model.metadata().get_u64(SPLIT_COUNT)?.unwrap_or(0) == 0 {
            return Err(refused("file", format!("no part of a split: no key `{SPLIT_COUNT}` above 0")));
        }
        let mut metadata = model.metadata().clone();
        for key in KEYS {
            metadata.remove(key);
        }
        for (no, part) in model.parts().iter().enumerate() {
            for (key, value) in part.metadata().iter().filter(|(key, _)| !KEYS.contains(key)) {
                if metadata.get(key) != Some(value) {
                    let reason = format!("part {} has it otherwise than the first", no + 1);
                    return Err(refused(format!("key `{key}`"), reason));
                }
            }
        }
        let byte_order = model.byte_order();
        let tensor =
            |info: &TensorInfo| EditedTensor { spec: info.into(), data: Cow::Borrowed(model.data(info)), byte_order };
        Ok(Self { byte_order, metadata, tensors: model.tensors().iter().map(tensor).collect() })
    }
}
