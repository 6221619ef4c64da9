//! `quant gptq`: a Hugging Face directory to a GPTQ directory.

use crate::error::{CliError, CliResult};
use crate::input::{self, PlacementArg};
use crate::output::{print_json, to_stdout};
use crate::{progress, table};
use clap::ValueEnum;
use gptq::checkpoint::{DynamicRule, Overrides, ZeroPoint};
use gptq::{Bits, Options, Order, ScaleSearch};
use quant_runtime::gptq_model::{GptqPlan, GptqReport, ModuleReport, quantize_model};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Quantize a model by GPTQ to a directory that transformers, GPTQModel and vLLM load.
///
/// The linear layers of the decoder are quantized, each with the error of those before it in view; embeddings, norms and the head stay as they are.
/// A run that is cut short goes on where it was when the same command is given again.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory with safetensors.
    model: PathBuf,
    /// Where the result goes: absent, or an empty directory.
    out: PathBuf,
    /// Bits of a weight: 2, 3, 4 or 8.
    #[arg(long, default_value = "4", value_parser = parse_bits)]
    bits: Bits,
    /// Weights of a row that share a scale; -1: all.
    #[arg(long, default_value = "128", allow_hyphen_values = true, value_parser = parse_group_size)]
    group_size: GroupSize,
    /// Order columns by falling activation. Readers then need a g_idx, which makes them slower.
    #[arg(long)]
    desc_act: bool,
    /// With --desc-act: fix the groups beforehand, so that no g_idx is needed.
    #[arg(long, requires = "desc_act")]
    static_groups: bool,
    /// Order columns as they stand.
    #[arg(long, conflicts_with = "desc_act")]
    natural_order: bool,
    /// Symmetric grids: the zero point is the middle. vLLM's fast kernel (Marlin) needs them, at 4 and 8 bits.
    #[arg(long)]
    sym: bool,
    /// Added to the Hessian's diagonal, as a part of its mean; raised where that is too little.
    #[arg(long, default_value_t = 0.01)]
    damp: f64,
    /// How scales are found: to span the weights, by the weights' squared error, or by the error of the layer's output.
    #[arg(long, value_enum, default_value = "hessian")]
    scale_search: Search,
    /// Sweeps after the first pass in which codes and scales may still change, each about as long as the first; 0: as published.
    #[arg(long, value_name = "N", default_value_t = 1)]
    refine: usize,
    /// Text to calibrate on, UTF-8; or .jsonl: lines with `text`, or with `input_ids` (one sequence each).
    #[arg(long, value_name = "TEXT", required_unless_present = "rtn")]
    calibration: Option<PathBuf>,
    /// Sequences of it.
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,
    /// Tokens of a sequence [default: 2048, or the model's context if that is shorter].
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Where in the text the sequences lie.
    #[arg(long, value_enum, default_value = "spread")]
    sample_from: PlacementArg,
    /// The most that one token's activations count, in medians of their sequence's squared norms; 0: all in full. The first token of a sequence often
    /// has some a thousand times those of others.
    #[arg(long, value_name = "X", default_value_t = 4.0)]
    row_limit: f32,
    /// Round to nearest, without calibration: what GPTQ is to be compared with.
    #[arg(long, conflicts_with_all = ["calibration", "desc_act"])]
    rtn: bool,
    /// The layout: GPTQ's, which differ in how zero points are stored, or vLLM's own [default: gptq for symmetric grids, which every reader takes, else
    /// gptq_v2].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Other settings for modules whose name matches REGEX from its start; the first that matches counts. SETTINGS: bits:8,group:32,sym:true
    #[arg(long, value_name = "REGEX=SETTINGS", value_parser = parse_rule)]
    module: Vec<DynamicRule>,
    /// Leave modules whose name matches REGEX from its start in full precision. Comes before --module.
    #[arg(long, value_name = "REGEX", value_parser = parse_skip)]
    skip: Vec<DynamicRule>,
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
struct GroupSize(Option<usize>);

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Search {
    Minmax,
    Mse,
    Hessian,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    #[value(name = "gptq_v2")]
    GptqV2,
    #[value(name = "gptq")]
    Gptq,
    #[value(name = "compressed-tensors")]
    CompressedTensors,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let mut options = Options::new(self.bits, self.group_size.0);
        options.symmetric = self.sym;
        options.damp = self.damp;
        options.refine = self.refine;
        options.search = match self.scale_search {
            Search::Minmax => ScaleSearch::MinMax,
            Search::Mse => ScaleSearch::Mse,
            Search::Hessian => ScaleSearch::Hessian,
        };
        options.order = match (self.desc_act, self.natural_order) {
            (true, _) => Order::DescAct { static_groups: self.static_groups },
            (_, true) => Order::Natural,
            _ => Order::ActGroupAware,
        };
        let mut plan = GptqPlan::new(options);
        plan.rules = self.skip.iter().chain(&self.module).cloned().collect();
        plan.zero_point = match self.format {
            Some(Format::Gptq) => Some(ZeroPoint::MinusOne),
            Some(Format::GptqV2) => Some(ZeroPoint::AsIs),
            Some(Format::CompressedTensors) | None => None,
        };
        plan.compressed_tensors = matches!(self.format, Some(Format::CompressedTensors));
        plan.round_to_nearest = self.rtn;
        plan.row_limit = Some(self.row_limit).filter(|&limit| limit > 0.0);
        plan.overwrite = self.overwrite;
        plan.resume = !self.no_resume;

        let set = match &self.calibration {
            Some(path) => {
                let checkpoint = Checkpoint::open(&self.model)?;
                let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
                let seq_len = self.seq_len.unwrap_or(2048.min(checkpoint.config()?.max_context));
                let set = input::calibration_set(path, &tokenizer, self.samples, seq_len, self.sample_from)?;
                set.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
                Some(set)
            }
            None => None,
        };
        const STEPS: usize = 1000;
        let bar = progress::bar("gptq", STEPS);
        let report = quantize_model(&self.model, &self.out, &plan, set.as_ref(), &mut |p| {
            bar.set_position((p.done * STEPS as f64) as u64);
            bar.set_message(format!("layer {}", p.layer));
            ControlFlow::Continue(())
        })?;
        bar.finish_and_clear();
        for module in &report.modules {
            if let Some(why) = module.fallback.as_ref().filter(|_| !self.rtn) {
                eprintln!("warning: `{}` was rounded to nearest: {why}", module.name);
            }
        }
        let json = to_json(&report);
        if let Some(path) = &self.report {
            let text = format!("{json:#}\n");
            std::fs::write(path, text).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
        }
        if self.json {
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
}

fn modules_table(modules: &[ModuleReport]) -> String {
    let header = ["module", "bits", "group", "loss", "NMSE", "damping", "seconds", ""];
    let row = |m: &ModuleReport| {
        let loss = m.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3e}"));
        let (nmse, damp, seconds) = (format!("{:.2e}", m.nmse), format!("{}", m.damp), format!("{:.2}", m.seconds));
        let note = m.fallback.clone().unwrap_or_default();
        vec![m.name.clone(), m.bits.to_string(), m.group_size.to_string(), loss, nmse, damp, seconds, note]
    };
    table::render(&header, &modules.iter().map(row).collect::<Vec<_>>())
}

fn to_json(report: &GptqReport) -> serde_json::Value {
    json!({
        "out": report.out, "bytes": report.bytes, "bits_per_weight": report.bits_per_weight, "seconds": report.seconds,
        "resumed_layers": report.resumed_layers,
        "tensors": report.modules.iter().map(ModuleReport::to_json).collect::<Vec<_>>(),
    })
}

fn parse_bits(text: &str) -> Result<Bits, String> {
    let bits = text.parse().ok().and_then(Bits::new).filter(|b| gptq::checkpoint::is_stored_width(*b));
    bits.ok_or_else(|| "2, 3, 4 or 8".to_owned())
}

fn parse_group_size(text: &str) -> Result<GroupSize, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(GroupSize(None)),
        Ok(size @ 1..=0x7fff_ffff) => Ok(GroupSize(Some(size as usize))),
        _ => Err("-1 or a positive number".to_owned()),
    }
}

fn parse_skip(pattern: &str) -> Result<DynamicRule, String> {
    DynamicRule::skip(pattern).map_err(|e| e.to_string())
}

fn parse_rule(text: &str) -> Result<DynamicRule, String> {
    let (pattern, settings) = text.rsplit_once('=').ok_or("REGEX=SETTINGS, as in .*down_proj=bits:8")?;
    let mut overrides = Overrides { bits: None, group_size: None, sym: None, desc_act: None };
    for setting in settings.split(',') {
        match setting.split_once(':') {
            Some(("bits", value)) => overrides.bits = Some(parse_bits(value)?),
            Some(("group", value)) => overrides.group_size = Some(parse_group_size(value)?.0),
            Some(("sym", value)) => overrides.sym = Some(value.parse().map_err(|_| "sym:true or sym:false")?),
            _ => return Err(format!("`{setting}` is none of bits:N, group:N, sym:true, sym:false")),
        }
    }
    DynamicRule::overriding(pattern, overrides).map_err(|e| e.to_string())
}
