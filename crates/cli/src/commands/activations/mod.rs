//! `quant activations`: how hard what each layer reads is to round to 8 bits.

mod picture;

use crate::error::{CliError, CliResult};
use crate::output::{print_json, to_stdout};
use crate::{input, progress, table};
use quant_runtime::layerwise::{InputReport, SchemeErrors, inspect_activations};
use quant_runtime::model::LinearSite;
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Show how hard each layer's activations are to round to 8 bits, and what helps.
///
/// The text runs through the model in full precision. For what each group of linear layers reads, the table has the largest value, channels far larger than
/// others, how far single values stand out, and the error of the outputs (root of squared error beside squares, in percent) when weights and activations
/// have 8 bits: INT8 with a scale per token, INT8 with one fixed scale, FP8, INT8 smoothed, INT8 rotated. `weights` is INT8 weights alone: below it no
/// scheme for activations gets.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// Text file, UTF-8; or .jsonl: lines with `text`, or with `input_ids` (one sequence each).
    text: PathBuf,
    /// Draw a picture of every layer here: the largest value of each channel as it is, smoothed, rotated.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Windows of the text.
    #[arg(long, value_name = "N", default_value_t = 16)]
    samples: usize,
    /// Tokens of a window [default: 512, or the model's context if that is shorter].
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Where in the text the windows lie.
    #[arg(long, value_enum, default_value = "spread")]
    sample_from: input::PlacementArg,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The most that one token counts among the maxima that scales are made of, in medians of its sequence's squared norms.
const ROW_LIMIT: f32 = 4.0;

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let checkpoint = Checkpoint::open(&self.model)?;
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
        let seq_len = match self.seq_len {
            Some(seq_len) => seq_len,
            None => checkpoint.config()?.max_context.min(512),
        };
        let set = input::calibration_set(&self.text, &tokenizer, self.samples, seq_len, self.sample_from)?;
        // Fewer samples than calibration asks for are enough to look.
        if set.sequences.len() < self.samples {
            eprintln!("warning: the text has {} of {} samples", set.sequences.len(), self.samples);
        }
        const STEPS: usize = 1000;
        let bar = progress::bar("activations", STEPS);
        let reports = inspect_activations(&checkpoint, &set, Some(ROW_LIMIT), &mut |done| {
            bar.set_position((done * STEPS as f64) as u64);
            ControlFlow::Continue(())
        })?;
        bar.finish_and_clear();
        let mut pictures = Vec::new();
        if let Some(folder) = &self.svg {
            let failed = |path: &PathBuf, e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
            std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
            for layer in reports.chunk_by(|a, b| a.site.layer() == b.site.layer()) {
                let number = layer.first().and_then(|r| r.site.layer()).unwrap_or(0);
                let path = folder.join(format!("layer-{number:03}.svg"));
                std::fs::write(&path, picture::of_layer(number, layer)).map_err(|e| failed(&path, e))?;
                pictures.push(path);
            }
        }
        if self.json {
            let inputs: Vec<Value> = reports.iter().map(to_json).collect();
            return print_json(&json!({ "tokens": set.token_count(), "inputs": inputs, "svg": pictures }));
        }
        to_stdout(|out| {
            write!(out, "{}", rendered(&reports))?;
            if let (Some(folder), false) = (&self.svg, pictures.is_empty()) {
                writeln!(out, "{}: {} pictures", folder.display(), pictures.len())?;
            }
            Ok(())
        })
    }
}

/// The linears that read an input, in short.
fn readers(site: LinearSite) -> &'static str {
    match site {
        LinearSite::AttentionInput(_) => "q k v",
        LinearSite::AttentionOutput(_) => "o",
        LinearSite::FfnInput(_) => "gate up",
        LinearSite::FfnDown(_) => "down",
        LinearSite::Output => "head",
    }
}

fn errors(e: &SchemeErrors) -> [(&'static str, f64); 6] {
    [
        ("weights", e.weights),
        ("int8", e.int8),
        ("int8_static", e.int8_static),
        ("fp8", e.fp8),
        ("smoothed", e.smoothed),
        ("rotated", e.rotated),
    ]
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, &b| a.max(b))
}

fn outlier_share(report: &InputReport) -> f64 {
    report.profile.outlier_channels as f64 / report.profile.abs_max.len().max(1) as f64
}

fn to_json(report: &InputReport) -> Value {
    let errors: serde_json::Map<String, Value> =
        errors(&report.errors).into_iter().map(|(name, error)| (name.to_owned(), error.into())).collect();
    json!({
        "layer": report.site.layer(), "input": readers(report.site), "weights": report.site.weight_names(),
        "channels": report.profile.abs_max.len(), "abs_max": largest(&report.profile.abs_max),
        "outlier_channels": report.profile.outlier_channels, "outlier_share": outlier_share(report),
        "kurtosis": report.profile.kurtosis, "peak": report.profile.peak,
        "rotated_kurtosis": report.rotated.kurtosis, "rotated_peak": report.rotated.peak,
        "strength": report.strength, "errors": errors, "channel_max": report.profile.abs_max,
    })
}

/// A row for each input; then, for each kind of input, the mean over the layers.
fn rendered(reports: &[InputReport]) -> String {
    let header = [
        "layer",
        "input",
        "max",
        "outliers %",
        "kurtosis",
        "peak",
        "weights",
        "int8",
        "static",
        "fp8",
        "smoothed",
        "strength",
        "rotated",
    ];
    let percent = |value: f64| format!("{:.2}", 100.0 * value);
    let row = |layer: String, r: &InputReport| {
        let e = &r.errors;
        vec![
            layer,
            readers(r.site).to_owned(),
            format!("{:.1}", largest(&r.profile.abs_max)),
            format!("{:.2}", 100.0 * outlier_share(r)),
            format!("{:.1}", r.profile.kurtosis),
            format!("{:.1}", r.profile.peak),
            percent(e.weights),
            percent(e.int8),
            percent(e.int8_static),
            percent(e.fp8),
            percent(e.smoothed),
            if r.strength > 0.0 { format!("{:.2}", r.strength) } else { "-".to_owned() },
            percent(e.rotated),
        ]
    };
    let mut rows: Vec<Vec<String>> =
        reports.iter().map(|r| row(r.site.layer().map_or_else(String::new, |l| l.to_string()), r)).collect();
    for kind in ["q k v", "o", "gate up", "down"] {
        let of_kind: Vec<&InputReport> = reports.iter().filter(|r| readers(r.site) == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let mean =
            |value: &dyn Fn(&InputReport) -> f64| of_kind.iter().map(|r| value(r)).sum::<f64>() / of_kind.len() as f64;
        let error = |value: fn(&SchemeErrors) -> f64| percent(mean(&|r| value(&r.errors)));
        rows.push(vec![
            "mean".to_owned(),
            kind.to_owned(),
            format!("{:.1}", mean(&|r| f64::from(largest(&r.profile.abs_max)))),
            format!("{:.2}", 100.0 * mean(&outlier_share)),
            format!("{:.1}", mean(&|r| r.profile.kurtosis)),
            format!("{:.1}", mean(&|r| r.profile.peak)),
            error(|e| e.weights),
            error(|e| e.int8),
            error(|e| e.int8_static),
            error(|e| e.fp8),
            error(|e| e.smoothed),
            format!("{:.2}", mean(&|r| r.strength)),
            error(|e| e.rotated),
        ]);
    }
    table::render(&header, &rows)
}
