//! Which windows of a text are calibrated on.

use crate::{Error, Result, Tokenizer};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Where in a text the windows lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Evenly from its start to its end.
    #[default]
    Spread,
    /// One after the other from its start.
    Start,
}

/// Sequences of tokens to calibrate on, and what they were taken from. The same text, tokenizer and numbers give the same sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationSet {
    /// The sequences, each run from an empty cache.
    pub sequences: Vec<Vec<u32>>,
    /// Tokens of a sequence (all but a lone short one).
    pub seq_len: usize,
    /// Each sequence starts with BOS.
    pub starts_with_bos: bool,
    /// Name of the text.
    pub text_name: String,
    /// SHA-256 of the text, in hexadecimal digits.
    pub text_sha256: String,
    /// Tokens of the whole text.
    pub text_tokens: usize,
    /// Sequences that were asked for.
    pub wanted: usize,
}

impl CalibrationSet {
    /// Takes `samples` windows of `seq_len` tokens from a text.
    ///
    /// The text is tokenized once, without special tokens. A model that wants BOS gets it in front of every window, which then holds
    /// `seq_len - 1` tokens of the text. Windows do not overlap: a text too short for all of them gives as many as fit, and a text shorter than one
    /// window gives one shorter sequence; [`warnings`](Self::warnings) says so.
    ///
    /// # Errors
    /// [`Error::Usage`] for zero samples, a `seq_len` below 2, or a text without tokens.
    pub fn from_text(
        tokenizer: &Tokenizer,
        text: &str,
        text_name: &str,
        samples: usize,
        seq_len: usize,
        placement: Placement,
    ) -> Result<Self> {
        let tokens = tokenizer.encode(text, false, false)?;
        let bos = tokenizer.added_bos();
        let text_sha256 = hex(&Sha256::digest(text.as_bytes()));
        Ok(Self {
            sequences: windows(&tokens, bos, samples, seq_len, placement)?,
            seq_len,
            starts_with_bos: bos.is_some(),
            text_name: text_name.to_owned(),
            text_sha256,
            text_tokens: tokens.len(),
            wanted: samples,
        })
    }

    /// Takes sequences from JSON lines. Either every line is an object with `text`: the texts' tokens are joined and windows taken as from one text; or
    /// every line is an object with `input_ids`, or an array of token ids: each line is a sequence as it stands, no BOS added, cut at `seq_len`;
    /// `samples` of them are taken.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) naming the line (`path` is where it is from); [`Error::Usage`] as
    /// [`from_text`](Self::from_text).
    pub fn from_json_lines(
        tokenizer: &Tokenizer,
        lines: &str,
        path: &Path,
        samples: usize,
        seq_len: usize,
        placement: Placement,
    ) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let text_sha256 = hex(&Sha256::digest(lines.as_bytes()));
        let mut text = Vec::new();
        let mut ids: Vec<Vec<u32>> = Vec::new();
        for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |found: &str| {
                let what = format!("line {}", number + 1);
                Error::malformed(path, what, "an object with `text`, or with `input_ids`, as every line has it", found)
            };
            let value: serde_json::Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
            let list = value.as_array().or_else(|| value["input_ids"].as_array());
            match (list, value["text"].as_str()) {
                (Some(list), _) if text.is_empty() => {
                    let id = |v: &serde_json::Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
                    let sequence: Option<Vec<u32>> = list.iter().take(seq_len).map(id).collect();
                    ids.push(sequence.filter(|s| !s.is_empty()).ok_or_else(|| wrong("what is no list of token ids"))?);
                }
                (None, Some(document)) if ids.is_empty() => text.extend(tokenizer.encode(document, false, false)?),
                _ => return Err(wrong("another")),
            }
        }
        let (sequences, bos, text_tokens) = if ids.is_empty() {
            let bos = tokenizer.added_bos();
            (windows(&text, bos, samples, seq_len, placement)?, bos, text.len())
        } else {
            let text_tokens = ids.iter().map(Vec::len).sum();
            (choose(ids, samples, seq_len, placement)?, None, text_tokens)
        };
        let starts_with_bos = bos.is_some();
        Ok(Self { sequences, seq_len, starts_with_bos, text_name: name, text_sha256, text_tokens, wanted: samples })
    }

    /// Tokens of all sequences.
    pub fn token_count(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// SHA-256 over all tokens as little-endian u32: equal exactly if text, tokenizer and choice of windows are.
    pub fn tokens_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for token in self.sequences.iter().flatten() {
            hash.update(token.to_le_bytes());
        }
        hex(&hash.finalize())
    }

    /// What a user should know about this set: few samples, a short text.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let found = self.sequences.len();
        if found < self.wanted {
            warnings.push(format!(
                "the text has {} tokens, enough for {found} samples of {} tokens, not for {}",
                self.text_tokens, self.seq_len, self.wanted
            ));
        }
        if found < 100 {
            warnings.push(format!("{found} samples are few: statistics get steady from about 100 on"));
        }
        warnings
    }
}

fn check_numbers(samples: usize, seq_len: usize) -> Result<()> {
    if samples == 0 || seq_len < 2 {
        return Err(Error::Usage(format!(
            "{samples} samples of {seq_len} tokens: at least one of two tokens is needed"
        )));
    }
    Ok(())
}

/// `samples` of the sequences, or all.
fn choose(ids: Vec<Vec<u32>>, samples: usize, seq_len: usize, placement: Placement) -> Result<Vec<Vec<u32>>> {
    check_numbers(samples, seq_len)?;
    let (all, count) = (ids.len(), samples.min(ids.len()));
    let index = |i: usize| match placement {
        Placement::Spread if count > 1 => (i as u128 * (all - 1) as u128 / (count - 1) as u128) as usize,
        _ => i,
    };
    let mut ids = ids;
    Ok((0..count).map(|i| std::mem::take(&mut ids[index(i)])).collect())
}

fn windows(
    tokens: &[u32],
    bos: Option<u32>,
    samples: usize,
    seq_len: usize,
    placement: Placement,
) -> Result<Vec<Vec<u32>>> {
    check_numbers(samples, seq_len)?;
    if tokens.is_empty() {
        return Err(Error::Usage("the calibration text has no tokens".to_owned()));
    }
    let body = (seq_len - usize::from(bos.is_some())).min(tokens.len());
    let count = samples.min(tokens.len() / body);
    // From start to end: the last window ends with the text. The stride is at least `body` because `count` windows fit.
    let slack = tokens.len() - body;
    let start = |i: usize| match placement {
        Placement::Spread if count > 1 => (i as u128 * slack as u128 / (count - 1) as u128) as usize,
        _ => i * body,
    };
    Ok((0..count).map(|i| bos.into_iter().chain(tokens[start(i)..][..body].iter().copied()).collect()).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_spread_from_start_to_end() {
        let tokens: Vec<u32> = (0..100).collect();
        let w = windows(&tokens, None, 4, 10, Placement::Spread).unwrap();
        assert_eq!(w.iter().map(|w| (w[0], w[9])).collect::<Vec<_>>(), [(0, 9), (30, 39), (60, 69), (90, 99)]);
        let w = windows(&tokens, Some(500), 3, 10, Placement::Spread).unwrap();
        assert_eq!(
            w.iter().map(|w| (w[0], w[1], w[9])).collect::<Vec<_>>(),
            [(500, 0, 8), (500, 45, 53), (500, 91, 99)]
        );
        assert!(w.iter().all(|w| w.len() == 10));
    }

    #[test]
    fn short_texts_give_what_fits() {
        let tokens: Vec<u32> = (0..25).collect();
        let starts = |samples, len| {
            windows(&tokens, None, samples, len, Placement::Spread).unwrap().iter().map(|w| w[0]).collect::<Vec<_>>()
        };
        assert_eq!(starts(128, 10), [0, 15]);
        assert_eq!(starts(1, 10), [0]);
        assert_eq!(windows(&tokens, Some(9), 5, 64, Placement::Spread).unwrap(), [[&[9], &tokens[..]].concat()]);
        for (tokens, samples, len) in [(&tokens[..], 0, 10), (&tokens[..], 1, 1), (&[][..], 1, 10)] {
            assert!(matches!(windows(tokens, None, samples, len, Placement::Spread), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn no_window_overlaps_another() {
        for total in [30, 31, 47, 99, 100] {
            let tokens: Vec<u32> = (0..total).collect();
            for samples in 1..12 {
                let w = windows(&tokens, None, samples, 9, Placement::Spread).unwrap();
                assert!(w.windows(2).all(|p| p[0][8] < p[1][0]), "{total} {samples}");
            }
        }
    }

    #[test]
    fn windows_from_the_start() {
        let tokens: Vec<u32> = (0..100).collect();
        let w = windows(&tokens, None, 3, 10, Placement::Start).unwrap();
        assert_eq!(w.iter().map(|w| (w[0], w[9])).collect::<Vec<_>>(), [(0, 9), (10, 19), (20, 29)]);
        let w = windows(&tokens, Some(500), 2, 10, Placement::Start).unwrap();
        assert_eq!(w.iter().map(|w| (w[0], w[1], w[9])).collect::<Vec<_>>(), [(500, 0, 8), (500, 9, 17)]);
    }

    #[test]
    fn sequences_are_chosen() {
        let ids: Vec<Vec<u32>> = (0..10).map(|i| vec![i]).collect();
        let firsts = |samples, placement| {
            choose(ids.clone(), samples, 8, placement).unwrap().iter().map(|s| s[0]).collect::<Vec<_>>()
        };
        assert_eq!(firsts(4, Placement::Spread), [0, 3, 6, 9]);
        assert_eq!(firsts(4, Placement::Start), [0, 1, 2, 3]);
        assert_eq!(firsts(99, Placement::Spread).len(), 10);
    }
}
