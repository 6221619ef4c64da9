//! Some rows of what a layer's linears read, and the largest value of every channel.

use super::observe::{KEPT_BACK, layer_sites, see_inputs};
use super::statistics;
use crate::checkpoint::hf_name;
use crate::fold::Folds;
use crate::model::{LayerWalk, LinearSite};
use crate::{Error, Result};
use activation_quant::{Group, Inputs, Member, SampleRows, SmoothError};
use quant_core::input_stats::{Detail, InputStats};
use std::collections::BTreeMap;

/// Rows of an input that scales are fitted to; half as many check them.
const FIT_ROWS: usize = 256;

/// Of all inputs of a layer.
pub(super) struct Seen(BTreeMap<LinearSite, SeenInput>);

struct SeenInput {
    fit: Rows,
    check: Rows,
    /// Of all rows that are not kept back.
    stats: InputStats,
}

/// Values, and the squared length of the residual stream at each row.
#[derive(Clone, Default)]
struct Rows {
    values: Vec<f32>,
    residual: Vec<f64>,
}

impl Seen {
    /// Runs the sequences through the layer; they go on if `carry`. One in four is kept back. `row_limit` as in
    /// [`LayerwisePlan`](super::LayerwisePlan), for the maxima.
    pub(super) fn new(
        walk: &LayerWalk<'_>,
        l: usize,
        hidden: &mut [Vec<f32>],
        carry: bool,
        row_limit: Option<f32>,
    ) -> Result<Self> {
        let sequences = hidden.len();
        let kept_back = sequences / KEPT_BACK;
        let width = walk.config().hidden_size.max(1);
        let mut all: BTreeMap<LinearSite, SeenInput> = BTreeMap::new();
        for site in layer_sites(l) {
            let columns = walk.linears(site).first().map_or(0, |linear| linear.2);
            let stats = InputStats::new(columns, Detail::Diagonal);
            all.insert(site, SeenInput { fit: Rows::default(), check: Rows::default(), stats });
        }
        see_inputs(walk, l, hidden, carry, &mut |index, site, x, residual| {
            let Some(seen) = all.get_mut(&site) else { return Ok(()) };
            let (is_check, columns) = (index % KEPT_BACK == KEPT_BACK - 1, seen.stats.columns().max(1));
            let (rows, wanted, of) = match is_check {
                true => (&mut seen.check, FIT_ROWS / 2, kept_back),
                false => (&mut seen.fit, FIT_ROWS, sequences - kept_back),
            };
            let tokens = x.len() / columns;
            let count = wanted.div_ceil(of.max(1)).min(tokens);
            for i in 0..count {
                // Spread over the sequence, its first token among them.
                let at = i * tokens / count;
                rows.values.extend_from_slice(&x[at * columns..][..columns]);
                let length = |row: &[f32]| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                rows.residual.push(length(&residual[at * width..][..width]));
            }
            match is_check {
                true => Ok(()),
                false => statistics::add_named(&mut seen.stats, &|| site.weight_names(), row_limit, x),
            }
        })?;
        Ok(Self(all))
    }

    /// Ready for searching; `None` if there were no rows.
    pub(super) fn inputs(&self, site: LinearSite) -> Result<Option<Inputs>> {
        let Some(seen) = self.0.get(&site).filter(|seen| !seen.fit.values.is_empty()) else { return Ok(None) };
        let adds = matches!(site, LinearSite::AttentionOutput(_) | LinearSite::FfnDown(_));
        let failed = |e| failed(site, e);
        let rows = |rows: &Rows| {
            let Rows { values, residual } = rows.clone();
            SampleRows::new(values, seen.stats.columns(), adds.then_some(residual)).map_err(failed)
        };
        let check = if seen.check.values.is_empty() { None } else { Some(rows(&seen.check)?) };
        let inputs = Inputs::new(rows(&seen.fit)?, check).map_err(failed)?;
        Ok(Some(inputs.with_abs_max(seen.stats.abs_max()).map_err(failed)?))
    }
}

/// The weights of all linears that read an input.
pub(super) struct SiteWeights {
    matrices: Vec<(Vec<f32>, usize)>,
    ties: Option<Vec<u32>>,
}

impl SiteWeights {
    /// As `walk` has them, rows divided as `folds` say.
    pub(super) fn load(walk: &LayerWalk<'_>, site: LinearSite, folds: &Folds) -> Result<Self> {
        let mut matrices = Vec::new();
        for (name, rows, cols) in walk.linears(site) {
            let mut values = walk.weight(&name, rows, cols)?;
            // It changes no rounding, but the largest weights of a channel.
            if let Some(mut fold) = folds.of_tensor(&name) {
                fold.columns = None;
                fold.apply(0, cols, &mut values);
            }
            matrices.push((values, rows));
        }
        let config = walk.config();
        let ties = matches!(site, LinearSite::AttentionOutput(_))
            .then(|| awq::grouped_query_ties(config.num_heads, config.num_kv_heads, config.head_dim));
        Ok(Self { matrices, ties })
    }

    pub(super) fn members(&self) -> Vec<Member<'_>> {
        self.matrices.iter().map(|(weights, rows)| Member { weights, out_features: *rows }).collect()
    }

    pub(super) fn group<'a>(&'a self, members: &'a [Member<'a>]) -> Group<'a> {
        Group { members, ties: self.ties.as_deref() }
    }
}

pub(super) fn failed(site: LinearSite, error: SmoothError) -> Error {
    let names: Vec<String> = site.weight_names().iter().filter_map(|n| hf_name(n)).collect();
    let what = format!("`{}`: {error}", names.join("`, `"));
    match error {
        SmoothError::NotFinite { .. } => Error::NotFinite(what),
        _ => Error::Usage(what),
    }
}
