//! GPTQ directories: a model of a Hugging Face directory whose linear layers are stored as [`gptq::checkpoint`] has them.

mod writer;

pub use writer::{GptqDirWriter, GptqPart};
