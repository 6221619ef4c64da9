//! Which windows of a text are calibrated on.

use crate::{Error, Result, Tokenizer};
use sha2::{Digest, Sha256};

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
    /// Takes `samples` windows of `seq_len` tokens from a text, spread evenly from its start to its end.
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
    ) -> Result<Self> {
        let tokens = tokenizer.encode(text, false, false)?;
        let bos = tokenizer.added_bos();
        let text_sha256 = hex(&Sha256::digest(text.as_bytes()));
        Ok(Self {
            sequences: windows(&tokens, bos, samples, seq_len)?,
            seq_len,
            starts_with_bos: bos.is_some(),
            text_name: text_name.to_owned(),
            text_sha256,
            text_tokens: tokens.len(),
            wanted: samples,
        })
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

fn windows(tokens: &[u32], bos: Option<u32>, samples: usize, seq_len: usize) -> Result<Vec<Vec<u32>>> {
    if samples == 0 || seq_len < 2 {
        return Err(Error::Usage(format!(
            "{samples} samples of {seq_len} tokens: at least one of two tokens is needed"
        )));
    }
    if tokens.is_empty() {
        return Err(Error::Usage("the calibration text has no tokens".to_owned()));
    }
    let body = (seq_len - usize::from(bos.is_some())).min(tokens.len());
    let count = samples.min(tokens.len() / body);
    // From start to end: the last window ends with the text. The stride is at least `body` because `count` windows fit.
    let slack = tokens.len() - body;
    let start = |i: usize| if count > 1 { (i as u128 * slack as u128 / (count - 1) as u128) as usize } else { 0 };
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
        let w = windows(&tokens, None, 4, 10).unwrap();
        assert_eq!(w.iter().map(|w| (w[0], w[9])).collect::<Vec<_>>(), [(0, 9), (30, 39), (60, 69), (90, 99)]);
        let w = windows(&tokens, Some(500), 3, 10).unwrap();
        assert_eq!(
            w.iter().map(|w| (w[0], w[1], w[9])).collect::<Vec<_>>(),
            [(500, 0, 8), (500, 45, 53), (500, 91, 99)]
        );
        assert!(w.iter().all(|w| w.len() == 10));
    }

    #[test]
    fn short_texts_give_what_fits() {
        let tokens: Vec<u32> = (0..25).collect();
        let starts =
            |samples, len| windows(&tokens, None, samples, len).unwrap().iter().map(|w| w[0]).collect::<Vec<_>>();
        assert_eq!(starts(128, 10), [0, 15]);
        assert_eq!(starts(1, 10), [0]);
        assert_eq!(windows(&tokens, Some(9), 5, 64).unwrap(), [[&[9], &tokens[..]].concat()]);
        for (tokens, samples, len) in [(&tokens[..], 0, 10), (&tokens[..], 1, 1), (&[][..], 1, 10)] {
            assert!(matches!(windows(tokens, None, samples, len), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn no_window_overlaps_another() {
        for total in [30, 31, 47, 99, 100] {
            let tokens: Vec<u32> = (0..total).collect();
            for samples in 1..12 {
                let w = windows(&tokens, None, samples, 9).unwrap();
                assert!(w.windows(2).all(|p| p[0][8] < p[1][0]), "{total} {samples}");
            }
        }
    }
}
