//! GPTQ directories: [`crate::packed_dir`] under the names that it had when it wrote nothing else.

pub use crate::packed_dir::{PackedDirWriter as GptqDirWriter, PackedPart as GptqPart};
