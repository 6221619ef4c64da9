//! The methods of the table.

use crate::error::CliResult;
use gguf_format::mix::{FileType, MixOptions};
use gptq::Bits;
use quant_runtime::calibrate::CalibrationSet;
use quant_runtime::convert::ModelSource;
use quant_runtime::layerwise::{LayerwisePlan, quantize_model};
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

/// A way to few bits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// A GGUF mix, with importance weights or without.
    Gguf(FileType, bool),
    /// Bits and group size of a GPTQ directory.
    Gptq(Bits, usize),
    /// Of an AWQ directory.
    Awq(Bits, usize),
}

/// Of the table below; anything but 2 to 8 does not compile.
const fn bits(bits: u8) -> Bits {
    match Bits::new(bits) {
        Some(bits) => bits,
        None => panic!("bits of a code are 2 to 8"),
    }
}

/// In the order of the table.
pub(super) const METHODS: [Method; 11] = [
    Method::Gguf(FileType::F16, false),
    Method::Gguf(FileType::Q8_0, false),
    Method::Gguf(FileType::Q6_K, false),
    Method::Gguf(FileType::Q5_K_M, false),
    Method::Gguf(FileType::Q4_K_M, false),
    Method::Gguf(FileType::Q3_K_M, false),
    Method::Gguf(FileType::Q2_K, false),
    Method::Gguf(FileType::Q4_K_M, true),
    Method::Gptq(bits(4), 128),
    Method::Gptq(bits(2), 32),
    Method::Awq(bits(4), 128),
];

/// What was made.
pub(super) struct Made {
    pub(super) bytes: u64,
    pub(super) bits_per_weight: f64,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(level, false) => write!(f, "{level}"),
            Self::Gguf(level, true) => write!(f, "{level} with imatrix"),
            Self::Gptq(bits, group) => write!(f, "GPTQ {bits} bits g{group}"),
            Self::Awq(bits, group) => write!(f, "AWQ {bits} bits g{group}"),
        }
    }
}

impl Method {
    /// Of the file or the directory.
    pub(super) fn file_name(self) -> String {
        let name = format!("pocket-6m.{}", self.to_string().replace(' ', "-"));
        match self {
            Self::Gguf(..) => name + ".gguf",
            _ => name,
        }
    }

    /// Quantizes the model in `dir`, which `source` describes, to `out`.
    pub(super) fn run(
        self,
        dir: &Path,
        source: &ModelSource,
        set: &CalibrationSet,
        importance: &Importance,
        out: &Path,
    ) -> CliResult<Made> {
        let mut plan = match self {
            Self::Gguf(level, with_importance) => {
                let mut options = QuantizeOptions::new(MixOptions::new(level));
                options.importance = with_importance.then(|| importance.clone());
                let report = QuantizePlan::new(source, options)?.run(out, &|_| ControlFlow::Continue(()))?;
                return Ok(Made { bytes: report.bytes, bits_per_weight: report.bits_per_weight });
            }
            Self::Gptq(bits, group) => LayerwisePlan::gptq(gptq::Options::new(bits, Some(group))),
            Self::Awq(bits, group) => LayerwisePlan::awq(awq::Options::new(bits, Some(group))),
        };
        // A second run into the same folder replaces files too.
        plan.overwrite = true;
        let report = quantize_model(dir, out, &plan, Some(set), &mut |_| ControlFlow::Continue(()))?;
        Ok(Made { bytes: report.bytes, bits_per_weight: report.bits_per_weight })
    }
}
