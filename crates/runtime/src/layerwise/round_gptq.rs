//! Matrices rounded by GPTQ, or to nearest by its codec.

use super::plan::{Module, Rounding, gptq_options};
use super::report::ModuleReport;
use crate::{Error, Result};
use gptq::checkpoint::ModuleSpec;
use gptq::{AffineMatrix, Factor, GptqError, Options, quantize};
use quant_core::input_stats::InputStats;
use std::time::Instant;

/// Rounds the matrices that read one input.
pub(super) struct Solver<'a> {
    options: Option<Options>,
    stats: Option<&'a InputStats>,
    /// One for all that have the same order and groups.
    factors: Vec<(Options, Factor)>,
}

impl<'a> Solver<'a> {
    pub(super) fn new(rounding: &Rounding, stats: Option<&'a InputStats>) -> Self {
        let options = match rounding {
            Rounding::Gptq(options) | Rounding::Nearest(options) => Some(*options),
            Rounding::Awq(_) => None,
        };
        Self { options, stats, factors: Vec::new() }
    }

    pub(super) fn round(
        &mut self,
        module: &Module,
        spec: &ModuleSpec,
        weights: &[f32],
    ) -> Result<(AffineMatrix, ModuleReport)> {
        let start = Instant::now();
        let options = self.options.unwrap_or_else(|| Options::new(spec.bits, spec.group_size));
        let options = &gptq_options(&options, spec);
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
        let quantized = quantize(weights, module.rows, &self.factors[index].1, options).map_err(failed)?;
        let (matrix, report) = (quantized.matrix, quantized.report);
        let report = ModuleReport {
            name: module.name.clone(),
            method: "gptq",
            bits: options.bits.get(),
            group_size: matrix.group_size(),
            bits_per_weight: matrix.bits_per_weight(),
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
