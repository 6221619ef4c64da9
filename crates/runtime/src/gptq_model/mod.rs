//! GPTQ of a whole model: a Hugging Face directory to a GPTQ directory, layer by layer.
//!
//! The calibration sequences run through the model once. Before a linear layer is run its input is known, from the layers quantized before it (the
//! paper's "true sequential"): its Gram matrix is factored once for all linears that read it, they are quantized, and the sequences go on through
//! the quantized weights. Memory holds one layer, the statistics of one input, and the activations, whatever the model's size.
//!
//! Finished layers lie on disk. A run that was cut short goes on after the last of them: the sequences run through what is quantized already, by the
//! same arithmetic, so that the result is the same to the byte.
//!
//! ```no_run
//! use gptq::{Bits, Options};
//! use quant_runtime::calibrate::{CalibrationSet, Placement};
//! use quant_runtime::gptq_model::{GptqPlan, quantize_model};
//! use quant_runtime::{Tokenizer, Checkpoint};
//! use std::ops::ControlFlow;
//!
//! let source = "models/Qwen2.5-0.5B-Instruct";
//! let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(source)?)?;
//! let text = std::fs::read_to_string("calibration.txt")?;
//! let set = CalibrationSet::from_text(&tokenizer, &text, "calibration.txt", 128, 512, Placement::Spread)?;
//! let plan = GptqPlan::new(Options::new(Bits::new(4).unwrap(), Some(128)));
//! let report = quantize_model(source, "Qwen2.5-0.5B-Instruct-gptq", &plan, Some(&set), &mut |_| ControlFlow::Continue(()))?;
//! for module in &report.modules {
//!     println!("{} {:?} {:.2e}", module.name, module.loss, module.nmse);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layer;
mod plan;
mod progress;
mod report;

pub use plan::GptqPlan;
pub use progress::GptqProgress;
pub use report::{GptqReport, ModuleReport};

use crate::calibrate::CalibrationSet;
use crate::gptq_dir::GptqDirWriter;
use crate::hf_writer::WriteOptions;
use crate::model::LayerWalk;
use crate::{Checkpoint, Error, Result};
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
/// [`Error::Usage`] when `progress` breaks off; finished layers stay for the next run. What [`GptqDirWriter`] refuses. Numerical trouble is none: modules are then rounded to nearest, and the report says why.
pub fn quantize_model(
    source: impl AsRef<Path>,
    out: impl AsRef<Path>,
    plan: &GptqPlan,
    set: Option<&CalibrationSet>,
    progress: &mut dyn FnMut(GptqProgress) -> ControlFlow<()>,
) -> Result<GptqReport> {
    let start = Instant::now();
    let (source, out) = (source.as_ref(), out.as_ref());
    let checkpoint = Checkpoint::open(source)?;
    let Checkpoint::HfDir(dir) = &checkpoint else {
        return Err(Error::Usage(format!("{}: GPTQ takes a directory with safetensors", source.display())));
    };
    let config = checkpoint.config()?;
    let walk = LayerWalk::new(&checkpoint, &config)?;
    let modules = plan.modules(&walk, source)?;
    let sequences: &[Vec<u32>] = match set {
        _ if plan.round_to_nearest => &[],
        Some(set) if !set.sequences.is_empty() => &set.sequences,
        _ => return Err(Error::Usage("GPTQ needs calibration sequences".to_owned())),
    };
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    if longest > config.max_context {
        let most = config.max_context;
        return Err(Error::Usage(format!("sequences of {longest} tokens do not fit the model's context of {most}")));
    }
    let options = WriteOptions {
        overwrite: plan.overwrite,
        resume: plan.resume,
        fingerprint: plan.fingerprint(set),
        ..WriteOptions::default()
    };
    let mut writer = GptqDirWriter::create(dir.clone(), out, plan.layout()?, &options)?;
    let layers = config.num_layers;
    let mut meter = Meter::new(&walk, sequences, progress);
    let mut run = LayerRun::new(&walk, plan, &modules, sequences)?;
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
                let matrices = writer.matrices(l as u32)?;
                run.pass_through(l, &matrices, &mut meter)?;
            }
            continue;
        }
        let mut part = writer.part(l as u32);
        let done = run.quantize(l, goes_on, &mut meter)?;
        for (module, matrix) in &done.matrices {
            part.module(module, matrix, None)?;
        }
        writer.commit(part, &report::to_note(&done.reports))?;
        reports.extend(done.reports);
    }
    let written = writer.finish()?;
    let weights: u64 = dir.entries().map(|e| e.shape.iter().map(|&d| d as u64).product::<u64>()).sum();
    Ok(GptqReport {
        bytes: written.bytes,
        bits_per_weight: written.bytes as f64 * 8.0 / weights.max(1) as f64,
        out: written.path,
        modules: reports,
        resumed_layers: resumed,
        seconds: start.elapsed().as_secs_f64(),
    })
}
