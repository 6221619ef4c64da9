//! `quant w8a8`: a Hugging Face directory to one with 8-bit weights for 8-bit activations.

use super::layerwise::{self, CalibrationArgs, OutputArgs};
use crate::error::{CliError, CliResult};
use clap::ValueEnum;
use gptq::{Bits, Options, ScaleSearch};
use quant_core::activation::{ActivationGrid, RangeMethod};
use quant_core::eight_bit::EightBitCode;
use quant_runtime::layerwise::{
    ActivationSpec, InputScales, LayerwisePlan, Layout, Rotation, Rounding, SmoothOptions, W8A8,
};
use std::path::PathBuf;

/// Quantize a model to 8-bit weights that are multiplied with 8-bit activations (W8A8), a directory that vLLM and transformers load.
///
/// The linear layers of the decoder are quantized, one scale per output feature; embeddings, norms and the head stay as they are. What each layer reads is
/// rounded while the model runs: with a scale per token, or with scales fixed here on calibration text. A run that is cut short goes on where it was when
/// the same command is given again.
#[derive(clap::Args, Debug)]
#[command(name = "w8a8")]
pub(crate) struct Args {
    /// Directory with safetensors.
    model: PathBuf,
    /// Where the result goes: absent, or an empty directory.
    out: PathBuf,
    /// What weights and activations are.
    #[arg(long, value_enum)]
    scheme: Scheme,
    /// How weights are rounded: with the error of those before in view (needs --calibration), or to nearest.
    #[arg(long, value_enum, default_value = "gptq")]
    weights: Weights,
    /// Scales of activations: each token's own, or one per layer input, fixed on calibration text (needs --calibration).
    #[arg(long, value_enum, default_value = "dynamic")]
    activations: Activations,
    /// With --scheme int8: activations get a zero point, for ranges that are not symmetric.
    #[arg(long)]
    asymmetric: bool,
    /// With --activations static: how much of what was seen the scale spans: all, all but a share of the values, or what makes the squared error least
    /// [default: mse].
    #[arg(long, value_enum)]
    range: Option<Range>,
    /// With --range percentile: percent of the values that are spanned.
    #[arg(long, value_name = "P", default_value_t = 99.99)]
    percentile: f64,
    /// Divide large channels of activations and multiply the weights that read them (SmoothQuant; needs --calibration): by a strength for each group of
    /// layers that is searched on the text and has to help on a part of it that was kept back; or by this strength everywhere, 0 to 1.
    #[arg(long, value_name = "STRENGTH", num_args = 0..=1, require_equals = true, default_missing_value = "search", value_parser = parse_smooth)]
    smooth: Option<Smooth>,
    /// Rotate the model, which spreads large values of single channels over many (QuaRot). folded: what the weights can hold, so that the directory loads
    /// everywhere. full: what down_proj reads too, while the model runs; vLLM and quant do that, transformers 5 does not and runs such a model wrongly.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "folded")]
    rotate: Option<Rotate>,
    /// Added to the Hessian's diagonal, as a part of its mean; raised where that is too little.
    #[arg(long, default_value_t = 0.01)]
    damp: f64,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Scheme {
    Int8,
    Fp8,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Weights {
    Gptq,
    Rtn,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Activations {
    Dynamic,
    Static,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Range {
    Max,
    Percentile,
    Mse,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
enum Rotate {
    Folded,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Smooth {
    Search,
    Strength(f64),
}

fn parse_smooth(text: &str) -> Result<Smooth, String> {
    match text.parse::<f64>() {
        _ if text == "search" => Ok(Smooth::Search),
        Ok(strength) if (0.0..=1.0).contains(&strength) => Ok(Smooth::Strength(strength)),
        _ => Err("a strength from 0 to 1".to_owned()),
    }
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        if self.asymmetric && self.scheme == Scheme::Fp8 {
            return usage("--asymmetric: FP8 has no zero points");
        }
        if self.range.is_some() && self.activations == Activations::Dynamic {
            return usage("--range: scales are dynamic without --activations static");
        }
        if !(self.percentile > 0.0 && self.percentile <= 100.0) {
            return usage("--percentile: above 0, at most 100");
        }
        let Some(bits) = Bits::new(8) else { return usage("8 bits") };
        let mut options = Options::new(bits, None);
        (options.symmetric, options.damp) = (true, self.damp);
        let rounding = match self.weights {
            Weights::Gptq => Rounding::Gptq(options),
            Weights::Rtn => {
                options.search = ScaleSearch::Mse;
                Rounding::Nearest(options)
            }
        };
        let (code, grid) = match self.scheme {
            Scheme::Int8 => (EightBitCode::Int8, ActivationGrid::Int8 { symmetric: !self.asymmetric }),
            Scheme::Fp8 => (EightBitCode::E4M3, ActivationGrid::E4M3),
        };
        let scales = match self.activations {
            Activations::Dynamic => InputScales::Token,
            Activations::Static => InputScales::Static,
        };
        let range = match self.range {
            None | Some(Range::Mse) => RangeMethod::Mse,
            Some(Range::Max) => RangeMethod::Max,
            Some(Range::Percentile) => RangeMethod::Percentile(self.percentile),
        };
        let mut plan = LayerwisePlan::new(rounding, None);
        plan.layout = Layout::EightBit(W8A8 { code, activations: Some(ActivationSpec { grid, scales }), range });
        plan.smooth = self.smooth.map(|smooth| match smooth {
            Smooth::Search => SmoothOptions::default(),
            Smooth::Strength(strength) => SmoothOptions::fixed(strength),
        });
        plan.rotation = match self.rotate {
            None => Rotation::None,
            Some(Rotate::Folded) => Rotation::Folded,
            Some(Rotate::Full) => Rotation::WithDown,
        };
        plan.rules = self.output.skip.clone();
        layerwise::run("w8a8", plan, &self.model, &self.out, &self.calibration, &self.output, 512)
    }
}
