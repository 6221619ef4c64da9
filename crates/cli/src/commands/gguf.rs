//! `quant gguf`: a model to a GGUF file of few bits.

use super::layerwise::CalibrationArgs;
use super::quantized::{print_report, run_plan};
use crate::error::{CliError, CliResult};
use crate::progress;
use gguf_format::GgmlType;
use gguf_format::mix::{FileType, MixOptions, TypeOverride};
use quant_runtime::Checkpoint;
use quant_runtime::convert::ModelSource;
use quant_runtime::fold::Folds;
use quant_runtime::layerwise::search_awq_scales;
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan, awq_options};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Quantize a model to a GGUF file, as llama-quantize does.
///
/// MODEL is a directory with safetensors or a GGUF file. Every tensor gets the type that llama-quantize gives it in the mix asked for;
/// --dry-run shows which, and why.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// Where the result goes.
    out: PathBuf,
    /// The mix: Q4_K_M, Q8_0, Q2_K, ..., case ignored (Q3_K, Q4_K, Q5_K mean their _M).
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_file_type)]
    file_type: FileType,
    /// Importance matrix of llama.cpp, or statistics of `quant calibrate`.
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Give tensors whose name matches REGEX this type; the first that matches wins over the mix.
    #[arg(long, value_name = "REGEX=TYPE", value_parser = parse_override)]
    tensor_type: Vec<TypeOverride>,
    /// Type of output.weight.
    #[arg(long, value_name = "TYPE", value_parser = parse_tensor_type)]
    output_tensor_type: Option<GgmlType>,
    /// Type of token_embd.weight.
    #[arg(long, value_name = "TYPE", value_parser = parse_tensor_type)]
    token_embedding_type: Option<GgmlType>,
    /// Give every tensor the mix's main type.
    #[arg(long)]
    pure: bool,
    /// Copy output.weight as it is.
    #[arg(long)]
    leave_output_tensor: bool,
    /// Take a source that is quantized already; its errors add up.
    #[arg(long)]
    allow_requantize: bool,
    /// Show each tensor's type and the file's size; write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Measure how far each tensor is from its source: NMSE, and NMSE weighted by the importance.
    #[arg(long)]
    errors: bool,
    /// First search AWQ's scales on the calibration text and fold them into the model, which leaves it the same in full precision.
    #[arg(long, requires = "calibration")]
    awq_scales: bool,
    #[command(flatten)]
    calibration: CalibrationArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let checkpoint = Checkpoint::open(&self.model)?;
        let source = ModelSource::open(&checkpoint)?;
        let mut mix = MixOptions::new(self.file_type);
        mix.overrides = self.tensor_type;
        mix.output_type = self.output_tensor_type;
        mix.token_embedding_type = self.token_embedding_type;
        mix.pure = self.pure;
        mix.keep_output = self.leave_output_tensor;
        let mut options = QuantizeOptions::new(mix);
        options.importance = self.imatrix.as_ref().map(Importance::open).transpose()?;
        options.allow_requantize = self.allow_requantize;
        options.measure_errors = self.errors;
        let mut plan = QuantizePlan::new(&source, options.clone())?;
        if self.awq_scales && !self.dry_run {
            plan.ready()?;
            options.folds = awq_scales(&checkpoint, &plan, &self.calibration)?;
            plan = QuantizePlan::new(&source, options)?;
        }
        if let Some(ty) = plan.requantizes().next().filter(|_| self.allow_requantize) {
            eprintln!("warning: the source is {ty} already; the errors of both add up");
        }
        if let (true, Err(e)) = (self.dry_run, plan.ready()) {
            eprintln!("warning: without --dry-run this is refused: {e}");
        }
        let report = if self.dry_run { plan.dry_run() } else { run_plan(plan, &self.out)? };
        for name in &report.without_importance {
            // The embedding is a table, not a product: no statistics exist for it.
            if name != "token_embd.weight" && name != "output.weight" {
                eprintln!("warning: no importance for `{name}`");
            }
        }
        print_report(&report, self.json, self.dry_run || self.errors)
    }
}

/// The scales that serve the types of the plan best.
fn awq_scales(checkpoint: &Checkpoint, plan: &QuantizePlan<'_>, calibration: &CalibrationArgs) -> CliResult<Folds> {
    let types: BTreeMap<&str, GgmlType> = plan.types().collect();
    let Some(set) = calibration.sequences(checkpoint, 512)? else { return Ok(Folds::new()) };
    const STEPS: usize = 1000;
    let bar = progress::bar("scales", STEPS);
    let grid_of = |name: &str| types.get(name).and_then(|ty| awq_options(*ty));
    let folds = search_awq_scales(checkpoint, &grid_of, &set, &mut |p| {
        bar.set_position((p.done * STEPS as f64) as u64);
        bar.set_message(format!("layer {}", p.layer));
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    Ok(folds)
}

fn parse_file_type(name: &str) -> Result<FileType, String> {
    let writable = |t: &FileType| t.default_type().is_some_and(gguf_format::blocks::can_quantize);
    FileType::from_name(name).filter(writable).ok_or_else(|| {
        let names: Vec<_> = FileType::KNOWN.iter().filter(|t| writable(t)).map(ToString::to_string).collect();
        format!("the types are {}", names.join(", "))
    })
}

fn parse_tensor_type(name: &str) -> Result<GgmlType, String> {
    let writable = |t: &GgmlType| gguf_format::blocks::can_quantize(*t);
    GgmlType::from_name(name).filter(writable).ok_or_else(|| {
        let names: Vec<_> = GgmlType::KNOWN.iter().filter(|t| writable(t)).map(ToString::to_string).collect();
        format!("the tensor types are {}", names.join(", "))
    })
}

fn parse_override(text: &str) -> Result<TypeOverride, String> {
    if let Some((_, name)) = text.rsplit_once('=') {
        parse_tensor_type(name)?;
    }
    text.parse::<TypeOverride>().map_err(|e| e.to_string())
}

impl From<gguf_format::Error> for CliError {
    fn from(e: gguf_format::Error) -> Self {
        Self::Failed(e.to_string())
    }
}
