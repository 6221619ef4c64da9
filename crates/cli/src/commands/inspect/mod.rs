//! `quant inspect`: metadata and tensors of a GGUF file, a safetensors file or a directory of them.

mod human;
mod json;
mod packed;
mod summary;

pub(super) use human::short_value;
pub(super) use json::ValueJson;

use crate::error::CliResult;
use crate::output::to_stdout;
use gguf_format::{Gguf, Metadata};
use packed::Packed;
use quant_runtime::Error;
use quant_runtime::checkpoint::{HfDir, HfEntry, SafetensorsFile};
use std::io::Read;
use std::path::{Path, PathBuf};
use summary::{Summary, Tensor};

/// Show the metadata and tensors of a GGUF file, a safetensors file or a directory of safetensors.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A GGUF file (model, vocabulary, importance matrix), a .safetensors file, or a directory with config.json and safetensors.
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Print one JSON object, with every element of every array.
    #[arg(long)]
    json: bool,
}

/// What is shown.
struct Report<'a> {
    path: &'a Path,
    /// `gguf`, `safetensors`, `gptq`, `awq` or `compressed-tensors`.
    format: &'static str,
    /// GGUF: `model`, `vocabulary`, `imatrix` or another `general.type`. Otherwise `model`, or the method of a quantized directory.
    kind: String,
    architecture: Option<String>,
    metadata: Keys<'a>,
    tensors: Vec<Tensor>,
    summary: Summary,
    /// Version, alignment and what ggml's reader would refuse.
    gguf: Option<(u32, u64, Vec<String>)>,
    packed: Option<Packed>,
}

/// Metadata of either format.
enum Keys<'a> {
    Gguf(&'a Metadata),
    Json(Option<&'a serde_json::Map<String, serde_json::Value>>),
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let path = self.path.as_path();
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if meta.is_dir() {
            return self.directory(path);
        }
        match Magic::of(path)? {
            Magic::Gguf => self.gguf(path),
            Magic::Safetensors => {
                let file = SafetensorsFile::open(path)?;
                self.print(&safetensors(path, file.entries(), None))
            }
            Magic::Other(found) => {
                let expected = "GGUF or safetensors";
                Err(Error::malformed(path, "first bytes", expected, format!("`{}`", found.escape_ascii())).into())
            }
        }
    }

    fn directory(&self, path: &Path) -> CliResult {
        let dir = HfDir::open(path)?;
        let mut report = safetensors(path, dir.entries(), dir.config_json().as_object());
        report.packed = Packed::of(&dir);
        if let Some(packed) = &report.packed {
            report.format = packed.method;
        }
        self.print(&report)
    }

    fn gguf(&self, path: &Path) -> CliResult {
        let gguf = Gguf::open(path).map_err(|e| Error::gguf(path, e))?;
        let metadata = gguf.metadata();
        // A key of the wrong type is shown among the metadata; here it counts as absent.
        let text = |key| metadata.get_str(key).ok().flatten().map(str::to_owned);
        let kind = match text("general.type") {
            Some(kind) if kind != "model" => kind,
            _ if gguf.tensors().is_empty() && metadata.contains_key("tokenizer.ggml.model") => "vocabulary".into(),
            _ => "model".into(),
        };
        let tensors: Vec<Tensor> = gguf.tensors().iter().map(Tensor::from).collect();
        let departures = gguf.departures().iter().map(ToString::to_string).collect();
        self.print(&Report {
            path,
            format: "gguf",
            kind,
            architecture: text("general.architecture"),
            metadata: Keys::Gguf(metadata),
            summary: Summary::of(&tensors, true),
            tensors,
            gguf: Some((gguf.version(), gguf.alignment(), departures)),
            packed: None,
        })
    }

    fn print(&self, report: &Report<'_>) -> CliResult {
        to_stdout(|out| match self.json {
            true => {
                serde_json::to_writer_pretty(&mut *out, &json::ReportJson(report))?;
                out.write_all(b"\n")
            }
            false => human::print(out, report),
        })
    }
}

fn safetensors<'a>(
    path: &'a Path,
    entries: impl Iterator<Item = HfEntry<'a>>,
    config: Option<&'a serde_json::Map<String, serde_json::Value>>,
) -> Report<'a> {
    let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
    let quantization = config.and_then(|c| c.get("quantization_config"));
    let tensors: Vec<Tensor> = entries.map(Tensor::from).collect();
    Report {
        path,
        format: "safetensors",
        kind: quantization
            .map(|q| text(q.get("quant_method")).unwrap_or_else(|| "quantized".into()))
            .unwrap_or_else(|| "model".into()),
        architecture: config
            .and_then(|c| text(c.get("model_type")).or_else(|| text(c.get("architectures").and_then(|a| a.get(0))))),
        metadata: Keys::Json(config),
        // Packed codes are not one value a weight, so that a quantized directory's elements do not count its weights.
        summary: Summary::of(&tensors, quantization.is_none()),
        tensors,
        gguf: None,
        packed: None,
    }
}

enum Magic {
    Gguf,
    Safetensors,
    Other(Vec<u8>),
}

impl Magic {
    /// safetensors have no magic number: a length of eight bytes, then the brace that opens the header.
    fn of(path: &Path) -> Result<Self, Error> {
        let mut start = Vec::with_capacity(9);
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        file.take(9).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
        Ok(match start.as_slice() {
            [b'G', b'G', b'U', b'F', ..] => Self::Gguf,
            [.., b'{'] if start.len() == 9 => Self::Safetensors,
            _ if path.extension().is_some_and(|e| e == "safetensors") => Self::Safetensors,
            _ => Self::Other(start),
        })
    }
}
