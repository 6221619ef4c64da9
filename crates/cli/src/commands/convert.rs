//! `quant convert`: a directory to a GGUF file: a dense one in full or half precision, a packed one with its codes.

use super::quantized::{print_report, run_plan};
use crate::error::{CliError, CliResult};
use crate::output::to_stdout;
use gguf_format::GgmlType;
use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::Checkpoint;
use quant_runtime::convert::{AsBlocks, ModelSource, Place};
use quant_runtime::quantize::{QuantizeOptions, QuantizePlan};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Convert a directory with safetensors to a GGUF file without quantizing it.
///
/// Tokenizer, chat template and hyper-parameters go into the file. Norms and biases are F32 always. The modules of a GPTQ, AWQ or compressed-tensors
/// directory keep their codes, as Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0, where such a block holds them; the others become F16.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory with config.json, safetensors and the tokenizer.
    dir: PathBuf,
    /// Where the result goes.
    out: PathBuf,
    /// Type of the matrices that do not keep their codes [default: the type they have, F16 for packed ones].
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
        let given = self.ty.map(|ty| match ty {
            Type::F32 => FileType::F32,
            Type::F16 => FileType::F16,
            Type::Bf16 => FileType::BF16,
        });
        let plan = if source.is_packed() {
            QuantizePlan::unchanged(&source, given)?
        } else {
            let prevailing = match source.prevailing_type() {
                Some(GgmlType::F16) => FileType::F16,
                Some(GgmlType::BF16) => FileType::BF16,
                _ => FileType::F32,
            };
            let mix = MixOptions::new(given.unwrap_or(prevailing));
            QuantizePlan::new(&source, QuantizeOptions::new(mix))?
        };
        let report = run_plan(plan, &self.out)?;
        if !self.json {
            print_packed(&source)?;
            print_activations(&checkpoint)?;
        }
        print_report(&report, self.json, false)
    }
}

/// What GGUF cannot say.
fn print_activations(checkpoint: &Checkpoint) -> CliResult {
    let Checkpoint::HfDir(dir) = checkpoint else { return Ok(()) };
    let summary = dir.packed()?.map(|packed| packed.config().summary());
    match summary.and_then(|summary| summary.activations) {
        None => Ok(()),
        Some(how) => to_stdout(|out| writeln!(out, "activations ({how}) are left to the reader: GGUF does not say")),
    }
}

/// What became of the modules of a packed directory.
fn print_packed(source: &ModelSource) -> CliResult {
    let mut kept: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    let mut by_value: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in &source.tensors {
        match &tensor.place {
            Place::Packed { as_blocks: AsBlocks::Codes(rounding), .. } => {
                let entry = kept.entry(tensor.stored.to_string()).or_default();
                *entry = (entry.0 + 1, entry.1.max(rounding.nmse));
            }
            Place::Packed { as_blocks: AsBlocks::Values(why), .. } => *by_value.entry(why).or_default() += 1,
            _ => {}
        }
    }
    to_stdout(|out| {
        for (ty, (count, nmse)) in &kept {
            let cost = match *nmse {
                0.0 => "exact".to_owned(),
                nmse => format!("scales or minima rounded to F16, NMSE at most {nmse:.1e}"),
            };
            writeln!(out, "{count} matrices keep their codes as {ty}: {cost}")?;
        }
        for (why, count) in &by_value {
            writeln!(out, "{count} matrices by value: {why}")?;
        }
        Ok(())
    })
}
