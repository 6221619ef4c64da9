//! `quant calibrate`: statistics of every linear layer's input.

use crate::error::{CliError, CliResult};
use crate::output::{print_json, to_stdout};
use crate::{input, progress};
use quant_runtime::Error;
use quant_runtime::calibrate::{CalibrationOptions, Detail, calibrate_to_file, to_imatrix};
use serde_json::json;
use std::path::PathBuf;

/// Gather statistics of every linear layer's input from a text.
///
/// The text is tokenized once; the samples are windows of it, spread evenly and without overlap. The file (safetensors) serves
/// `quant gguf --imatrix`; with --gram it holds what GPTQ and AWQ need too.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with safetensors.
    model: PathBuf,
    /// Text file, UTF-8, whose line ends are read as LF; or .jsonl: lines with `text`, or with `input_ids` (one sequence each).
    text: PathBuf,
    /// Where the statistics go.
    out: PathBuf,
    /// Windows of the text.
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,
    /// Tokens of a window [default: 512, or the model's context if that is shorter].
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// Where in the text the windows lie.
    #[arg(long, value_enum, default_value = "spread")]
    sample_from: input::PlacementArg,
    /// Write llama.cpp's importance matrix (GGUF) too.
    #[arg(long, value_name = "OUT.gguf")]
    imatrix: Option<PathBuf>,
    /// Include the input of the output matrix, where it is not tied to the embeddings.
    #[arg(long)]
    process_output: bool,
    /// Keep the whole Gram matrix of each input: 2·n·(n + 1) bytes for n channels.
    #[arg(long)]
    gram: bool,
    /// Memory for statistics; what does not fit is gathered in further passes over the text.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = input::parse_size)]
    stats_memory: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        if self.imatrix.as_ref() == Some(&self.out) {
            return Err(CliError::Usage("the statistics and the importance matrix cannot be the same file".to_owned()));
        }
        let (model, tokenizer) = input::load(&self.model)?;
        let seq_len = self.seq_len.unwrap_or(512.min(model.config().max_context));
        let set = input::calibration_set(&self.text, &tokenizer, self.samples, seq_len, self.sample_from)?;
        let mut warnings = set.warnings();
        if self.process_output && model.config().tied {
            warnings.push("the output matrix is tied to the embeddings and has no statistics of its own".to_owned());
        }
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        let options = CalibrationOptions {
            detail: if self.gram { Detail::Gram } else { Detail::Diagonal },
            output: self.process_output,
            memory: self.stats_memory,
        };
        let bar = progress::bar("calibrate", set.sequences.len());
        let summary = calibrate_to_file(&model, &set, options, &self.out, &mut |p| {
            bar.set_length(p.total as u64);
            bar.set_position(p.done as u64);
        })?;
        bar.finish_and_clear();
        if let Some(path) = &self.imatrix {
            let imatrix = to_imatrix(summary.stats.iter().map(|(site, stats)| (site, stats)), &set);
            imatrix.write(path).map_err(|e| Error::gguf(path, e))?;
        }
        let (samples, tokens, inputs) = (set.sequences.len(), set.token_count(), summary.stats.len());
        if self.json {
            return print_json(&json!({
                "out": self.out, "bytes": summary.bytes, "imatrix": self.imatrix, "samples": samples,
                "seq_len": seq_len, "tokens": tokens, "inputs": inputs, "passes": summary.passes, "warnings": warnings,
            }));
        }
        to_stdout(|out| {
            writeln!(
                out,
                "{}: statistics of {inputs} inputs over {tokens} tokens ({samples} samples of {seq_len}), {:.1} MB",
                self.out.display(),
                summary.bytes as f64 / 1e6
            )?;
            match &self.imatrix {
                Some(path) => writeln!(out, "{}: importance matrix", path.display()),
                None => Ok(()),
            }
        })
    }
}
