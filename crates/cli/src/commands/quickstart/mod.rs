//! `quant quickstart`: the bundled model through every method.

mod bundled;
mod methods;

use crate::error::{CliError, CliResult};
use crate::{input, output, progress, table};
use methods::METHODS;
use quant_runtime::calibrate::{CalibrationOptions, CalibrationSet, Placement, calibrate_to_file, to_imatrix};
use quant_runtime::convert::ModelSource;
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, SpeedOptions, evaluate, measure_speed};
use quant_runtime::generate::{GenerateOptions, Generator, SamplingOptions};
use quant_runtime::quantize::Importance;
use quant_runtime::{CacheChoice, Checkpoint, Device, Error, Model, Tokenizer};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Text written for this project, which the model has not seen.
const TEXT: &str = include_str!("../../../../../models/pocket-6m-texts/evaluation.txt");
const PROMPT: &str = "The king looked at the sea and";
const CTX: usize = 256;
/// Texts that the model samples for its own calibration, and their length in tokens.
const SAMPLES: (u64, usize) = (24, 250);
/// Tokens of the sentence that each file writes.
const SENTENCE: usize = 32;

/// Quantize the bundled model by every method, load each result again, and show what it cost.
///
/// Perplexity and divergence from the original are measured on a text written for this project, or on --text. What needs calibration gets texts
/// that the model samples itself with fixed seeds, or --calibration.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Keep the files here [default: a temporary folder that is removed].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Evaluate on this text, UTF-8; line ends are read as LF.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Chunks of 256 tokens of the text to evaluate, at most.
    #[arg(long, value_name = "N", default_value_t = 48)]
    chunks: usize,
    /// Calibrate on this text, UTF-8.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One line of the table.
struct Row {
    method: String,
    bytes: u64,
    bits_per_weight: f64,
    ppl: f64,
    kl_mean: f64,
    same_top1: f64,
    tokens_per_second: f64,
    text: String,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let text = self.text.as_deref().map(input::read_text).transpose()?.unwrap_or_else(|| TEXT.to_owned());
        let temporary;
        let out = match &self.out {
            Some(dir) => dir.as_path(),
            None => {
                temporary = tempfile::tempdir().map_err(|e| CliError::Failed(format!("temporary folder: {e}")))?;
                temporary.path()
            }
        };
        let dir = out.join("pocket-6m");
        bundled::unpack(&dir)?;
        let checkpoint = Checkpoint::open(&dir)?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let original = Model::load(&checkpoint, &Device::Cpu)?;
        let source = ModelSource::open(&checkpoint)?;

        let plan = EvalPlan::from_text(&tokenizer, &text, CTX, Some(self.chunks))?;
        let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&original))?;
        let set = self.calibration(&original, &tokenizer)?;
        let importance = importance(&original, &set, out)?;

        let bar = progress::bar("quickstart", METHODS.len());
        let mut rows = Vec::new();
        for method in METHODS {
            let file = out.join(method.file_name());
            let made = method.run(&dir, &source, &set, &importance, &file)?;

            let checkpoint = Checkpoint::open(&file)?;
            let model = Model::load(&checkpoint, &Device::Cpu)?;
            let eval = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| ())?;
            let against = eval.base.ok_or_else(|| CliError::Failed("no divergence was measured".to_owned()))?;
            let speed = SpeedOptions { prompt: 0, generate: 64, repetitions: 3, depth: 0, cache: CacheChoice::F32 };
            let speed = measure_speed(&model, speed, &mut |_| ())?;
            rows.push(Row {
                method: method.to_string(),
                bytes: made.bytes,
                bits_per_weight: made.bits_per_weight,
                ppl: eval.ppl,
                kl_mean: against.kl.mean,
                same_top1: against.same_top1,
                tokens_per_second: speed.first().map_or(0.0, |s| s.median()),
                text: sample(&model, &Tokenizer::from_checkpoint(&checkpoint)?, PROMPT, 7, SENTENCE)?,
            });
            bar.set_position(rows.len() as u64);
        }
        bar.finish_and_clear();
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|r| {
                    json!({
                        "method": r.method, "bytes": r.bytes, "bits_per_weight": r.bits_per_weight, "ppl": r.ppl,
                        "kl_mean": r.kl_mean, "same_top1": r.same_top1, "tokens_per_second": r.tokens_per_second,
                        "text": r.text,
                    })
                })
                .collect();
            return output::print_json(&json!({"rows": rows}));
        }
        self.print(&rows)
    }

    /// The calibration text, or what the model itself writes.
    fn calibration(&self, model: &Model, tokenizer: &Tokenizer) -> CliResult<CalibrationSet> {
        let (text, name) = match &self.calibration {
            Some(file) => (input::read_text(file)?, input::file_name(file)),
            None => {
                let texts: Result<Vec<_>, _> =
                    (0..SAMPLES.0).map(|seed| sample(model, tokenizer, "", seed, SAMPLES.1)).collect();
                (texts?.join("\n\n"), "sampled by the model".to_owned())
            }
        };
        Ok(CalibrationSet::from_text(tokenizer, &text, &name, 128, CTX, Placement::Spread)?)
    }

    fn print(&self, rows: &[Row]) -> CliResult {
        let cells: Vec<_> = rows
            .iter()
            .map(|r| {
                vec![
                    r.method.clone(),
                    r.bytes.to_string(),
                    format!("{:.3}", r.bits_per_weight),
                    format!("{:.2}", r.ppl),
                    format!("{:.6}", r.kl_mean),
                    format!("{:.2} %", r.same_top1 * 100.0),
                    format!("{:.0}", r.tokens_per_second),
                ]
            })
            .collect();
        let header = ["method", "bytes", "bits/weight", "perplexity", "mean KL", "same top-1", "tokens/s"];
        output::to_stdout(|out| {
            writeln!(out, "{}", table::render(&header, &cells))?;
            for r in rows {
                writeln!(out, "{}: {PROMPT}{}", r.method, r.text.replace('\n', " "))?;
            }
            match &self.out {
                Some(dir) => writeln!(out, "\nfiles: {}", dir.display()),
                None => Ok(()),
            }
        })
    }
}

/// Importance weights, by way of the files that a user would have.
fn importance(model: &Model, set: &CalibrationSet, out: &Path) -> CliResult<Importance> {
    let stats = out.join("pocket-6m.stats.safetensors");
    let summary = calibrate_to_file(model, set, CalibrationOptions::default(), stats, &mut |_| ())?;
    let path = out.join("pocket-6m.imatrix.gguf");
    let imatrix = to_imatrix(summary.stats.iter().map(|(site, stats)| (site, stats)), set);
    imatrix.write(&path).map_err(|e| Error::gguf(&path, e))?;
    Ok(Importance::open(&path)?)
}

/// What the model writes after `prompt`.
fn sample(model: &Model, tokenizer: &Tokenizer, prompt: &str, seed: u64, tokens: usize) -> CliResult<String> {
    let sampling = SamplingOptions { seed, ..SamplingOptions::default() };
    let options = GenerateOptions { max_tokens: tokens, sampling, ..GenerateOptions::default() };
    let ids = tokenizer.encode(prompt, true, false)?;
    Ok(Generator::new(model, tokenizer, options)?.generate(&ids, |_| ControlFlow::Continue(()))?.text)
}
