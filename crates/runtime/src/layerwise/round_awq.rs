//! Matrices rounded to nearest as AWQ does it, scaled and clipped.

use super::layer::{QuantizedLayer, of_layer};
use super::plan::{AwqRounding, Modules, awq_options};
use super::report::ModuleReport;
use super::scales::{self, SiteInputs};
use crate::Result;
use crate::model::{LayerWalk, LinearSite};
use std::time::Instant;

/// Rounds all matrices of a layer. `walk` has no scales folded in; those of `layer` are applied here.
pub(super) fn layer(
    walk: &LayerWalk<'_>,
    modules: &Modules,
    l: usize,
    inputs: &SiteInputs,
    awq: &AwqRounding,
    layer: &mut QuantizedLayer,
) -> Result<()> {
    for (site, module) in of_layer(modules, l) {
        let Some(spec) = &module.spec else { continue };
        let start = Instant::now();
        let options = awq_options(&awq.options, spec);
        let failed = |e| scales::failed(&module.name, e);
        let weights = scales::divided_weights(walk, module, &layer.folds)?;
        let scales = match layer.folds.scales(site) {
            Some(scales) => scales.to_vec(),
            None => vec![1.0; module.cols],
        };
        let inputs = inputs.get(&site);
        let before_softmax = matches!(site, LinearSite::AttentionInput(_)) && !module.gguf_name.contains("attn_v");
        let clip = match inputs {
            Some(inputs) if awq.clip && (awq.clip_qk || !before_softmax) => {
                Some(awq::search_clip(inputs, &weights, module.rows, &scales, &options).map_err(failed)?)
            }
            _ => None,
        };
        let quantized = awq::round(&weights, module.rows, &scales, clip.as_ref(), inputs, &options).map_err(failed)?;
        let (matrix, report) = (quantized.matrix, quantized.report);
        layer.reports.push(ModuleReport {
            name: module.name.clone(),
            method: "awq",
            bits: options.bits.get(),
            group_size: matrix.group_size(),
            bits_per_weight: matrix.bits_per_weight(),
            loss: report.loss,
            nmse: report.nmse,
            damp: None,
            fallback: None,
            dead_columns: 0,
            clipped_groups: Some(report.clipped_groups),
            seconds: start.elapsed().as_secs_f64(),
        });
        layer.matrices.push((module.name.clone(), matrix.into()));
    }
    Ok(())
}
