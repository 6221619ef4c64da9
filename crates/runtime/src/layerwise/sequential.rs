//! GPTQ's way through a layer: each input seen once, after all before it is quantized.

use super::layer::{LayerRun, QuantizedLayer, needs_stats, of_site};
use super::plan::{Module, Rounding};
use super::progress::Meter;
use super::{round_gptq, statistics};
use crate::checkpoint::ModuleMatrix;
use crate::model::{DenseWeights, LayerParts, LinearSite};
use crate::{Error, Result};
use quant_core::activation::ValueRange;
use quant_core::input_stats::InputStats;
use std::collections::HashMap;

/// How the weights of an input's linears come about.
pub(super) enum Weights<'a> {
    /// Quantized, from the statistics of the input.
    New(&'a mut QuantizedLayer),
    /// Quantized before.
    Done(&'a HashMap<String, ModuleMatrix>),
}

/// What was seen of an input.
#[derive(Default)]
struct Seen {
    /// For error feedback.
    stats: Option<InputStats>,
    /// For a static scale.
    range: Option<ValueRange>,
}

impl Seen {
    fn add(&mut self, modules: &[Module], row_limit: Option<f32>, x: &[f32]) -> Result<()> {
        if let Some(stats) = &mut self.stats {
            statistics::add(stats, modules, row_limit, x)?;
        }
        if let Some(range) = &mut self.range {
            range.add(x).map_err(|(at, value)| {
                let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
                let columns = modules.first().map_or(1, |m| m.cols).max(1);
                Error::NotFinite(format!("inputs of {} ({value} at feature {})", names.join(", "), at % columns))
            })?;
        }
        Ok(())
    }
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
        let seen = self.see(again, site, hidden.iter().map(|x| parts.attention_input(x)))?;
        let qkv = self.weights(site, seen, &mut weights, meter)?;

        let mixed = hidden.iter().map(|x| parts.attention(walk, &qkv, &parts.attention_input(x)?));
        let mixed = mixed.collect::<Result<Vec<_>>>()?;
        meter.passed(walk.config(), site)?;
        drop(qkv);
        let site = LinearSite::AttentionOutput(l);
        let seen = self.see(again, site, mixed.iter().map(Ok))?;
        let o = self.weights(site, seen, &mut weights, meter)?;
        for (x, mixed) in hidden.iter_mut().zip(mixed) {
            parts.add_attention(&o, &mixed, x)?;
        }
        meter.passed(walk.config(), site)?;
        drop(o);

        let site = LinearSite::FfnInput(l);
        let seen = self.see(again, site, hidden.iter().map(|x| parts.ffn_input(x)))?;
        let gate_up = self.weights(site, seen, &mut weights, meter)?;
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
        let mut seen = Seen::default();
        if quantizes && self.looks_at(site) && !hidden.is_empty() {
            seen = self.nothing_seen(site);
            for x in hidden.iter() {
                let product = gated(x)?;
                seen.add(of_site(self.modules, site), self.plan.row_limit, &product)?;
                if goes_on && bytes <= self.plan.activation_memory {
                    kept.push(product);
                }
            }
        }
        meter.passed(config, LinearSite::FfnInput(l))?;
        let down = self.weights(site, seen, weights, meter)?;
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

    /// Whether statistics of an input are needed, for errors to be fed back.
    fn gathers(&self, site: LinearSite) -> bool {
        matches!(self.plan.rounding, Rounding::Gptq(_)) && needs_stats(self.modules, site)
    }

    /// Whether an input gets a static scale.
    fn spans(&self, site: LinearSite) -> bool {
        self.plan.static_inputs().is_some() && needs_stats(self.modules, site)
    }

    fn looks_at(&self, site: LinearSite) -> bool {
        self.gathers(site) || self.spans(site)
    }

    fn nothing_seen(&self, site: LinearSite) -> Seen {
        Seen {
            stats: self.gathers(site).then(|| statistics::empty(of_site(self.modules, site))),
            range: self.spans(site).then(ValueRange::new),
        }
    }

    /// What is needed of an input, if its linears are to be quantized and there are sequences.
    fn see<X: AsRef<[f32]>>(
        &self,
        wanted: bool,
        site: LinearSite,
        inputs: impl ExactSizeIterator<Item = Result<X>>,
    ) -> Result<Seen> {
        if !wanted || !self.looks_at(site) || inputs.len() == 0 {
            return Ok(Seen::default());
        }
        let mut seen = self.nothing_seen(site);
        for x in inputs {
            seen.add(of_site(self.modules, site), self.plan.row_limit, x?.as_ref())?;
        }
        Ok(seen)
    }

    /// The weights that the sequences go through: quantized ones dequantized, others as they are.
    fn weights(
        &self,
        site: LinearSite,
        seen: Seen,
        weights: &mut Weights<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<DenseWeights> {
        let modules = of_site(self.modules, site);
        let mut dense = DenseWeights { in_features: modules.first().map_or(0, |m| m.cols), values: Vec::new() };
        let input = match (self.plan.static_inputs(), &seen.range) {
            (Some((grid, method)), Some(range)) => Some(range.scale(grid, method)),
            _ => None,
        };
        let mut solver = round_gptq::Solver::new(self.plan, seen.stats.as_ref(), input);
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

pub(super) fn push_dequantized(values: &mut Vec<f32>, matrix: &ModuleMatrix) -> Result<()> {
    let from = values.len();
    let [rows, columns] = matrix.shape();
    values.resize(from + rows * columns, 0.0);
    matrix.dequantize_into(&mut values[from..])
}
