//! `quant tokenize`: text to token ids.

use crate::error::CliResult;
use crate::{input, output};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::json;
use std::path::PathBuf;

/// Show the tokens of a text: ids and pieces.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// GGUF file, or directory with tokenizer.json.
    model: PathBuf,
    /// The text.
    #[arg(short, long, value_name = "TEXT", required_unless_present = "file", conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with the text, UTF-8, taken as it is.
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
    /// Do not add the tokens that the model wants around a text (BOS, EOS).
    #[arg(long)]
    no_bos: bool,
    /// Take the names of special tokens in the text as plain text.
    #[arg(long)]
    no_special: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let text = match (&self.prompt, &self.file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => input::read_exact_text(file)?,
            (None, None) => String::new(),
        };
        let tokenizer = Tokenizer::from_checkpoint(&Checkpoint::open(&self.model)?)?;
        let ids = tokenizer.encode(&text, !self.no_bos, !self.no_special)?;
        // A piece may be a part of a character; as text it is then shown with U+FFFD.
        let piece = |id: &u32| tokenizer.piece(*id).map(|b| String::from_utf8_lossy(&b).into_owned());
        let pieces: Vec<String> = ids.iter().map(piece).collect::<Result<_, _>>()?;
        output::to_stdout(|out| {
            if self.json {
                return writeln!(out, "{}", json!({"ids": ids, "pieces": pieces}));
            }
            for (id, piece) in ids.iter().zip(&pieces) {
                writeln!(out, "{id:>7}  {piece:?}")?;
            }
            writeln!(out, "{} tokens", ids.len())
        })
    }
}
