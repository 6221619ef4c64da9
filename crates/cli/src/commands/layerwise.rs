//! What the commands that quantize a directory layer by layer have in common: their calibration, their output.

use crate::error::{CliError, CliResult};
use crate::input::{self, PlacementArg};
use crate::output::{print_json, to_stdout};
use crate::{progress, table};
use gptq::Bits;
use gptq::checkpoint::DynamicRule;
use quant_runtime::calibrate::CalibrationSet;
use quant_runtime::layerwise::{LayerwisePlan, LayerwiseReport, ModuleReport, Rounding, quantize_model};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What the model is calibrated on.
#[derive(clap::Args, Debug)]
pub(super) struct CalibrationArgs {
    /// Text to calibrate on, UTF-8; or .jsonl: lines with `text`, or with `input_ids` (one sequence each).
    #[arg(long, value_name = "TEXT")]
    calibration: Option<PathBuf>,
    /// Sequences of it.
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,
    /// Tokens of a sequence [default: 2048 for GPTQ, 512 for others, or the model's context if that is shorter].
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Where in the text the sequences lie.
    #[arg(long, value_enum, default_value = "spread")]
    sample_from: PlacementArg,
    /// The most that one token's activations count, in medians of their sequence's squared norms; 0: all in full. The first token of a sequence often
    /// has some a thousand times those of others.
    #[arg(long, value_name = "X", default_value_t = 4.0)]
    row_limit: f32,
}

impl CalibrationArgs {
    /// The sequences, of `seq_len` tokens unless said otherwise; `None` without a text.
    pub(super) fn sequences(&self, checkpoint: &Checkpoint, seq_len: usize) -> CliResult<Option<CalibrationSet>> {
        let Some(path) = &self.calibration else { return Ok(None) };
        let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
        let seq_len = match self.seq_len {
            Some(seq_len) => seq_len,
            None => seq_len.min(checkpoint.config()?.max_context),
        };
        let set = input::calibration_set(path, &tokenizer, self.samples, seq_len, self.sample_from)?;
        set.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(Some(set))
    }
}

/// Where the result goes, and what is left out.
#[derive(clap::Args, Debug)]
pub(super) struct OutputArgs {
    /// Leave modules whose name matches REGEX from its start in full precision.
    #[arg(long, value_name = "REGEX", value_parser = parse_skip)]
    pub(super) skip: Vec<DynamicRule>,
    /// Start anew, even if an earlier run was cut short.
    #[arg(long)]
    no_resume: bool,
    /// Replace OUT if it holds a model.
    #[arg(long)]
    overwrite: bool,
    /// Write the report (JSON) to this file too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// `None` for all columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupSize(pub(super) Option<usize>);

/// Runs the plan, with a progress bar called `title`, and prints the report.
pub(super) fn run(
    title: &str,
    mut plan: LayerwisePlan,
    model: &Path,
    out: &Path,
    calibration: &CalibrationArgs,
    output: &OutputArgs,
    seq_len: usize,
) -> CliResult {
    plan.row_limit = Some(calibration.row_limit).filter(|&limit| limit > 0.0);
    plan.overwrite = output.overwrite;
    plan.resume = !output.no_resume;
    if plan.calibrates() && calibration.calibration.is_none() {
        return Err(CliError::Usage("--calibration TEXT is needed".to_owned()));
    }
    let set = calibration.sequences(&Checkpoint::open(model)?, seq_len)?;
    const STEPS: usize = 1000;
    let bar = progress::bar(title, STEPS);
    let report = quantize_model(model, out, &plan, set.as_ref(), &mut |p| {
        bar.set_position((p.done * STEPS as f64) as u64);
        bar.set_message(format!("layer {}", p.layer));
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    for module in &report.modules {
        if let Some(why) = module.fallback.as_ref().filter(|_| !matches!(plan.rounding, Rounding::Nearest(_))) {
            eprintln!("warning: `{}` was rounded to nearest: {why}", module.name);
        }
    }
    let json = to_json(&report);
    if let Some(path) = &output.report {
        let text = format!("{json:#}\n");
        std::fs::write(path, text).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    }
    if output.json {
        return print_json(&json);
    }
    to_stdout(|out| {
        write!(out, "{}", modules_table(&report.modules))?;
        writeln!(
            out,
            "{}: {} bytes, {:.2} bits per weight, {:.1} s",
            report.out.display(),
            report.bytes,
            report.bits_per_weight,
            report.seconds
        )
    })
}

fn modules_table(modules: &[ModuleReport]) -> String {
    let header = ["module", "bits", "group", "loss", "NMSE", "damping", "clipped", "seconds", ""];
    let row = |m: &ModuleReport| {
        let loss = m.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3e}"));
        let damp = m.damp.map_or_else(|| "-".to_owned(), |damp| damp.to_string());
        let clipped = m.clipped_groups.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let (nmse, seconds) = (format!("{:.2e}", m.nmse), format!("{:.2}", m.seconds));
        let note = m.fallback.clone().unwrap_or_default();
        vec![m.name.clone(), m.bits.to_string(), m.group_size.to_string(), loss, nmse, damp, clipped, seconds, note]
    };
    table::render(&header, &modules.iter().map(row).collect::<Vec<_>>())
}

fn to_json(report: &LayerwiseReport) -> serde_json::Value {
    json!({
        "out": report.out, "bytes": report.bytes, "bits_per_weight": report.bits_per_weight, "seconds": report.seconds,
        "resumed_layers": report.resumed_layers, "smoothed_inputs": report.smoothed_inputs,
        "tensors": report.modules.iter().map(ModuleReport::to_json).collect::<Vec<_>>(),
    })
}

/// A width; which of them a layout has is checked with the plan.
pub(super) fn parse_bits(text: &str) -> Result<Bits, String> {
    text.parse().ok().and_then(Bits::new).ok_or_else(|| "2 to 8".to_owned())
}

/// A number of columns, or -1.
pub(super) fn parse_group_size(text: &str) -> Result<GroupSize, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(GroupSize(None)),
        Ok(size @ 1..=0x7fff_ffff) => Ok(GroupSize(Some(size as usize))),
        _ => Err("-1 or a positive number".to_owned()),
    }
}

fn parse_skip(pattern: &str) -> Result<DynamicRule, String> {
    DynamicRule::skip(pattern).map_err(|e| e.to_string())
}
