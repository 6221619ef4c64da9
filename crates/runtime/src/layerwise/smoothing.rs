//! SmoothQuant's scales of a whole model: layer by layer, on what its linears read in full precision.

use super::calibration_sequences;
use super::observe::layer_sites;
use super::seen::{Seen, SiteWeights, failed};
use crate::calibrate::CalibrationSet;
use crate::fold::{Folds, Rotations, divide_stored};
use crate::model::{LayerWalk, LinearSite};
use crate::{Checkpoint, Error, Result};
use activation_quant::{SmoothOptions, Smoothing, smooth};
use gguf_format::GgmlType;
use safetensors::Dtype;
use std::ops::ControlFlow;

/// What was found for an input.
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothedInput {
    /// Which one.
    pub site: LinearSite,
    /// The migration strength; 0 where the input keeps its scale.
    pub strength: f64,
    /// Loss of the rows fitted to beside that of plain rounding.
    pub loss: f64,
    /// The same on the rows kept back.
    pub check_loss: Option<f64>,
}

/// A smoothed model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Smoothed {
    /// The scales.
    pub folds: Folds,
    /// Input by input, in the order of the forward pass.
    pub inputs: Vec<SmoothedInput>,
}

/// Searches the scales of all inputs, on the model as it is, rotated. One sequence in four is kept back and has to confirm what was found.
/// The input of down keeps its scale where it is rotated. `row_limit` as in [`LayerwisePlan`](super::LayerwisePlan).
///
/// # Errors
/// [`Error::Usage`]: no sequences, or such that do not fit the model's context; `progress` (the part that is done) broke off. [`Error::NotFinite`] naming the
/// module whose weights or inputs are NaN or infinite. What [`Model::load`](crate::Model::load) refuses.
pub fn search_smoothing(
    checkpoint: &Checkpoint,
    rotations: &Rotations,
    options: &SmoothOptions,
    row_limit: Option<f32>,
    set: &CalibrationSet,
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Smoothed> {
    let config = checkpoint.config()?;
    let mut walk = LayerWalk::new(checkpoint, &config)?;
    walk.set_rotations(*rotations);
    let sequences = calibration_sequences(&config, Some(set))?;
    let mut hidden = sequences.iter().map(|tokens| walk.embed(tokens)).collect::<Result<Vec<_>>>()?;
    let mut smoothed = Smoothed::default();
    for l in 0..config.num_layers {
        let seen = Seen::new(&walk, l, &mut hidden, l + 1 < config.num_layers, row_limit)?;
        for site in layer_sites(l) {
            if matches!(site, LinearSite::FfnDown(_)) && rotations.down().is_some() {
                continue;
            }
            let Some(inputs) = seen.inputs(site)? else { continue };
            let weights = SiteWeights::load(&walk, site, &smoothed.folds)?;
            let found = smooth(&inputs, &weights.group(&weights.members()), options).map_err(|e| failed(site, e))?;
            let Smoothing { strength, loss, check_loss, .. } = found;
            smoothed.inputs.push(SmoothedInput { site, strength, loss, check_loss });
            if found.declined.is_none() {
                let mut values = found.values;
                storable(&walk, site, &mut values)?;
                smoothed.folds.insert(&config, site, values)?;
            }
        }
        if progress((l + 1) as f64 / config.num_layers as f64).is_break() {
            return Err(Error::Usage("stopped while scales were searched".to_owned()));
        }
    }
    Ok(smoothed)
}

/// Makes the scales such that the norm before the input, where there is one, holds its quotient as its type has it.
fn storable(walk: &LayerWalk<'_>, site: LinearSite, scales: &mut [f32]) -> Result<()> {
    let name = match site {
        LinearSite::AttentionInput(l) => format!("blk.{l}.attn_norm.weight"),
        LinearSite::FfnInput(l) => format!("blk.{l}.ffn_norm.weight"),
        _ => return Ok(()),
    };
    let weight = walk.optional_vector(&name, scales.len())?.unwrap_or_default();
    let dtype = match walk.stored_type(&name)? {
        Some(GgmlType::F16) => Dtype::F16,
        Some(GgmlType::BF16) => Dtype::BF16,
        _ => Dtype::F32,
    };
    divide_stored(dtype, &weight, scales);
    Ok(())
}
