//! `quant convert`: a dense directory to a GGUF file of full or half precision.

use super::quantized::{print_report, run_plan};
use crate::error::{CliError, CliResult};
use gguf_format::GgmlType;
use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::Checkpoint;
use quant_runtime::convert::ModelSource;
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use std::path::PathBuf;

/// Convert a directory with safetensors to a GGUF file without quantizing it.
///
/// Tokenizer, chat template and hyper-parameters go into the file. Norms and biases are F32 always.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory with config.json, safetensors and the tokenizer.
    dir: PathBuf,
    /// Where the result goes.
    out: PathBuf,
    /// Type of the matrices [default: the type they have].
    #[arg(long = "type", value_name = "TYPE", value_enum, ignore_case = true)]
    ty: Option<Type>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Type {
    F32,
    F16,
    Bf16,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let checkpoint = Checkpoint::open(&self.dir)?;
        if let Checkpoint::Gguf(_) = checkpoint {
            let dir = self.dir.display();
            return Err(CliError::Usage(format!("{dir} is a GGUF file already; `quant gguf` changes its type")));
        }
        let source = ModelSource::open(&checkpoint)?;
        let file_type = match (self.ty, source.prevailing_type()) {
            (Some(Type::F32), _) => FileType::F32,
            (Some(Type::F16), _) => FileType::F16,
            (Some(Type::Bf16), _) => FileType::BF16,
            (None, Some(GgmlType::F16)) => FileType::F16,
            (None, Some(GgmlType::BF16)) => FileType::BF16,
            (None, _) => FileType::F32,
        };
        let plan = QuantizePlan::new(&source, QuantizeOptions::new(MixOptions::new(file_type)))?;
        let report = run_plan(plan, &self.out)?;
        print_report(&report, self.json, false)
    }
}
