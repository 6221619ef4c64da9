//! Whole-model quantization to GGUF, streamed: peak memory is a few slabs of rows, whatever the model's size.
//!
//! [`QuantizePlan::new`] chooses every tensor's type and checks everything that can be checked without reading weights;
//! [`QuantizePlan::run`] reads, quantizes and writes at the same time. From a GGUF file of full precision the result is the file that
//! llama-quantize writes, byte for byte; from a Hugging Face directory there is no file in between.
//!
//! ```no_run
//! use gguf_format::mix::{FileType, MixOptions};
//! use quant_runtime::Checkpoint;
//! use quant_runtime::convert::ModelSource;
//! use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
//!
//! let source = ModelSource::open(&Checkpoint::open("models/my-llama")?)?;
//! let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(FileType::Q4_K_M)))?;
//! let report = plan.run("my-llama.Q4_K_M.gguf", &|_| std::ops::ControlFlow::Continue(()))?;
//! println!("{} bytes, {:.2} bits per weight", report.bytes, report.bits_per_weight);
//! # Ok::<(), quant_runtime::Error>(())
//! ```

mod grid;
mod importance;
mod pipeline;
mod plan;
mod report;
mod rows;

pub use grid::awq_options;
pub use importance::Importance;
pub use pipeline::Progress;
pub use plan::{QuantizeOptions, QuantizePlan};
pub use report::{QuantizeReport, TensorReport};
