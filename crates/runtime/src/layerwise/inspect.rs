//! How hard what a model's linears read is to round, and what helps.

use super::calibration_sequences;
use super::observe::layer_sites;
use super::seen::{Seen, SiteWeights, failed};
use crate::calibrate::CalibrationSet;
use crate::fold::{Folds, Rotations};
use crate::model::{LayerWalk, LinearSite};
use crate::{Checkpoint, Error, Result};
use activation_quant::{Profile, Scheme, SmoothOptions, output_error, smooth};
use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScales, RangeMethod, ValueRange};
use std::ops::ControlFlow;

/// One input: its shape, and what becomes of the outputs of the linears that read it.
#[derive(Clone, Debug, PartialEq)]
pub struct InputReport {
    /// Which one.
    pub site: LinearSite,
    /// As it is, over the rows that were fitted to.
    pub profile: Profile,
    /// As it is in the rotated model.
    pub rotated: Profile,
    /// Largest values by channel after division by the scales that [`smooth`] finds.
    pub smoothed_max: Vec<f32>,
    /// The migration strength of these; 0 where scales do not help.
    pub strength: f64,
    /// Errors of the outputs.
    pub errors: SchemeErrors,
}

/// Root of the squared error of the outputs beside their squares, on rows that nothing was fitted to where there are enough sequences; the mean square over
/// the linears that read the input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchemeErrors {
    /// INT8 weights, activations as they are.
    pub weights: f64,
    /// INT8 weights and activations, a scale per token.
    pub int8: f64,
    /// The same with one static scale, of least squared error on the rows fitted to.
    pub int8_static: f64,
    /// FP8 E4M3 both, a scale per token.
    pub fp8: f64,
    /// INT8, smoothed.
    pub smoothed: f64,
    /// INT8 in the rotated model, what down reads rotated too.
    pub rotated: f64,
}

/// Looks at all inputs of the model, layer by layer: the sequences run through it in full precision, twice, once rotated.
///
/// # Errors
/// As [`search_smoothing`](super::search_smoothing).
pub fn inspect_activations(
    checkpoint: &Checkpoint,
    set: &CalibrationSet,
    row_limit: Option<f32>,
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Vec<InputReport>> {
    let config = checkpoint.config()?;
    let walk = LayerWalk::new(checkpoint, &config)?;
    let mut turned = LayerWalk::new(checkpoint, &config)?;
    turned.set_rotations(Rotations::with_down(&config));
    let sequences = calibration_sequences(&config, Some(set))?;
    let mut hidden = sequences.iter().map(|tokens| walk.embed(tokens)).collect::<Result<Vec<_>>>()?;
    let mut rotated = sequences.iter().map(|tokens| turned.embed(tokens)).collect::<Result<Vec<_>>>()?;
    let mut reports = Vec::new();
    for l in 0..config.num_layers {
        let goes_on = l + 1 < config.num_layers;
        let seen = Seen::new(&walk, l, &mut hidden, goes_on, row_limit)?;
        let seen_rotated = Seen::new(&turned, l, &mut rotated, goes_on, row_limit)?;
        for site in layer_sites(l) {
            reports.extend(report(site, (&walk, &seen), (&turned, &seen_rotated))?);
        }
        if progress((l + 1) as f64 / config.num_layers as f64).is_break() {
            return Err(Error::Usage("stopped".to_owned()));
        }
    }
    Ok(reports)
}

fn report(
    site: LinearSite,
    (walk, seen): (&LayerWalk<'_>, &Seen),
    (turned, seen_rotated): (&LayerWalk<'_>, &Seen),
) -> Result<Option<InputReport>> {
    let (Some(inputs), Some(rotated)) = (seen.inputs(site)?, seen_rotated.inputs(site)?) else { return Ok(None) };
    let options = SmoothOptions::default();
    let weights = SiteWeights::load(walk, site, &Folds::new())?;
    let members = weights.members();
    let group = weights.group(&members);
    let failed = |e| failed(site, e);
    let smoothing = smooth(&inputs, &group, &options).map_err(failed)?;

    let int8 = ActivationGrid::Int8 { symmetric: true };
    let mut range = ValueRange::new();
    range
        .add(inputs.fit().values())
        .map_err(|(_, value)| Error::NotFinite(format!("{value} among inputs of {site:?}")))?;
    let fixed = ActivationScales::Static(range.scale(int8, RangeMethod::Mse));
    let fixed = Scheme { activations: Some(ActivationQuantizer { grid: int8, scales: fixed }), ..Scheme::INT8 };
    let weights_alone = Scheme { activations: None, ..Scheme::INT8 };
    let rows = inputs.kept_back();
    let error = |scheme, scales| {
        Ok::<_, Error>(output_error(rows, &group, scheme, scales, options.weight_rows).map_err(failed)?.sqrt())
    };
    let errors = SchemeErrors {
        weights: error(weights_alone, None)?,
        int8: error(Scheme::INT8, None)?,
        int8_static: error(fixed, None)?,
        fp8: error(Scheme::FP8, None)?,
        smoothed: error(Scheme::INT8, Some(&smoothing.values))?,
        rotated: 0.0,
    };
    drop(members);
    let weights = SiteWeights::load(turned, site, &Folds::new())?;
    let of_rotated =
        output_error(rotated.kept_back(), &weights.group(&weights.members()), Scheme::INT8, None, options.weight_rows);
    let errors = SchemeErrors { rotated: of_rotated.map_err(failed)?.sqrt(), ..errors };
    let profile = Profile::new(inputs.fit());
    Ok(Some(InputReport {
        site,
        smoothed_max: profile.abs_max.iter().zip(&smoothing.values).map(|(max, s)| max / s).collect(),
        profile,
        rotated: Profile::new(rotated.fit()),
        strength: smoothing.strength,
        errors,
    }))
}
