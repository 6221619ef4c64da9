//! One decoder layer: each input seen once, its linears quantized, the sequences carried on through them.

use super::plan::{GptqPlan, Module, Modules};
use super::progress::Meter;
use super::report::ModuleReport;
use crate::model::{DenseWeights, LayerParts, LayerWalk, LinearSite};
use crate::{Error, Result};
use gptq::{AffineMatrix, Factor, GptqError, Options, Quantized, quantize};
use quant_core::input_stats::{Detail, InputStats};
use std::collections::HashMap;
use std::time::Instant;

/// The sequences on their way through the model.
pub(super) struct LayerRun<'a> {
    walk: &'a LayerWalk<'a>,
    plan: &'a GptqPlan,
    modules: &'a Modules,
    /// Hidden state of each sequence, `[tokens, hidden]`.
    hidden: Vec<Vec<f32>>,
}

/// A layer's result.
#[derive(Default)]
pub(super) struct QuantizedLayer {
    pub(super) matrices: Vec<(String, AffineMatrix)>,
    pub(super) reports: Vec<ModuleReport>,
}

/// How the weights of an input's linears come about.
enum Weights<'a> {
    /// Quantized, from the statistics of the input.
    New(&'a mut QuantizedLayer),
    /// Quantized before.
    Done(&'a HashMap<String, AffineMatrix>),
}

impl<'a> LayerRun<'a> {
    pub(super) fn new(
        walk: &'a LayerWalk<'a>,
        plan: &'a GptqPlan,
        modules: &'a Modules,
        sequences: &[Vec<u32>],
    ) -> Result<Self> {
        let hidden = sequences.iter().map(|tokens| walk.embed(tokens)).collect::<Result<_>>()?;
        Ok(Self { walk, plan, modules, hidden })
    }

    /// Quantizes a layer. The sequences go on through it if `goes_on`.
    pub(super) fn quantize(&mut self, l: usize, goes_on: bool, meter: &mut Meter<'_>) -> Result<QuantizedLayer> {
        let mut layer = QuantizedLayer::default();
        self.run(l, &mut Weights::New(&mut layer), goes_on, meter)?;
        Ok(layer)
    }

    /// Carries the sequences through a layer that is quantized already.
    pub(super) fn pass_through(
        &mut self,
        l: usize,
        matrices: &HashMap<String, AffineMatrix>,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        self.run(l, &mut Weights::Done(matrices), true, meter)
    }

    fn run(&mut self, l: usize, weights: &mut Weights<'_>, goes_on: bool, meter: &mut Meter<'_>) -> Result<()> {
        let walk = self.walk;
        let parts = walk.layer(l)?;
        let mut hidden = std::mem::take(&mut self.hidden);
        let again = matches!(weights, Weights::New(_));

        let site = LinearSite::AttentionInput(l);
        let stats = self.stats(again, site, hidden.iter().map(|x| parts.attention_input(x)))?;
        let qkv = self.weights(site, stats, weights, meter)?;

        let mixed = hidden.iter().map(|x| parts.attention(walk, &qkv, &parts.attention_input(x)?));
        let mixed = mixed.collect::<Result<Vec<_>>>()?;
        meter.passed(walk, site)?;
        drop(qkv);
        let site = LinearSite::AttentionOutput(l);
        let stats = self.stats(again, site, mixed.iter().map(Ok))?;
        let o = self.weights(site, stats, weights, meter)?;
        for (x, mixed) in hidden.iter_mut().zip(mixed) {
            parts.add_attention(&o, &mixed, x)?;
        }
        meter.passed(walk, site)?;
        drop(o);

        let site = LinearSite::FfnInput(l);
        let stats = self.stats(again, site, hidden.iter().map(|x| parts.ffn_input(x)))?;
        let gate_up = self.weights(site, stats, weights, meter)?;
        self.feed_forward(l, &parts, &gate_up, &mut hidden, weights, goes_on, meter)?;
        self.hidden = hidden;
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn feed_forward(
        &self,
        l: usize,
        parts: &LayerParts,
        gate_up: &DenseWeights,
        hidden: &mut [Vec<f32>],
        weights: &mut Weights<'_>,
        goes_on: bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let (walk, site) = (self.walk, LinearSite::FfnDown(l));
        let gated = |x: &[f32]| parts.gated(gate_up, &parts.ffn_input(x)?);
        let config = walk.config();
        let tokens: usize = hidden.iter().map(|x| x.len() / config.hidden_size.max(1)).sum();
        let bytes = (tokens as u64).saturating_mul(4 * config.intermediate_size as u64);
        let quantizes = matches!(weights, Weights::New(_));
        // What down reads is the widest of all: kept if it fits, else computed again once down is quantized.
        let mut kept = Vec::new();
        let mut stats = None;
        if quantizes && self.needs_stats(site) && !hidden.is_empty() {
            let mut sums = self.new_stats(site);
            for x in hidden.iter() {
                let product = gated(x)?;
                self.add(&mut sums, site, &product)?;
                if goes_on && bytes <= self.plan.activation_memory {
                    kept.push(product);
                }
            }
            stats = Some(sums);
        }
        meter.passed(walk, LinearSite::FfnInput(l))?;
        let down = self.weights(site, stats, weights, meter)?;
        if goes_on {
            let mut kept = kept.into_iter();
            for x in hidden.iter_mut() {
                let product = match kept.next() {
                    Some(product) => product,
                    None => gated(x)?,
                };
                parts.add_ffn(&down, &product, x)?;
            }
        }
        meter.passed(walk, site)?;
        Ok(())
    }

    /// Whether any linear that reads the input is to be quantized.
    fn needs_stats(&self, site: LinearSite) -> bool {
        self.of_site(site).iter().any(|m| m.options.is_some())
    }

    fn new_stats(&self, site: LinearSite) -> InputStats {
        let columns = self.of_site(site).first().map_or(0, |m| m.cols);
        InputStats::new(columns, Detail::Gram)
    }

    /// The statistics of an input, if its linears are to be quantized and there are sequences.
    fn stats<X: AsRef<[f32]>>(
        &self,
        wanted: bool,
        site: LinearSite,
        inputs: impl ExactSizeIterator<Item = Result<X>>,
    ) -> Result<Option<InputStats>> {
        if !wanted || !self.needs_stats(site) || inputs.len() == 0 {
            return Ok(None);
        }
        let mut stats = self.new_stats(site);
        for x in inputs {
            self.add(&mut stats, site, x?.as_ref())?;
        }
        Ok(Some(stats))
    }

    fn add(&self, stats: &mut InputStats, site: LinearSite, x: &[f32]) -> Result<()> {
        let columns = stats.columns();
        let limited = self.plan.row_limit.and_then(|limit| limit_rows(x, columns, limit));
        let x = limited.as_deref().unwrap_or(x);
        stats.add(x, x.len() / columns.max(1), columns).map_err(|e| {
            let names: Vec<&str> = self.of_site(site).iter().map(|m| m.name.as_str()).collect();
            Error::NotFinite(format!("inputs of {} ({e})", names.join(", ")))
        })
    }

    fn of_site(&self, site: LinearSite) -> &[Module] {
        self.modules.get(&site).map_or(&[], Vec::as_slice)
    }

    /// The weights that the sequences go through: quantized ones dequantized, others as they are.
    fn weights(
        &self,
        site: LinearSite,
        stats: Option<InputStats>,
        weights: &mut Weights<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<DenseWeights> {
        let modules = self.of_site(site);
        let mut dense = DenseWeights { in_features: modules.first().map_or(0, |m| m.cols), values: Vec::new() };
        let mut factors = Vec::new();
        for module in modules {
            let from = dense.values.len();
            match (&module.options, &mut *weights) {
                (Some(options), Weights::New(layer)) => {
                    let original = self.walk.weight(&module.gguf_name, module.rows, module.cols)?;
                    let quantized = solve(&mut factors, stats.as_ref(), module, options, &original)?;
                    push_dequantized(&mut dense.values, &quantized.matrix)?;
                    let Quantized { matrix, report } = quantized;
                    layer.reports.push(ModuleReport {
                        name: module.name.clone(),
                        bits: options.bits.get(),
                        group_size: matrix.group_size(),
                        bits_per_weight: matrix.bits_per_weight(),
                        loss: report.loss,
                        nmse: report.nmse,
                        damp: report.damp,
                        fallback: report.fallback.map(|f| f.to_string()),
                        dead_columns: report.dead_columns,
                        seconds: report.time.as_secs_f64(),
                    });
                    layer.matrices.push((module.name.clone(), matrix));
                }
                (Some(_), Weights::Done(matrices)) => match matrices.get(&module.name) {
                    Some(matrix) => push_dequantized(&mut dense.values, matrix)?,
                    None => return Err(Error::Usage(format!("a finished layer holds no module `{}`", module.name))),
                },
                (None, _) => {
                    dense.values.extend(self.walk.weight(&module.gguf_name, module.rows, module.cols)?);
                }
            }
            if dense.values.len() - from != module.rows * module.cols {
                return Err(Error::Usage(format!("a finished layer holds another shape of `{}`", module.name)));
            }
        }
        meter.quantized(self.walk, site)?;
        Ok(dense)
    }
}

/// The rows, those longer than `limit` medians of the squared norms shortened to that; `None` if none is.
fn limit_rows(x: &[f32], columns: usize, limit: f32) -> Option<Vec<f32>> {
    let norms: Vec<f64> =
        x.chunks_exact(columns.max(1)).map(|row| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum()).collect();
    let mut sorted = norms.clone();
    sorted.sort_by(f64::total_cmp);
    let most = f64::from(limit) * sorted.get(sorted.len() / 2)?;
    // Not-a-number is left for the statistics to name.
    if !most.is_finite() || most <= 0.0 || !norms.iter().any(|&n| n > most && n.is_finite()) {
        return None;
    }
    let mut limited = x.to_vec();
    for (row, norm) in limited.chunks_exact_mut(columns.max(1)).zip(norms) {
        if norm > most && norm.is_finite() {
            let factor = (most / norm).sqrt() as f32;
            row.iter_mut().for_each(|v| *v *= factor);
        }
    }
    Some(limited)
}

/// Quantizes one module; a factor is made once for all that have the same order and groups.
fn solve(
    factors: &mut Vec<(Options, Factor)>,
    stats: Option<&InputStats>,
    module: &Module,
    options: &Options,
    weights: &[f32],
) -> Result<Quantized> {
    let start = Instant::now();
    let shares = |(o, _): &(Options, Factor)| {
        o.order == options.order && o.group_size == options.group_size && o.damp == options.damp
    };
    let failed = |e: GptqError| match e {
        GptqError::NonFiniteWeight { row, column } => {
            Error::NotFinite(format!("weights of `{}` (row {row}, column {column})", module.name))
        }
        e => Error::Usage(format!("module `{}`: {e}", module.name)),
    };
    let index = match factors.iter().position(shares) {
        Some(index) => index,
        None => {
            let factor = match stats {
                Some(stats) => Factor::new(stats, options),
                None => Factor::round_to_nearest(module.cols, options),
            };
            factors.push((*options, factor.map_err(failed)?));
            factors.len() - 1
        }
    };
    let mut quantized = quantize(weights, module.rows, &factors[index].1, options).map_err(failed)?;
    quantized.report.time = start.elapsed();
    Ok(quantized)
}

fn push_dequantized(values: &mut Vec<f32>, matrix: &AffineMatrix) -> Result<()> {
    let from = values.len();
    values.resize(from + matrix.out_features() * matrix.in_features(), 0.0);
    matrix.dequantize_into(&mut values[from..]).map_err(|e| Error::Usage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::limit_rows;

    #[test]
    fn long_rows_are_shortened() {
        let x = [1.0, 0.0, 0.0, 1.0, 0.0, 8.0];
        assert_eq!(limit_rows(&x, 2, 4.0).unwrap(), [1.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
        assert_eq!(limit_rows(&x, 2, 1e4), None);
        assert_eq!(limit_rows(&[0.0; 4], 2, 4.0), None);
        assert_eq!(limit_rows(&[f32::NAN, 0.0, 1.0, 1.0], 2, 4.0), None);
        assert_eq!(limit_rows(&[], 2, 4.0), None);
    }
}
