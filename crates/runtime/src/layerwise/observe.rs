//! A layer as it is, in full precision, and what its linears read.

use super::plan::Modules;
use super::statistics;
use crate::Result;
use crate::model::{DenseWeights, LayerParts, LayerWalk, LinearSite};
use quant_core::input_stats::InputStats;
use std::collections::BTreeMap;

/// One sequence in this many is kept back: what is fitted to the others has to hold on it.
pub(super) const KEPT_BACK: usize = 4;

/// Statistics of an input over the sequences to fit to, and over those that were kept back, if there are enough for both.
pub(super) struct Split {
    pub(super) fit: InputStats,
    pub(super) check: Option<InputStats>,
}

/// The weights of a layer.
struct Weights {
    qkv: DenseWeights,
    o: DenseWeights,
    gate_up: DenseWeights,
    down: DenseWeights,
}

/// The inputs of a layer's linears.
pub(super) fn layer_sites(l: usize) -> [LinearSite; 4] {
    [LinearSite::AttentionInput(l), LinearSite::AttentionOutput(l), LinearSite::FfnInput(l), LinearSite::FfnDown(l)]
}

/// Runs the sequences through layer `l` and gathers the statistics of its `wanted` inputs. The sequences go on through it if `carry`.
pub(super) fn observe(
    walk: &LayerWalk<'_>,
    modules: &Modules,
    row_limit: Option<f32>,
    l: usize,
    hidden: &mut [Vec<f32>],
    wanted: impl Fn(LinearSite) -> bool,
    carry: bool,
) -> Result<BTreeMap<LinearSite, Split>> {
    let mut splits = BTreeMap::new();
    let splits_back = hidden.len() >= KEPT_BACK;
    for site in layer_sites(l).into_iter().filter(|&site| wanted(site)) {
        let of_site = modules.get(&site).map_or(&[][..], Vec::as_slice);
        let check = splits_back.then(|| statistics::empty(of_site));
        splits.insert(site, Split { fit: statistics::empty(of_site), check });
    }
    see_inputs(walk, l, hidden, carry, &mut |index, site, input, _| {
        let Some(split) = splits.get_mut(&site) else { return Ok(()) };
        let of_site = modules.get(&site).map_or(&[][..], Vec::as_slice);
        let stats = match &mut split.check {
            Some(check) if index % KEPT_BACK == KEPT_BACK - 1 => check,
            _ => &mut split.fit,
        };
        statistics::add(stats, of_site, row_limit, input)
    })?;
    Ok(splits)
}

/// Runs the sequences through layer `l` and shows every input to `see`: number of the sequence, site, input, and the residual stream at that place. The
/// sequences go on through it if `carry`.
pub(super) fn see_inputs(
    walk: &LayerWalk<'_>,
    l: usize,
    hidden: &mut [Vec<f32>],
    carry: bool,
    see: &mut dyn FnMut(usize, LinearSite, &[f32], &[f32]) -> Result<()>,
) -> Result<()> {
    let parts = walk.layer(l)?;
    let weights = Weights::load(walk, l)?;
    for (index, x) in hidden.iter_mut().enumerate() {
        weights.forward(walk, &parts, l, x, carry, &mut |site, input, x| see(index, site, input, x))?;
    }
    Ok(())
}

impl Weights {
    fn load(walk: &LayerWalk<'_>, l: usize) -> Result<Self> {
        let [qkv, o, gate_up, down] = layer_sites(l).map(|site| walk.dense(site));
        Ok(Self { qkv: qkv?, o: o?, gate_up: gate_up?, down: down? })
    }

    /// One sequence, its inputs shown to `see`.
    fn forward(
        &self,
        walk: &LayerWalk<'_>,
        parts: &LayerParts,
        l: usize,
        x: &mut Vec<f32>,
        carry: bool,
        see: &mut dyn FnMut(LinearSite, &[f32], &[f32]) -> Result<()>,
    ) -> Result<()> {
        let start = (!carry).then(|| x.clone());
        let input = parts.attention_input(x)?;
        see(LinearSite::AttentionInput(l), &input, x)?;
        let mixed = parts.attention(walk, &self.qkv, &input)?;
        see(LinearSite::AttentionOutput(l), &mixed, x)?;
        parts.add_attention(&self.o, &mixed, x)?;
        let input = parts.ffn_input(x)?;
        see(LinearSite::FfnInput(l), &input, x)?;
        let gated = parts.gated(&self.gate_up, &input)?;
        see(LinearSite::FfnDown(l), &gated, x)?;
        match start {
            None => parts.add_ffn(&self.down, &gated, x)?,
            Some(start) => *x = start,
        }
        Ok(())
    }
}
