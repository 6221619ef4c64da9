//! One decoder layer: scales found and folded if asked for, its linears quantized, the sequences carried on.

use super::observe::{KEPT_BACK, Split, layer_sites, observe};
use super::plan::{LayerwisePlan, Module, Modules, Rounding};
use super::progress::Meter;
use super::report::ModuleReport;
use super::scales::Judges;
use super::{round_awq, scales, transformed};
use crate::Result;
use crate::checkpoint::ModuleMatrix;
use crate::fold::Folds;
use crate::hf_writer::OwnedTensor;
use crate::model::{LayerWalk, LinearSite};
use std::collections::{BTreeMap, HashMap};

/// Sequences that blocks are judged by, at most.
const BLOCK_SAMPLES: usize = 4;

/// The sequences on their way through the model.
pub(super) struct LayerRun<'a> {
    pub(super) walk: LayerWalk<'a>,
    pub(super) plan: &'a LayerwisePlan,
    pub(super) modules: &'a Modules,
    /// Hidden state of each sequence, `[tokens, hidden]`.
    pub(super) hidden: Vec<Vec<f32>>,
    /// Scales that were found beforehand.
    pub(super) smoothing: Folds,
}

/// A layer's result.
#[derive(Default)]
pub(super) struct QuantizedLayer {
    pub(super) matrices: Vec<(String, ModuleMatrix)>,
    /// Biases that scales were folded into, by module.
    pub(super) biases: HashMap<String, Vec<f32>>,
    /// Norms that AWQ's scales were folded into.
    pub(super) norms: Vec<OwnedTensor>,
    /// Other tensors that rotations or scales changed, by the directory's name.
    pub(super) changed: Vec<(String, Vec<f32>)>,
    pub(super) folds: Folds,
    pub(super) reports: Vec<ModuleReport>,
}

impl<'a> LayerRun<'a> {
    pub(super) fn new(
        walk: LayerWalk<'a>,
        plan: &'a LayerwisePlan,
        modules: &'a Modules,
        sequences: &[Vec<u32>],
    ) -> Result<Self> {
        let hidden = sequences.iter().map(|tokens| walk.embed(tokens)).collect::<Result<_>>()?;
        Ok(Self { walk, plan, modules, hidden, smoothing: Folds::new() })
    }

    /// Quantizes a layer. The sequences go on through it if `goes_on`: through the quantized weights where errors are fed back, as GPTQ does it, else through
    /// the weights as they are, as AWQ does it.
    pub(super) fn quantize(&mut self, l: usize, goes_on: bool, meter: &mut Meter<'_>) -> Result<QuantizedLayer> {
        let mut layer = QuantizedLayer { folds: self.smoothing.of_layer(l), ..QuantizedLayer::default() };
        let awq = match self.plan.rounding {
            Rounding::Awq(awq) => Some(awq),
            _ => None,
        };
        let samples = self.samples();
        let mut splits = BTreeMap::new();
        if self.plan.scales.is_some() || awq.is_some_and(|awq| awq.clip) {
            splits = self.observe(l, |_| true, awq.is_some() && goes_on)?;
            meter.observed(self.walk.config(), l)?;
        }
        let inputs = scales::prepare(&splits)?;
        if awq.is_some() {
            splits.clear();
        }
        if let Some(options) = &self.plan.scales {
            let gptq = matches!(self.plan.rounding, Rounding::Gptq(_)).then_some((self.plan, &splits));
            let judges = Judges { samples: &samples, gptq };
            let found = scales::search(&self.walk, self.modules, l, &inputs, options, judges)?;
            layer.norms = found.norms;
            layer.folds = found.folds;
            layer.biases = scales::folded_biases(&self.walk, self.modules, l, &layer.folds)?;
        }
        match awq {
            Some(awq) => {
                round_awq::layer(&self.walk, self.modules, l, &inputs, &awq, &mut layer)?;
                meter.quantized_layer(self.walk.config(), l)?;
            }
            None => {
                drop((inputs, splits));
                self.walk.set_folds(layer.folds.clone());
                self.run_sequential(l, super::sequential::Weights::New(&mut layer), goes_on, meter)?;
            }
        }
        self.walk.set_folds(layer.folds.clone());
        transformed::add(&self.walk, self.modules, l, &mut layer)?;
        Ok(layer)
    }

    /// The scales of a layer's inputs. The sequences go on through it as it is if `goes_on`.
    pub(super) fn search(
        &mut self,
        l: usize,
        goes_on: bool,
        options: &awq::Options,
        meter: &mut Meter<'_>,
    ) -> Result<scales::Found> {
        let samples = self.samples();
        let splits = self.observe(l, |_| true, goes_on)?;
        meter.observed(self.walk.config(), l)?;
        let judges = Judges { samples: &samples, gptq: None };
        scales::search(&self.walk, self.modules, l, &scales::prepare(&splits)?, options, judges)
    }

    /// Where a few of the sequences that are kept back stand, if blocks are to be judged by them.
    fn samples(&self) -> Vec<Vec<f32>> {
        let wanted = if self.plan.block_loss && self.plan.scales.is_some() { BLOCK_SAMPLES } else { 0 };
        let kept_back = self.hidden.iter().skip(KEPT_BACK - 1).step_by(KEPT_BACK);
        let any = self.hidden.iter().take(usize::from(self.hidden.len() < KEPT_BACK));
        kept_back.chain(any).take(wanted).cloned().collect()
    }

    /// Carries the sequences through a layer that is quantized already.
    pub(super) fn pass_through(
        &mut self,
        l: usize,
        matrices: &HashMap<String, ModuleMatrix>,
        folds: Folds,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        if let Rounding::Awq(_) = self.plan.rounding {
            self.observe(l, |_| false, true)?;
            meter.observed(self.walk.config(), l)?;
            return meter.quantized_layer(self.walk.config(), l);
        }
        if self.plan.scales.is_some() {
            meter.observed(self.walk.config(), l)?;
        }
        self.walk.set_folds(folds);
        self.run_sequential(l, super::sequential::Weights::Done(matrices), true, meter)
    }

    fn observe(
        &mut self,
        l: usize,
        wanted: impl Fn(LinearSite) -> bool,
        carry: bool,
    ) -> Result<BTreeMap<LinearSite, Split>> {
        self.walk.set_folds(Folds::new());
        let needs = |site| wanted(site) && needs_stats(self.modules, site);
        observe(&self.walk, self.modules, self.plan.row_limit, l, &mut self.hidden, needs, carry)
    }
}

/// Whether any linear that reads the input is to be quantized.
pub(super) fn needs_stats(modules: &Modules, site: LinearSite) -> bool {
    of_site(modules, site).iter().any(|m| m.spec.is_some())
}

pub(super) fn of_site(modules: &Modules, site: LinearSite) -> &[Module] {
    modules.get(&site).map_or(&[], Vec::as_slice)
}

/// All modules of a layer.
pub(super) fn of_layer(modules: &Modules, l: usize) -> impl Iterator<Item = (LinearSite, &Module)> {
    layer_sites(l).into_iter().flat_map(move |site| of_site(modules, site).iter().map(move |m| (site, m)))
}
