//! Safetensors files that are written and read piece by piece, for data larger than memory: logits and input statistics.
//!
//! Models are read through a memory map instead, see [`crate::checkpoint`].

mod reader;
mod writer;

pub use reader::{SafetensorsReader, TensorEntry};
pub(crate) use writer::RawSpec;
pub use writer::{SafetensorsWriter, TensorSpec};

/// Element types that the streamed files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
}

impl Dtype {
    /// As the header spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I32 => "I32",
            Self::I64 => "I64",
        }
    }

    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F64, Self::I32, Self::I64].into_iter().find(|d| d.name() == name)
    }
}
