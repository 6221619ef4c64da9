//! `quant split`: a GGUF file in parts that llama.cpp loads as one model.

use crate::error::CliResult;
use crate::input::parse_size;
use crate::output::{print_json, to_stdout};
use crate::table;
use gguf_format::edit::{SplitLimit, SplitRule};
use gguf_format::{Edit, Gguf};
use serde_json::json;
use std::path::PathBuf;

/// Split a GGUF file into parts that llama.cpp loads as one model, as its gguf-split does.
///
/// The parts are OUT_PREFIX-00001-of-00003.gguf and so on. The first holds the metadata. `quant merge` makes the same file of them.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The file to split.
    #[arg(value_name = "GGUF")]
    file: PathBuf,
    /// Folder and beginning of the names of the parts.
    out_prefix: PathBuf,
    /// At most N tensors a part.
    #[arg(long, value_name = "N", required_unless_present = "max_size", value_parser = clap::value_parser!(u64).range(1..))]
    max_tensors: Option<u64>,
    /// At most this size of tensor data a part: 500M, 2G (factors of 1000). A tensor that is larger gets a part of its own.
    #[arg(long, value_name = "SIZE", conflicts_with = "max_tensors", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Put the metadata alone in the first part.
    #[arg(long)]
    no_tensor_first_split: bool,
    /// Show the parts; write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let limit = match (self.max_tensors, self.max_size) {
            (Some(tensors), _) => SplitLimit::Tensors(tensors),
            // clap asks for one of the two.
            (None, size) => SplitLimit::Bytes(size.unwrap_or(u64::MAX)),
        };
        let file = Gguf::open(&self.file)?;
        let edit = Edit::of(&file);
        let rule = SplitRule { limit, no_tensors_in_first: self.no_tensor_first_split };
        let split = edit.split(rule).map_err(|e| e.in_file(&self.file))?;
        let parts = if self.dry_run { split.parts(&self.out_prefix) } else { split.write(&self.out_prefix)? };
        if self.json {
            let row = |p: &gguf_format::edit::Part| json!({ "path": p.path.display().to_string(), "tensors": p.tensors.len(), "bytes": p.bytes });
            return print_json(
                &json!({ "written": !self.dry_run, "parts": parts.iter().map(row).collect::<Vec<_>>() }),
            );
        }
        let row = |p: &gguf_format::edit::Part| {
            vec![p.path.display().to_string(), p.tensors.len().to_string(), p.bytes.to_string()]
        };
        let rows: Vec<Vec<String>> = parts.iter().map(row).collect();
        to_stdout(|out| out.write_all(table::render(&["part", "tensors", "bytes"], &rows).as_bytes()))
    }
}
