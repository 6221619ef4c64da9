//! `quant gptq`: a Hugging Face directory to a GPTQ directory.

use super::layerwise::{self, CalibrationArgs, GroupSize, OutputArgs, parse_bits, parse_group_size};
use crate::error::CliResult;
use clap::ValueEnum;
use gptq::checkpoint::{DynamicRule, Overrides, ZeroPoint};
use gptq::{Bits, Options, Order, ScaleSearch};
use quant_runtime::layerwise::{LayerwisePlan, Layout, Rounding};
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
    /// Bits of a weight: 2, 3, 4 or 8; with --format compressed-tensors 5, 6 and 7 too.
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
    /// How little the correlations of few calibration tokens are believed: of N input features over T tokens the part X N / (X N + T) is taken away; 0: as
    /// published.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    shrink: f64,
    /// How scales are found: to span the weights, by the weights' squared error, or by the error of the layer's output.
    #[arg(long, value_enum, default_value = "hessian")]
    scale_search: Search,
    /// Sweeps after the first pass in which codes and scales may still change, each about as long as the first; 0: as published.
    #[arg(long, value_name = "N", default_value_t = 1)]
    refine: usize,
    /// Multiply each row's scales, at the end, by what makes its output as large as it was [default: true at 2 and 3 bits].
    #[arg(long, value_name = "true|false")]
    gain: Option<bool>,
    #[command(flatten)]
    calibration: CalibrationArgs,
    /// Round to nearest, without calibration: what GPTQ is to be compared with.
    #[arg(long, conflicts_with_all = ["calibration", "desc_act", "awq_scales"])]
    rtn: bool,
    /// The layout: GPTQ's, which differ in how zero points are stored, or vLLM's own [default: gptq for symmetric grids, which every reader takes, else
    /// gptq_v2].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Other settings for modules whose name matches REGEX from its start; the first that matches counts. SETTINGS: bits:8,group:32,sym:true
    #[arg(long, value_name = "REGEX=SETTINGS", value_parser = parse_rule)]
    module: Vec<DynamicRule>,
    /// First search AWQ's scales and fold them into the model, which leaves it the same in full precision.
    #[arg(long)]
    awq_scales: bool,
    #[command(flatten)]
    output: OutputArgs,
}

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
        options.shrink = self.shrink;
        options.refine = self.refine;
        options.keep_gain = self.gain.unwrap_or(options.keep_gain);
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
        let mut plan = match (self.rtn, self.awq_scales) {
            (true, _) => LayerwisePlan::new(Rounding::Nearest(options), None),
            (false, true) => LayerwisePlan::gptq_on_scales(options),
            (false, false) => LayerwisePlan::gptq(options),
        };
        plan.rules = self.output.skip.iter().chain(&self.module).cloned().collect();
        plan.layout = match self.format {
            None => Layout::Gptq(None),
            Some(Format::Gptq) => Layout::Gptq(Some(ZeroPoint::MinusOne)),
            Some(Format::GptqV2) => Layout::Gptq(Some(ZeroPoint::AsIs)),
            Some(Format::CompressedTensors) => Layout::CompressedTensors,
        };
        layerwise::run("gptq", plan, &self.model, &self.out, &self.calibration, &self.output, 2048)
    }
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
