//! `quant awq`: a Hugging Face directory to an AWQ directory.

use super::layerwise::{self, CalibrationArgs, GroupSize, OutputArgs, parse_bits, parse_group_size};
use crate::error::CliResult;
use awq::{Bits, Options};
use clap::ValueEnum;
use gptq::checkpoint::ZeroPoint;
use quant_runtime::layerwise::{AwqRounding, LayerwisePlan, Layout, Rounding};
use std::path::PathBuf;

/// Quantize a model by AWQ to a directory that transformers, GPTQModel and vLLM load.
///
/// Channels that meet large activations are scaled up before rounding and the scales folded into the layers before, which leaves the model the same in
/// full precision; then each group's range is cut where that pays. A scale or a cut is taken only if it also helps on calibration text that it was not
/// fitted to. A run that is cut short goes on where it was when the same command is given again.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory with safetensors.
    model: PathBuf,
    /// Where the result goes: absent, or an empty directory.
    out: PathBuf,
    /// Bits of a weight.
    #[arg(long, default_value = "4", value_parser = parse_bits)]
    bits: Bits,
    /// Weights of a row that share a scale; -1: all.
    #[arg(long, default_value = "128", allow_hyphen_values = true, value_parser = parse_group_size)]
    group_size: GroupSize,
    /// Symmetric grids: the zero point is the middle.
    #[arg(long)]
    no_zero_point: bool,
    /// Search no scales.
    #[arg(long)]
    no_scales: bool,
    /// Judge scales of q, k, v and of gate, up by the output of attention and of the feed-forward part, not of the linears alone. Slower.
    #[arg(long, conflicts_with = "no_scales")]
    block_loss: bool,
    /// Cut no ranges.
    #[arg(long)]
    no_clip: bool,
    /// Cut ranges of q and k too.
    #[arg(long, conflicts_with = "no_clip")]
    clip_qk: bool,
    /// The least part of the loss, on the text that was kept back, that a scale or a cut has to save.
    #[arg(long, value_name = "X", default_value_t = 0.02)]
    margin: f64,
    /// The layout: AWQ's, GPTQ's, or vLLM's own [default: awq at 4 bits, else gptq_v2].
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    #[value(name = "awq")]
    Awq,
    #[value(name = "gptq_v2")]
    GptqV2,
    #[value(name = "compressed-tensors")]
    CompressedTensors,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let mut options = Options::new(self.bits, self.group_size.0);
        options.zero_point = !self.no_zero_point;
        options.margin = self.margin;
        let mut plan = LayerwisePlan::awq(options);
        plan.rounding = Rounding::Awq(AwqRounding { options, clip: !self.no_clip, clip_qk: self.clip_qk });
        plan.scales = plan.scales.filter(|_| !self.no_scales);
        plan.block_loss = self.block_loss;
        plan.layout = match self.format {
            None => plan.layout,
            Some(Format::Awq) => Layout::Awq,
            Some(Format::GptqV2) => Layout::Gptq(Some(ZeroPoint::AsIs)),
            Some(Format::CompressedTensors) => Layout::CompressedTensors,
        };
        plan.rules = self.output.skip.clone();
        layerwise::run("awq", plan, &self.model, &self.out, &self.calibration, &self.output, 512)
    }
}
