//! How far a run is, weighed by the work that each step takes.

use crate::model::{LayerWalk, LinearSite};
use crate::{Error, Result};
use std::ops::ControlFlow;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqProgress {
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
    report: &'a mut dyn FnMut(GptqProgress) -> ControlFlow<()>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(
        walk: &LayerWalk<'_>,
        sequences: &[Vec<u32>],
        report: &'a mut dyn FnMut(GptqProgress) -> ControlFlow<()>,
    ) -> Self {
        let tokens = sequences.iter().map(Vec::len).sum::<usize>() as f64;
        let mut meter = Self { done: 0.0, total: 0.0, tokens, report };
        let sites = [
            LinearSite::AttentionInput(0),
            LinearSite::AttentionOutput(0),
            LinearSite::FfnInput(0),
            LinearSite::FfnDown(0),
        ];
        meter.total = sites.iter().map(|&s| meter.site_work(walk, s) + meter.forward_work(walk, s)).sum::<f64>()
            * walk.config().num_layers as f64;
        meter
    }

    fn forward_work(&self, walk: &LayerWalk<'_>, site: LinearSite) -> f64 {
        self.tokens * walk.linears(site).iter().map(|(_, rows, cols)| (rows * cols) as f64).sum::<f64>()
    }

    fn site_work(&self, walk: &LayerWalk<'_>, site: LinearSite) -> f64 {
        let linears = walk.linears(site);
        let cols = linears.first().map_or(0, |l| l.2) as f64;
        // Half a Gram matrix; a factor in f64; each row of weights by the triangle.
        let rows: usize = linears.iter().map(|l| l.1).sum();
        self.tokens * cols * cols / 2.0 + cols.powi(3) + rows as f64 * cols * cols
    }

    /// The statistics of an input are gathered and its linears quantized.
    pub(super) fn quantized(&mut self, walk: &LayerWalk<'_>, site: LinearSite) -> Result<()> {
        self.add(self.site_work(walk, site), site)
    }

    /// The sequences went through the linears of an input.
    pub(super) fn passed(&mut self, walk: &LayerWalk<'_>, site: LinearSite) -> Result<()> {
        self.add(self.forward_work(walk, site), site)
    }

    fn add(&mut self, work: f64, site: LinearSite) -> Result<()> {
        self.done += work;
        let (LinearSite::AttentionInput(l)
        | LinearSite::AttentionOutput(l)
        | LinearSite::FfnInput(l)
        | LinearSite::FfnDown(l)) = site
        else {
            return Ok(());
        };
        let done = (self.done / self.total.max(1.0)).min(1.0);
        match (self.report)(GptqProgress { done, layer: l }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(Error::Usage("stopped; the same call goes on from the last finished layer".to_owned()))
            }
        }
    }
}
