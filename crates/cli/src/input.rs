//! What several commands read: texts, models, sizes.

use crate::error::{CliError, CliResult};
use candle_core::Device;
use quant_runtime::calibrate::{CalibrationSet, Placement};
use quant_runtime::{Checkpoint, Model, Tokenizer};
use std::path::Path;

/// A text file to measure or calibrate on. It must be UTF-8. Line ends CR LF and CR become LF, as in Python's text mode: that is how the field's
/// evaluation scripts read their texts, and a carriage return is a token of its own that costs perplexity.
pub(crate) fn read_text(path: &Path) -> CliResult<String> {
    read_exact_text(path).map(unify_line_ends)
}

fn unify_line_ends(text: String) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// A text file as it is. It must be UTF-8.
pub(crate) fn read_exact_text(path: &Path) -> CliResult<String> {
    let bytes = std::fs::read(path).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        CliError::Failed(format!("{}: not UTF-8 at byte {at}", path.display()))
    })
}

/// A model and its tokenizer, on the CPU.
pub(crate) fn load(path: &Path) -> CliResult<(Model, Tokenizer)> {
    let checkpoint = Checkpoint::open(path)?;
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
    Ok((Model::load(&checkpoint, &Device::Cpu)?, tokenizer))
}

/// A model, on the CPU.
pub(crate) fn load_model(path: &Path) -> CliResult<Model> {
    Ok(Model::load(&Checkpoint::open(path)?, &Device::Cpu)?)
}

/// Where in a calibration text the samples lie.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(crate) enum PlacementArg {
    /// Evenly from its start to its end.
    Spread,
    /// One after the other from its start.
    Start,
}

impl From<PlacementArg> for Placement {
    fn from(arg: PlacementArg) -> Self {
        match arg {
            PlacementArg::Spread => Self::Spread,
            PlacementArg::Start => Self::Start,
        }
    }
}

/// Sequences to calibrate on, from a text or, if the file's name ends so, from JSON lines.
pub(crate) fn calibration_set(
    path: &Path,
    tokenizer: &Tokenizer,
    samples: usize,
    seq_len: usize,
    placement: PlacementArg,
) -> CliResult<CalibrationSet> {
    let is_lines = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("jsonl"));
    Ok(if is_lines {
        let lines = read_exact_text(path)?;
        CalibrationSet::from_json_lines(tokenizer, &lines, path, samples, seq_len, placement.into())?
    } else {
        let text = read_text(path)?;
        CalibrationSet::from_text(tokenizer, &text, &file_name(path), samples, seq_len, placement.into())?
    })
}

/// The last part of a path, as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Bytes from `500M`, `2G`, `1024`: factors of 1000.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((i, 'K' | 'k')) => (&text[..i], 1_000),
        Some((i, 'M' | 'm')) => (&text[..i], 1_000_000),
        Some((i, 'G' | 'g')) => (&text[..i], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is no size; examples: 500M, 2G"))?;
    number.checked_mul(factor).filter(|&n| n > 0).ok_or_else(|| format!("`{text}` is out of range"))
}

#[cfg(test)]
mod tests {
    use super::{parse_size, unify_line_ends};

    #[test]
    fn line_ends() {
        assert_eq!(unify_line_ends("a\r\nb\rc\n\r\n".to_owned()), "a\nb\nc\n\n");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("500M"), Ok(500_000_000));
        assert_eq!(parse_size("2g"), Ok(2_000_000_000));
        for bad in ["", "G", "-1", "0", "1.5G", "99999999999G", "5é"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
