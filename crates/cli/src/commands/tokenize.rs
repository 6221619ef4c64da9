//! `quant tokenize`: token ids and pieces of a text.

use crate::error::{CliError, CliResult};
use crate::{input, output};
use quant_runtime::{Checkpoint, Tokenizer};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Show the token ids and pieces of a text.
///
/// A piece that is no whole character is written as its bytes, `<0xE4><0xBD>`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("text").required(true).args(["prompt", "file"])))]
pub(crate) struct Args {
    /// GGUF file, or directory with tokenizer.json.
    model: PathBuf,
    /// The text.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text, UTF-8, taken as it is; `-`: standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Without BOS and EOS, which come around the text where the model wants them.
    #[arg(long)]
    no_bos: bool,
    /// Special tokens in the text (`<|im_end|>`) are text like any other.
    #[arg(long)]
    no_special: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> CliResult {
        let tokenizer = load(&self.model)?;
        let text = match (&self.prompt, &self.file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) if file.as_os_str() == "-" => read_stdin()?,
            (None, Some(file)) => input::read_exact_text(file)?,
            (None, None) => return Err(CliError::Usage("give a text with -p TEXT or --file FILE".to_owned())),
        };
        let ids = tokenizer.encode(&text, !self.no_bos, !self.no_special)?;
        let pieces = ids.iter().map(|&id| Ok(readable(&tokenizer.piece(id)?))).collect::<CliResult<Vec<String>>>()?;
        output::to_stdout(|out| {
            if self.json {
                return writeln!(out, "{}", json!({ "ids": ids, "pieces": pieces }));
            }
            for (id, piece) in ids.iter().zip(&pieces) {
                writeln!(out, "{id:>7} {piece:?}")?;
            }
            Ok(())
        })
    }
}

/// A model's tokenizer. A directory needs no weights for it.
fn load(path: &Path) -> CliResult<Tokenizer> {
    if path.is_dir() {
        return Ok(Tokenizer::from_hf_dir(path)?);
    }
    Ok(Tokenizer::from_checkpoint(&Checkpoint::open(path)?)?)
}

fn read_stdin() -> CliResult<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|e| CliError::Failed(format!("standard input: {e}")))?;
    String::from_utf8(bytes)
        .map_err(|e| CliError::Failed(format!("standard input: not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}

/// A piece as text; bytes that are no character one by one.
fn readable(piece: &[u8]) -> String {
    let mut out = String::with_capacity(piece.len());
    for chunk in piece.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("<0x{byte:02X}>"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn pieces_are_readable() {
        for (piece, text) in [(&b"ab"[..], "ab"), (b"\xe4\xbd", "<0xE4><0xBD>"), (b"a\xffb", "a<0xFF>b"), (b"", "")] {
            assert_eq!(super::readable(piece), text);
        }
    }
}
