//! Which tokens are run, and which of their positions are scored.

use super::LogitsFile;
use crate::{Error, Result, Tokenizer};
use std::ops::Range;

/// One sequence, run from an empty cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSequence {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Positions whose logits are scored. Position `i` predicts token `i + 1`; the last token of a sequence predicts none, so if it is
    /// scored it counts for the divergence only.
    pub scored: Range<usize>,
}

/// What an evaluation runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalPlan {
    ctx: usize,
    sequences: Vec<EvalSequence>,
}

impl EvalPlan {
    /// [`chunks`](Self::chunks) of a text, tokenized once with the model's own rules.
    ///
    /// # Errors
    /// As [`chunks`](Self::chunks), and what the tokenizer says.
    pub fn from_text(tokenizer: &Tokenizer, text: &str, ctx: usize, max_chunks: Option<usize>) -> Result<Self> {
        Self::chunks(&tokenizer.encode(text, true, false)?, tokenizer.added_bos(), ctx, max_chunks)
    }

    /// llama-perplexity's protocol: `tokens` (the whole text, tokenized once with the model's own BOS rule) in chunks of `ctx`, what is
    /// left at the end dropped; with `bos` the first token of each chunk is replaced by it; the positions `ctx/2 ..= ctx - 2` are scored.
    ///
    /// # Errors
    /// [`Error::Usage`] if `ctx` is below 4, `max_chunks` is zero, or the text is shorter than one chunk.
    pub fn chunks(tokens: &[u32], bos: Option<u32>, ctx: usize, max_chunks: Option<usize>) -> Result<Self> {
        if ctx < 4 {
            return Err(Error::Usage(format!("a context of {ctx} tokens is too short: at least 4")));
        }
        if max_chunks == Some(0) {
            return Err(Error::Usage("zero chunks leave nothing to score".to_owned()));
        }
        if tokens.len() < ctx {
            return Err(Error::Usage(format!("the text has {} tokens, one chunk needs {ctx}", tokens.len())));
        }
        let sequences = tokens
            .chunks_exact(ctx)
            .take(max_chunks.unwrap_or(usize::MAX))
            .map(|chunk| {
                let mut tokens = chunk.to_vec();
                if let (Some(bos), Some(first)) = (bos, tokens.first_mut()) {
                    *first = bos;
                }
                EvalSequence { tokens, scored: ctx / 2..ctx - 1 }
            })
            .collect();
        Ok(Self { ctx, sequences })
    }

    /// The sequences a file of logits was made from.
    ///
    /// The file's own metadata says how its tokens are cut (`ctx`) and from where a sequence is scored (`scored_from`, up to the last but
    /// one). A file without them holds sequences of `ctx` tokens if given, one sequence if not, and every position is scored.
    ///
    /// # Errors
    /// [`Error::Usage`] if `ctx` contradicts the file; [`Error::Malformed`] if the file's metadata do.
    pub fn from_logits(file: &mut LogitsFile, ctx: Option<usize>, max_chunks: Option<usize>) -> Result<Self> {
        let stored = file.ctx()?;
        let ctx = match (stored, ctx) {
            (Some(stored), Some(ctx)) if stored != ctx => {
                return Err(Error::Usage(format!(
                    "{} holds sequences of {stored} tokens, not of {ctx}",
                    file.path().display()
                )));
            }
            (Some(n), _) | (None, Some(n)) => n.min(file.tokens().len()),
            (None, None) => file.tokens().len(),
        };
        if max_chunks == Some(0) || ctx == 0 {
            return Err(Error::Usage("zero chunks leave nothing to score".to_owned()));
        }
        let from = file.scored_from()?;
        file.set_ctx(ctx);
        let sequences = file
            .tokens()
            .chunks(ctx)
            .take(max_chunks.unwrap_or(usize::MAX))
            .map(|chunk| {
                let scored = match from {
                    // A sequence that ends before has nothing to score.
                    Some(from) => from.min(chunk.len() - 1)..chunk.len() - 1,
                    None => 0..chunk.len(),
                };
                EvalSequence { tokens: chunk.to_vec(), scored }
            })
            .collect();
        Ok(Self { ctx, sequences })
    }

    /// Tokens of a sequence (the last may be shorter if it comes from a file).
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// The sequences, in order.
    pub fn sequences(&self) -> &[EvalSequence] {
        &self.sequences
    }

    /// Tokens of all sequences.
    pub fn token_count(&self) -> usize {
        self.sequences.iter().map(|s| s.tokens.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_as_llama_perplexity_cuts_them() {
        let tokens: Vec<u32> = (0..530).collect();
        let plan = EvalPlan::chunks(&tokens, Some(9), 256, None).unwrap();
        assert_eq!(plan.sequences().len(), 2);
        for (i, s) in plan.sequences().iter().enumerate() {
            assert_eq!(s.scored, 128..255, "positions 128 to 254");
            assert_eq!((s.tokens[0], s.tokens[1]), (9, 256 * i as u32 + 1));
        }
        let one = EvalPlan::chunks(&tokens, None, 256, Some(1)).unwrap();
        assert_eq!((one.sequences().len(), one.sequences()[0].tokens[0], one.token_count()), (1, 0, 256));
    }

    #[test]
    fn what_cannot_be_scored_is_an_error() {
        for (len, ctx, max) in [(10, 3, None), (10, 11, None), (10, 4, Some(0)), (0, 4, None)] {
            let tokens = vec![0; len];
            assert!(matches!(EvalPlan::chunks(&tokens, None, ctx, max), Err(Error::Usage(_))), "{len} {ctx} {max:?}");
        }
    }
}
