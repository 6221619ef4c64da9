//! GPTQ's way through a layer: each input seen once, after all before it is quantized.

use super::layer::{LayerRun, QuantizedLayer, needs_stats, of_site};
use super::plan::Rounding;
use super::progress::Meter;
use super::{round_gptq, statistics};
use crate::model::{DenseWeights, LayerParts, LinearSite};
use crate::{Error, Result};
use gptq::AffineMatrix;
use quant_core::input_stats::InputStats;
use std::collections::HashMap;

/// How the weights of an input's linears come about.
pub(super) enum Weights<'a> {
    /// Quantized, from the statistics of the input.
    New(&'a mut QuantizedLayer),
    /// Quantized before.
    Done(&'a HashMap<String, AffineMatrix>),
}

impl LayerRun<'_> {
    /// The sequences through a layer whose linears get quantized weights on the way.
    pub(super) fn run_sequential(
        &mut self,
        l: usize,
        mut weights: Weights<'_>,
        goes_on: bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let parts = self.walk.layer(l)?;
        let mut hidden = std::mem::take(&mut self.hidden);
        let walk = &self.walk;
        let again = matches!(weights, Weights::New(_));

        let site = LinearSite::AttentionInput(l);
        let stats = self.stats(again, site, hidden.iter().map(|x| parts.attention_input(x)))?;
        let qkv = self.weights(site, stats, &mut weights, meter)?;

        let mixed = hidden.iter().map(|x| parts.attention(walk, &qkv, &parts.attention_input(x)?));
        let mixed = mixed.collect::<Result<Vec<_>>>()?;
        meter.passed(walk.config(), site)?;
        drop(qkv);
        let site = LinearSite::AttentionOutput(l);
        let stats = self.stats(again, site, mixed.iter().map(Ok))?;
        let o = self.weights(site, stats, &mut weights, meter)?;
        for (x, mixed) in hidden.iter_mut().zip(mixed) {
            parts.add_attention(&o, &mixed, x)?;
        }
        meter.passed(walk.config(), site)?;
        drop(o);

        let site = LinearSite::FfnInput(l);
        let stats = self.stats(again, site, hidden.iter().map(|x| parts.ffn_input(x)))?;
        let gate_up = self.weights(site, stats, &mut weights, meter)?;
        self.feed_forward(l, &parts, &gate_up, &mut hidden, &mut weights, goes_on, meter)?;
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
        let site = LinearSite::FfnDown(l);
        let gated = |x: &[f32]| parts.gated(gate_up, &parts.ffn_input(x)?);
        let config = self.walk.config();
        let tokens: usize = hidden.iter().map(|x| x.len() / config.hidden_size.max(1)).sum();
        let bytes = (tokens as u64).saturating_mul(4 * config.intermediate_size as u64);
        let quantizes = matches!(weights, Weights::New(_));
        // What down reads is the widest of all: kept if it fits, else computed again once down is quantized.
        let mut kept = Vec::new();
        let mut stats = None;
        if quantizes && self.gathers(site) && !hidden.is_empty() {
            let modules = of_site(self.modules, site);
            let mut sums = statistics::empty(modules);
            for x in hidden.iter() {
                let product = gated(x)?;
                statistics::add(&mut sums, modules, self.plan.row_limit, &product)?;
                if goes_on && bytes <= self.plan.activation_memory {
                    kept.push(product);
                }
            }
            stats = Some(sums);
        }
        meter.passed(config, LinearSite::FfnInput(l))?;
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
        meter.passed(config, site)
    }

    /// Whether statistics of an input are needed.
    fn gathers(&self, site: LinearSite) -> bool {
        matches!(self.plan.rounding, Rounding::Gptq(_)) && needs_stats(self.modules, site)
    }

    /// The statistics of an input, if its linears are to be quantized by them and there are sequences.
    fn stats<X: AsRef<[f32]>>(
        &self,
        wanted: bool,
        site: LinearSite,
        inputs: impl ExactSizeIterator<Item = Result<X>>,
    ) -> Result<Option<InputStats>> {
        if !wanted || !self.gathers(site) || inputs.len() == 0 {
            return Ok(None);
        }
        let modules = of_site(self.modules, site);
        let mut stats = statistics::empty(modules);
        for x in inputs {
            statistics::add(&mut stats, modules, self.plan.row_limit, x?.as_ref())?;
        }
        Ok(Some(stats))
    }

    /// The weights that the sequences go through: quantized ones dequantized, others as they are.
    fn weights(
        &self,
        site: LinearSite,
        stats: Option<InputStats>,
        weights: &mut Weights<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<DenseWeights> {
        let modules = of_site(self.modules, site);
        let mut dense = DenseWeights { in_features: modules.first().map_or(0, |m| m.cols), values: Vec::new() };
        let mut solver = round_gptq::Solver::new(&self.plan.rounding, stats.as_ref());
        for module in modules {
            let from = dense.values.len();
            match (&module.spec, &mut *weights) {
                (Some(spec), Weights::New(layer)) => {
                    let original = self.walk.weight(&module.gguf_name, module.rows, module.cols)?;
                    let (matrix, report) = solver.round(module, spec, &original)?;
                    push_dequantized(&mut dense.values, &matrix)?;
                    layer.reports.push(report);
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
        meter.quantized(self.walk.config(), site)?;
        Ok(dense)
    }
}

pub(super) fn push_dequantized(values: &mut Vec<f32>, matrix: &AffineMatrix) -> Result<()> {
    let from = values.len();
    values.resize(from + matrix.out_features() * matrix.in_features(), 0.0);
    matrix.dequantize_into(&mut values[from..]).map_err(|e| Error::Usage(e.to_string()))
}
