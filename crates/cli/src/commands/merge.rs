//! `quant merge`: one GGUF file of the parts of a split.

use crate::error::CliResult;
use crate::output::{count, print_json, to_stdout};
use gguf_format::{Edit, GgufSplits};
use serde_json::json;
use std::path::PathBuf;

/// Make one GGUF file of the parts of a split.
///
/// What was split by `quant split` or by llama.cpp's gguf-split comes back to the byte: the keys split.* go.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The first part: its name ends in -00001-of-00003.gguf, the others lie beside it.
    first_part: PathBuf,
    /// Where the result goes.
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let model = GgufSplits::open(&self.first_part)?;
        let edit = Edit::merge(&model).map_err(|e| e.in_file(&self.first_part))?;
        let bytes = edit.write(&self.out)?;
        let (keys, tensors) = (edit.metadata().len() as u64, edit.tensors().len() as u64);
        let (out, parts) = (self.out.display().to_string(), model.parts().len() as u64);
        match self.json {
            true => {
                print_json(&json!({ "out": out, "bytes": bytes, "keys": keys, "tensors": tensors, "parts": parts }))
            }
            false => to_stdout(|to| {
                writeln!(
                    to,
                    "{out}: {bytes} bytes, {}, {} of {}",
                    count(keys, "key"),
                    count(tensors, "tensor"),
                    count(parts, "part")
                )
            }),
        }
    }
}
