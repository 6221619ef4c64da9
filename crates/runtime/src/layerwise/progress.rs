//! How far a run is, weighed by the work that each step takes.

use super::observe::layer_sites;
use super::plan::{LayerwisePlan, Rounding};
use crate::model::{LinearSite, ModelConfig};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Part of the work done, 0 to 1.
    pub done: f64,
    /// The decoder layer it is in.
    pub layer: usize,
}

/// Counts work in multiplications.
pub(super) struct Meter<'a> {
    done: f64,
    total: f64,
    tokens: f64,
    /// Rough cost of a candidate scale or clip, of which there are several: products with the Gram matrix per row of weights.
    candidates: f64,
    report: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

/// In features, and out features of all linears that read the input.
fn shape(config: &ModelConfig, site: LinearSite) -> (f64, f64) {
    let (rows, cols) = match site {
        LinearSite::AttentionInput(_) => (config.q_dim() + 2 * config.kv_dim(), config.hidden_size),
        LinearSite::AttentionOutput(_) => (config.hidden_size, config.q_dim()),
        LinearSite::FfnInput(_) => (2 * config.intermediate_size, config.hidden_size),
        LinearSite::FfnDown(_) => (config.hidden_size, config.intermediate_size),
        LinearSite::Output => (config.vocab_size, config.hidden_size),
    };
    (rows as f64, cols as f64)
}

impl<'a> Meter<'a> {
    pub(super) fn new(
        config: &ModelConfig,
        plan: &LayerwisePlan,
        sequences: &[Vec<u32>],
        report: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        let tokens = sequences.iter().map(Vec::len).sum::<usize>() as f64;
        let mut meter = Self { done: 0.0, total: 0.0, tokens, candidates: 4.0, report };
        let sites = layer_sites(0);
        let is_awq = matches!(plan.rounding, Rounding::Awq(_));
        let observes = plan.scales.is_some() || matches!(plan.rounding, Rounding::Awq(awq) if awq.clip);
        let mut layer = 0.0;
        if observes {
            layer += meter.observing(config);
        }
        layer += match is_awq {
            true => meter.searching(config),
            false => sites.iter().map(|&s| meter.solving(config, s) + meter.forward(config, s)).sum(),
        };
        meter.total = layer * config.num_layers as f64;
        meter
    }

    fn forward(&self, config: &ModelConfig, site: LinearSite) -> f64 {
        let (rows, cols) = shape(config, site);
        self.tokens * rows * cols
    }

    fn solving(&self, config: &ModelConfig, site: LinearSite) -> f64 {
        let (rows, cols) = shape(config, site);
        // Half a Gram matrix; a factor in f64; each row of weights by the triangle.
        self.tokens * cols * cols / 2.0 + cols.powi(3) + rows * cols * cols
    }

    fn observing(&self, config: &ModelConfig) -> f64 {
        let site = |site| {
            let (_, cols) = shape(config, site);
            self.forward(config, site) + self.tokens * cols * cols / 2.0
        };
        layer_sites(0).into_iter().map(site).sum()
    }

    fn searching(&self, config: &ModelConfig) -> f64 {
        let site = |site| {
            let (rows, cols) = shape(config, site);
            self.candidates * rows * cols * cols
        };
        layer_sites(0).into_iter().map(site).sum()
    }

    /// The statistics of a whole layer are gathered.
    pub(super) fn observed(&mut self, config: &ModelConfig, l: usize) -> Result<()> {
        self.add(self.observing(config), l)
    }

    /// A whole layer is searched and rounded.
    pub(super) fn quantized_layer(&mut self, config: &ModelConfig, l: usize) -> Result<()> {
        self.add(self.searching(config), l)
    }

    /// The statistics of an input are gathered and its linears quantized.
    pub(super) fn quantized(&mut self, config: &ModelConfig, site: LinearSite) -> Result<()> {
        self.add(self.solving(config, site), site.layer().unwrap_or(0))
    }

    /// The sequences went through the linears of an input.
    pub(super) fn passed(&mut self, config: &ModelConfig, site: LinearSite) -> Result<()> {
        self.add(self.forward(config, site), site.layer().unwrap_or(0))
    }

    fn add(&mut self, work: f64, layer: usize) -> Result<()> {
        self.done += work;
        let done = (self.done / self.total.max(1.0)).min(1.0);
        match (self.report)(Progress { done, layer }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::Usage("stopped; the same call goes on from the last finished layer".to_owned()))
            }
        }
    }
}
