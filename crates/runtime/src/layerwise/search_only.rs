//! AWQ's scales of a whole model, for files that other code writes.

use super::layer::LayerRun;
use super::plan::{LayerwisePlan, Module, Modules};
use super::progress::Meter;
use super::{Progress, calibration_sequences};
use crate::calibrate::CalibrationSet;
use crate::checkpoint::hf_name;
use crate::fold::Folds;
use crate::model::LayerWalk;
use crate::{Checkpoint, Result};
use gptq::checkpoint::ModuleSpec;
use std::ops::ControlFlow;

/// Finds the scales of all inputs, on the model as it is. `grid_of` gives the grid that a weight will be rounded to, by its GGUF name; where the first
/// linear of an input has none, the input keeps its scale. The model may be a GGUF file or a directory.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage): no sequences, or such that do not fit the model's context; `progress` broke off. [`Error::NotFinite`](crate::Error::NotFinite) naming the
/// module whose weights or inputs are NaN or infinite. What [`Model::load`](crate::Model::load) refuses.
pub fn search_awq_scales(
    checkpoint: &Checkpoint,
    grid_of: &dyn Fn(&str) -> Option<awq::Options>,
    set: &CalibrationSet,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Folds> {
    let config = checkpoint.config()?;
    let walk = LayerWalk::new(checkpoint, &config)?;
    let sequences = calibration_sequences(&config, Some(set))?;
    let mut modules = Modules::new();
    let mut first = None;
    for site in (0..config.num_layers).flat_map(super::observe::layer_sites) {
        for (gguf_name, rows, cols) in walk.linears(site) {
            let options = grid_of(&gguf_name);
            first = first.or(options);
            let spec = options.map(|o| ModuleSpec {
                bits: o.bits,
                group_size: o.group_size,
                sym: !o.zero_point,
                desc_act: false,
            });
            let name = hf_name(&gguf_name).unwrap_or_default().trim_end_matches(".weight").to_owned();
            modules.entry(site).or_default().push(Module { name, gguf_name, rows, cols, spec });
        }
    }
    let mut folds = Folds::new();
    let Some(options) = first else { return Ok(folds) };
    let plan = LayerwisePlan::awq(options);
    let mut meter = Meter::new(&config, &plan, sequences, progress);
    let mut run = LayerRun::new(walk, &plan, &modules, sequences)?;
    for l in 0..config.num_layers {
        let found = run.search(l, l + 1 < config.num_layers, &options, &mut meter)?;
        meter.quantized_layer(&config, l)?;
        folds.extend(found.folds);
    }
    Ok(folds)
}
