//! A whole model, a Hugging Face directory to a quantized one, layer by layer: one pipeline, the methods as parts.
//!
//! Before all else the model may be rotated and smoothed ([`crate::fold`]): what follows sees the model that came of it.
//!
//! For each decoder layer, in turn:
//! 1. If AWQ's scales or clips are asked for, the calibration sequences run through the layer as it is, and every linear's input is seen once. One sequence
//!    in four is kept back: what is fitted to the others must hold on it. Scales are folded into the norms and linears around ([`crate::fold`]).
//! 2. The linears are rounded. GPTQ takes the inputs one after the other, each from what was quantized before it (the paper's "true sequential"): its
//!    Gram matrix is factored once for all linears that read it, they are quantized, and the sequences go on through the quantized weights. AWQ needs the
//!    statistics of the first step only, and the sequences go on through the weights as they were.
//!
//! Memory holds one layer, its statistics, and the activations, whatever the model's size. Finished layers lie on disk. A run that was cut short goes on
//! after the last of them: the sequences run through the finished layers again, by the same arithmetic, so that the result is the same to the byte.
//!
//! ```no_run
//! use gptq::{Bits, Options};
//! use quant_runtime::calibrate::{CalibrationSet, Placement};
//! use quant_runtime::layerwise::{LayerwisePlan, quantize_model};
//! use quant_runtime::{Tokenizer, Checkpoint};
//! use std::ops::ControlFlow;
//!
//! let source = "models/Qwen2.5-0.5B-Instruct";
//! let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(source)?)?;
//! let text = std::fs::read_to_string("calibration.txt")?;
//! let set = CalibrationSet::from_text(&tokenizer, &text, "calibration.txt", 128, 512, Placement::Spread)?;
//! let plan = LayerwisePlan::gptq(Options::new(Bits::new(4).unwrap(), Some(128)));
//! let report = quantize_model(source, "Qwen2.5-0.5B-Instruct-gptq", &plan, Some(&set), &mut |_| ControlFlow::Continue(()))?;
//! for module in &report.modules {
//!     println!("{} {:?} {:.2e}", module.name, module.loss, module.nmse);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block_loss;
mod gptq_judge;
mod inspect;
mod layer;
mod observe;
mod plan;
mod progress;
mod report;
mod round_awq;
mod round_gptq;
mod scales;
mod search_only;
mod seen;
mod sequential;
mod smoothing;
mod statistics;
mod transformed;

pub use activation_quant::SmoothOptions;
pub use inspect::{InputReport, SchemeErrors, inspect_activations};
pub use plan::{ActivationSpec, AwqRounding, InputScales, LayerwisePlan, Layout, Rotation, Rounding, W8A8};
pub use progress::Progress;
pub use report::{LayerwiseReport, ModuleReport};
pub use search_only::search_awq_scales;
pub use smoothing::{Smoothed, SmoothedInput, search_smoothing};

use crate::calibrate::CalibrationSet;
use crate::fold::Folds;
use crate::hf_writer::WriteOptions;
use crate::model::LayerWalk;
use crate::packed_dir::PackedDirWriter;
use crate::{Checkpoint, Error, ModelConfig, Result};
use layer::LayerRun;
use progress::Meter;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Quantizes the linear layers of all decoder layers of the dense model in `source` and writes the directory `out`.
///
/// `set` is needed unless the plan only rounds. The result depends on source, plan and sequences alone, not on the number of threads, nor on whether
/// a run was cut short and taken up again.
///
/// # Errors
/// [`Error::Usage`]: no Hugging Face directory; a source that is quantized; a module whose shape its layout or groups do not fit, before any work; no
/// sequences; sequences that do not fit the model's context. [`Error::NotFinite`] naming the module whose weights or inputs are NaN or infinite.
/// [`Error::Usage`] when `progress` breaks off; finished layers stay for the next run. What [`PackedDirWriter`] refuses. Numerical trouble is none: modules are then rounded to nearest, and the report says why.
pub fn quantize_model(
    source: impl AsRef<Path>,
    out: impl AsRef<Path>,
    plan: &LayerwisePlan,
    set: Option<&CalibrationSet>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<LayerwiseReport> {
    let start = Instant::now();
    let (source, out) = (source.as_ref(), out.as_ref());
    let checkpoint = Checkpoint::open(source)?;
    let Checkpoint::HfDir(dir) = &checkpoint else {
        return Err(Error::Usage(format!("{}: a directory with safetensors is needed", source.display())));
    };
    let config = checkpoint.config()?;
    let mut walk = LayerWalk::new(&checkpoint, &config)?;
    let rotations = plan.rotation.of(&config);
    walk.set_rotations(rotations);
    let modules = plan.modules(&walk, source)?;
    let calibration = match plan.calibrates() {
        true => calibration_sequences(&config, set)?,
        false => &[],
    };
    let sequences = if plan.runs_sequences() { calibration } else { &[] };
    let options = WriteOptions {
        overwrite: plan.overwrite,
        resume: plan.resume,
        fingerprint: plan.fingerprint(set),
        ..WriteOptions::default()
    };
    let mut writer = PackedDirWriter::create(dir.clone(), out, plan.packed_config(&rotations)?, &options)?;
    let layers = config.num_layers;
    let smoothing = match (&plan.smooth, set) {
        (Some(options), Some(set)) => {
            let kept = writer.scratch(SMOOTHING_FILE);
            let mut of_all = |done: f64| progress(Progress { done: done * SMOOTHING_SHARE, layer: 0 });
            match kept.exists() {
                true => Folds::load(&config, &kept)?,
                false => {
                    let found =
                        search_smoothing(&checkpoint, &rotations, options, plan.row_limit, set, &mut of_all)?.folds;
                    found.save(&config, &kept)?;
                    found
                }
            }
        }
        _ => Folds::new(),
    };
    let smoothed_inputs = smoothing.sites().count();
    let before = if plan.smooth.is_some() { SMOOTHING_SHARE } else { 0.0 };
    let mut progress = |p: Progress| progress(Progress { done: before + (1.0 - before) * p.done, ..p });
    let mut meter = Meter::new(&config, plan, sequences, &mut progress);
    let mut run = LayerRun::new(walk, plan, &modules, sequences)?;
    run.smoothing = smoothing;
    let mut reports = Vec::new();
    let resumed = (0..layers).take_while(|&l| writer.is_done(l as u32)).count();
    for l in 0..layers {
        // After the last layer nothing reads the sequences.
        let goes_on = l + 1 < layers;
        if l < resumed {
            let (_, note) = writer.parts().find(|(index, _)| *index == l as u32).unwrap_or_default();
            reports.extend(report::from_note(note).ok_or_else(|| {
                Error::malformed(
                    out,
                    format!("the finished layer {l}"),
                    "the report it was written with",
                    "another text",
                )
            })?);
            if goes_on {
                let folds = match plan.scales {
                    Some(_) => Folds::load(&config, &writer.scratch(&scales_file(l)))?,
                    None => run.smoothing.of_layer(l),
                };
                let matrices = writer.matrices(l as u32)?;
                run.pass_through(l, &matrices, folds, &mut meter)?;
            }
            continue;
        }
        let mut part = writer.part(l as u32);
        let done = run.quantize(l, goes_on, &mut meter)?;
        for (module, matrix) in &done.matrices {
            part.module(module, matrix, done.biases.get(module).map(Vec::as_slice))?;
        }
        done.norms.into_iter().for_each(|norm| part.dense(norm));
        for (name, values) in &done.changed {
            part.replace(name, values, None)?;
        }
        if plan.scales.is_some() {
            // Before the layer counts as finished.
            done.folds.save(&config, &writer.scratch(&scales_file(l)))?;
        }
        writer.commit(part, &report::to_note(&done.reports))?;
        reports.extend(done.reports);
    }
    if rotations.unties() {
        let index = layers as u32;
        if !writer.is_done(index) {
            let mut part = writer.part(index);
            transformed::outside_layers(&run.walk)?.into_iter().for_each(|tensor| part.dense(tensor));
            writer.commit(part, "")?;
        }
        writer.set_config_key("tie_word_embeddings", false.into());
    }
    let written = writer.finish()?;
    let weights: u64 = dir.entries().map(|e| e.shape.iter().map(|&d| d as u64).product::<u64>()).sum();
    Ok(LayerwiseReport {
        bytes: written.bytes,
        bits_per_weight: written.bytes as f64 * 8.0 / weights.max(1) as f64,
        out: written.path,
        modules: reports,
        smoothed_inputs,
        resumed_layers: resumed,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Where SmoothQuant's scales are kept until then.
const SMOOTHING_FILE: &str = "smoothing.safetensors";

/// The part of the work that finding them counts as.
const SMOOTHING_SHARE: f64 = 0.3;

/// Where a layer's scales are kept until the directory is finished.
fn scales_file(l: usize) -> String {
    format!("scales-{l}.safetensors")
}

/// The sequences, if there are any and the model takes them.
fn calibration_sequences<'s>(config: &ModelConfig, set: Option<&'s CalibrationSet>) -> Result<&'s [Vec<u32>]> {
    let Some(set) = set.filter(|set| !set.sequences.is_empty()) else {
        return Err(Error::Usage("calibration sequences are needed".to_owned()));
    };
    let longest = set.sequences.iter().map(Vec::len).max().unwrap_or(0);
    if longest > config.max_context {
        let most = config.max_context;
        return Err(Error::Usage(format!("sequences of {longest} tokens do not fit the model's context of {most}")));
    }
    Ok(&set.sequences)
}
