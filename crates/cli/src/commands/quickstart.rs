//! `quant quickstart`: the bundled model through every method.

use crate::error::{CliError, CliResult};
use crate::{input, output, progress, table};
use gguf_format::mix::{FileType, MixOptions};
use quant_runtime::calibrate::{CalibrationOptions, CalibrationSet, Placement, calibrate_to_file, to_imatrix};
use quant_runtime::convert::ModelSource;
use quant_runtime::eval::{EvalPlan, MemoryLogits, ModelLogits, SpeedOptions, evaluate, measure_speed};
use quant_runtime::generate::{GenerateOptions, Generator, SamplingOptions};
use quant_runtime::quantize::{Importance, QuantizeOptions, QuantizePlan};
use quant_runtime::{Checkpoint, Device, Error, Model, Tokenizer};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The bundled model: trained for this project, 5.8 million parameters.
const MODEL: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../../../models/pocket-6m/config.json")),
    ("generation_config.json", include_bytes!("../../../../models/pocket-6m/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../../models/pocket-6m/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../models/pocket-6m/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../models/pocket-6m/tokenizer_config.json")),
];
/// Text written for this project, which the model has not seen.
const TEXT: &str = include_str!("../../../../models/pocket-6m-texts/evaluation.txt");
const PROMPT: &str = "The king looked at the sea and";
const LEVELS: [FileType; 7] = [
    FileType::F16,
    FileType::Q8_0,
    FileType::Q6_K,
    FileType::Q5_K_M,
    FileType::Q4_K_M,
    FileType::Q3_K_M,
    FileType::Q2_K,
];
const CTX: usize = 256;
/// Texts that the model samples for its own calibration, and their length in tokens.
const SAMPLES: (u64, usize) = (24, 250);
/// Tokens of the sentence that each file writes.
const SENTENCE: usize = 32;

/// Quantize the bundled model to several levels, load each file again, and show what it cost.
///
/// Perplexity and divergence from the original are measured on a text written for this project, or on --text. The importance weights of the
/// last row come from texts that the model samples itself with fixed seeds, or from --calibration.
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
        unpack(&dir)?;
        let checkpoint = Checkpoint::open(&dir)?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let original = Model::load(&checkpoint, &Device::Cpu)?;
        let source = ModelSource::open(&checkpoint)?;

        let plan = EvalPlan::from_text(&tokenizer, &text, CTX, Some(self.chunks))?;
        let mut base = MemoryLogits::collect(&plan, &mut ModelLogits::new(&original))?;
        let importance = self.importance(&original, &tokenizer, out)?;

        let steps = LEVELS.iter().map(|&level| (level, None)).chain([(FileType::Q4_K_M, Some(importance))]);
        let bar = progress::bar("quickstart", LEVELS.len() + 1);
        let mut rows = Vec::new();
        for (level, importance) in steps {
            let method = format!("{level}{}", if importance.is_some() { " with imatrix" } else { "" });
            let file = out.join(format!("pocket-6m.{}.gguf", method.replace(' ', "-")));
            let mut options = QuantizeOptions::new(MixOptions::new(level));
            options.importance = importance;
            let report = QuantizePlan::new(&source, options)?.run(&file, &|_| ControlFlow::Continue(()))?;

            let checkpoint = Checkpoint::open(&file)?;
            let model = Model::load(&checkpoint, &Device::Cpu)?;
            let eval = evaluate(&plan, &mut ModelLogits::new(&model), Some(&mut base), None, &mut |_| ())?;
            let against = eval.base.ok_or_else(|| CliError::Failed("no divergence was measured".to_owned()))?;
            let speed = SpeedOptions { prompt: 0, generate: 64, repetitions: 3, depth: 0 };
            let speed = measure_speed(&model, speed, &mut |_| ())?;
            rows.push(Row {
                method,
                bytes: report.bytes,
                bits_per_weight: report.bits_per_weight,
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

    /// Importance weights from the calibration text, or from what the model itself writes.
    fn importance(&self, model: &Model, tokenizer: &Tokenizer, out: &Path) -> CliResult<Importance> {
        let (text, name) = match &self.calibration {
            Some(file) => (input::read_text(file)?, input::file_name(file)),
            None => {
                let texts: Result<Vec<_>, _> =
                    (0..SAMPLES.0).map(|seed| sample(model, tokenizer, "", seed, SAMPLES.1)).collect();
                (texts?.join("\n\n"), "sampled by the model".to_owned())
            }
        };
        let set = CalibrationSet::from_text(tokenizer, &text, &name, 128, CTX, Placement::Spread)?;
        let stats = out.join("pocket-6m.stats.safetensors");
        let summary = calibrate_to_file(model, &set, CalibrationOptions::default(), stats, &mut |_| ())?;
        let path = out.join("pocket-6m.imatrix.gguf");
        let imatrix = to_imatrix(summary.stats.iter().map(|(site, stats)| (site, stats)), &set);
        imatrix.write(&path).map_err(|e| Error::gguf(&path, e))?;
        Ok(Importance::open(&path)?)
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

/// Writes the bundled model as a directory, each file atomically.
fn unpack(dir: &Path) -> CliResult {
    let failed = |path: &Path, e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    for (name, bytes) in MODEL {
        let path = dir.join(name);
        let mut file = tempfile::Builder::new().prefix(".quant-").tempfile_in(dir).map_err(|e| failed(&path, e))?;
        file.write_all(bytes).map_err(|e| failed(&path, e))?;
        file.persist(&path).map_err(|e| failed(&path, e.error))?;
    }
    Ok(())
}

/// What the model writes after `prompt`.
fn sample(model: &Model, tokenizer: &Tokenizer, prompt: &str, seed: u64, tokens: usize) -> CliResult<String> {
    let sampling = SamplingOptions { seed, ..SamplingOptions::default() };
    let options = GenerateOptions { max_tokens: tokens, sampling, ..GenerateOptions::default() };
    let ids = tokenizer.encode(prompt, true, false)?;
    Ok(Generator::new(model, tokenizer, options)?.generate(&ids, |_| ControlFlow::Continue(()))?.text)
}
