//! Matrices rounded by GPTQ, or to nearest by its codecs.

use super::plan::{LayerwisePlan, Layout, Module, Rounding, gptq_options};
use super::report::ModuleReport;
use crate::checkpoint::{EightBitLinear, ModuleMatrix};
use crate::{Error, Result};
use gptq::checkpoint::ModuleSpec;
use gptq::{Factor, GptqError, Options, Report, quantize, quantize_eight_bit};
use quant_core::activation::ActivationScale;
use quant_core::eight_bit::EightBitCode;
use quant_core::input_stats::InputStats;
use std::time::Instant;

/// Rounds the matrices that read one input.
pub(super) struct Solver<'a> {
    options: Option<Options>,
    layout: Layout,
    stats: Option<&'a InputStats>,
    /// Static scale of the input.
    input: Option<ActivationScale>,
    /// One for all that have the same order and groups.
    factors: Vec<(Options, Factor)>,
}

impl<'a> Solver<'a> {
    pub(super) fn new(plan: &LayerwisePlan, stats: Option<&'a InputStats>, input: Option<ActivationScale>) -> Self {
        let options = match plan.rounding {
            Rounding::Gptq(options) | Rounding::Nearest(options) => Some(options),
            Rounding::Awq(_) => None,
        };
        Self { options, layout: plan.layout, stats, input, factors: Vec::new() }
    }

    pub(super) fn round(
        &mut self,
        module: &Module,
        spec: &ModuleSpec,
        weights: &[f32],
    ) -> Result<(ModuleMatrix, ModuleReport)> {
        let start = Instant::now();
        let options = self.options.unwrap_or_else(|| Options::new(spec.bits, spec.group_size));
        let mut options = gptq_options(&options, spec);
        if let Layout::EightBit(_) = self.layout {
            options.group_size = None;
        }
        let options = &options;
        let shares = |(o, _): &(Options, Factor)| {
            (o.order, o.group_size, o.damp, o.shrink)
                == (options.order, options.group_size, options.damp, options.shrink)
        };
        let failed = |e: GptqError| match e {
            GptqError::NonFiniteWeight { row, column } => {
                Error::NotFinite(format!("weights of `{}` (row {row}, column {column})", module.name))
            }
            e => Error::Usage(format!("module `{}`: {e}", module.name)),
        };
        let index = match self.factors.iter().position(shares) {
            Some(index) => index,
            None => {
                let factor = match self.stats {
                    Some(stats) => Factor::new(stats, options),
                    None => Factor::round_to_nearest(module.cols, options),
                };
                self.factors.push((*options, factor.map_err(failed)?));
                self.factors.len() - 1
            }
        };
        let factor = &self.factors[index].1;
        let (matrix, method, bits_per_weight, group_size, report): (ModuleMatrix, _, _, _, Report) = match self.layout {
            Layout::EightBit(w8a8) => {
                let (matrix, report) =
                    quantize_eight_bit(weights, module.rows, factor, w8a8.code, options).map_err(failed)?;
                let method = match w8a8.code {
                    EightBitCode::Int8 => "int8",
                    EightBitCode::E4M3 => "fp8",
                };
                let bits_per_weight = matrix.bits_per_weight();
                let matrix = ModuleMatrix::EightBit(EightBitLinear { matrix, input: self.input });
                (matrix, method, bits_per_weight, module.cols, report)
            }
            _ => {
                let quantized = quantize(weights, module.rows, factor, options).map_err(failed)?;
                let (matrix, report) = (quantized.matrix, quantized.report);
                let (bits_per_weight, group_size) = (matrix.bits_per_weight(), matrix.group_size());
                (matrix.into(), "gptq", bits_per_weight, group_size, report)
            }
        };
        let report = ModuleReport {
            name: module.name.clone(),
            method,
            bits: options.bits.get(),
            group_size,
            bits_per_weight,
            loss: report.loss,
            nmse: report.nmse,
            damp: Some(report.damp),
            fallback: report.fallback.map(|f| f.to_string()),
            dead_columns: report.dead_columns,
            clipped_groups: None,
            seconds: start.elapsed().as_secs_f64(),
        };
        Ok((matrix, report))
    }
}
