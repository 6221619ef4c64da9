//! Memory for the weights of a model, in large pages where the system has them.

use crate::{Error, Result};
use memmap2::MmapMut;
use std::ops::Range;
use std::sync::Arc;

/// Where one begins: at a cache line.
const ALIGNMENT: usize = 64;

/// One run of anonymous memory. Zeros at first; what is not written takes no memory.
///
/// Linux is asked for pages of 2 MB: a processor follows a run of memory to the end of a page and begins anew at the next, and reads weights from large
/// pages about 1.7 times as quickly as from pages of 4 kB, which files are mapped in.
#[derive(Debug)]
pub(super) struct WeightMemory(MmapMut);

impl WeightMemory {
    /// # Errors
    /// [`Error::Usage`] if the system does not give so much.
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let map = MmapMut::map_anon(bytes.max(1))
            .map_err(|e| Error::Usage(format!("no memory for {bytes} bytes of weights: {e}")))?;
        // Without large pages it is only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }

    /// What a part of so many bytes takes.
    pub(super) fn padded(bytes: usize) -> usize {
        bytes.next_multiple_of(ALIGNMENT)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A part of the memory.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) memory: Arc<WeightMemory>,
    pub(super) range: Range<usize>,
}

impl Part {
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.0.get(self.range.clone()).unwrap_or_default()
    }
}
