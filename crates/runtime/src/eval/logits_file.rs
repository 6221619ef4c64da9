//! A file of logits: `tokens` [n] i32 and `logits` [n, vocab] f32, in safetensors.
//!
//! Row `i` of `logits` is what the model says after `tokens[i]`. Any program can write such a file. Ours adds metadata: `ctx`, the
//! length of the sequences that the tokens are cut into (each starts from an empty cache), and `scored_from`, the first position of a
//! sequence that the perplexity protocol scores.

use super::EvalPlan;
use crate::safetensors_io::{Dtype, SafetensorsReader, SafetensorsWriter, TensorSpec};
use crate::{Error, Result};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

/// An opened file of logits: the tokens in memory, the logits on disk.
#[derive(Debug)]
pub struct LogitsFile {
    reader: SafetensorsReader,
    tokens: Vec<u32>,
    vocab: usize,
    ctx: usize,
}

impl LogitsFile {
    /// Opens and checks the file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Malformed`] if a tensor is missing, of another type or shape, or a token is negative or outside the
    /// vocabulary. `tokens` may be i64 too, as torch writes them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut reader = SafetensorsReader::open(path)?;
        let shape = reader.need("logits", Dtype::F32)?.shape.clone();
        let &[n, vocab] = shape.as_slice() else {
            return Err(Error::malformed(path, "tensor `logits`", "shape [n, vocab]", format!("{shape:?}")));
        };
        let wide = reader.tensors().get("tokens").is_some_and(|t| t.dtype == Dtype::I64.name());
        let dtype = if wide { Dtype::I64 } else { Dtype::I32 };
        let token_shape = &reader.need("tokens", dtype)?.shape;
        if token_shape.as_slice() != [n] || n == 0 || vocab == 0 {
            let expected = format!("shape [{}], one token for each row of logits", n.max(1));
            return Err(Error::malformed(path, "tensor `tokens`", expected, format!("{token_shape:?}, vocab {vocab}")));
        }
        let ids: Vec<i64> = if wide {
            reader.read_i64("tokens", 0, n)?
        } else {
            reader.read_i32("tokens", 0, n)?.into_iter().map(i64::from).collect()
        };
        let mut tokens = Vec::with_capacity(ids.len());
        for (i, id) in ids.into_iter().enumerate() {
            match u32::try_from(id) {
                Ok(t) if u64::from(t) < vocab => tokens.push(t),
                _ => {
                    let what = format!("tensor `tokens`, element {i}");
                    return Err(Error::malformed(path, what, format!("0..{vocab}"), id.to_string()));
                }
            }
        }
        let mut file = Self { reader, tokens, vocab: vocab as usize, ctx: 0 };
        file.ctx = file.ctx()?.unwrap_or(file.tokens.len());
        Ok(file)
    }

    /// True if the file at `path` begins as safetensors do, with the length of a JSON header: no GGUF file and no directory does. Whether it is
    /// a whole file of logits, [`open`](Self::open) finds out.
    pub fn is_safetensors(path: impl AsRef<Path>) -> bool {
        let mut start = Vec::new();
        let read = std::fs::File::open(path).and_then(|f| f.take(9).read_to_end(&mut start));
        read.is_ok() && start.get(8) == Some(&b'{') && !start.starts_with(b"GGUF")
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// The tokens, all sequences one after the other.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Length of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Tokens of a sequence, if the file says it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no positive number.
    pub fn ctx(&self) -> Result<Option<usize>> {
        let ctx = self.number("ctx")?;
        if ctx == Some(0) {
            return Err(Error::malformed(self.path(), "metadata `ctx`", "a positive number", "0"));
        }
        Ok(ctx)
    }

    /// First position of a sequence that is scored, if the file says it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no number.
    pub fn scored_from(&self) -> Result<Option<usize>> {
        self.number("scored_from")
    }

    /// Says how long the sequences of a file that does not say it are.
    pub(super) fn set_ctx(&mut self, ctx: usize) {
        self.ctx = ctx;
    }

    /// Logits after the positions `rows` of sequence `index`, which must be the file's own.
    pub(super) fn rows_of(&mut self, index: usize, tokens: &[u32], rows: Range<usize>) -> Result<Vec<f32>> {
        let first = index.saturating_mul(self.ctx);
        let own = self.tokens.get(first..).and_then(|t| t.get(..tokens.len()));
        if own != Some(tokens) || rows.end > tokens.len() {
            return Err(Error::malformed(
                self.path(),
                format!("sequence {index} of `tokens`"),
                "the tokens that are evaluated",
                if own.is_some() { "other tokens" } else { "fewer tokens" },
            ));
        }
        let vocab = self.vocab as u64;
        self.reader.read_f32("logits", (first + rows.start) as u64 * vocab, rows.len() as u64 * vocab)
    }

    fn number(&self, key: &str) -> Result<Option<usize>> {
        let Some(text) = self.reader.metadata().get(key) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Error::malformed(self.path(), format!("metadata `{key}`"), "a number", text.clone()))
    }
}

/// Writes a file of logits sequence by sequence; the target appears when all are there.
#[derive(Debug)]
pub struct LogitsWriter {
    out: SafetensorsWriter,
}

impl LogitsWriter {
    /// Starts the file with the tokens of `plan`. It will take `4 · tokens · (vocab + 1)` bytes and a header:
    /// [`file_len`](Self::file_len) says it exactly.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::create`].
    pub fn create(path: impl AsRef<Path>, plan: &EvalPlan, vocab: usize) -> Result<Self> {
        let n = plan.token_count() as u64;
        let specs =
            [TensorSpec::new("tokens", Dtype::I32, [n]), TensorSpec::new("logits", Dtype::F32, [n, vocab as u64])];
        let mut metadata = vec![("ctx".to_owned(), plan.ctx().to_string())];
        // The protocol scores the same part of every sequence.
        if let Some(first) = plan.sequences().first().filter(|s| s.scored.end < s.tokens.len()) {
            metadata.push(("scored_from".to_owned(), first.scored.start.to_string()));
        }
        let mut out = SafetensorsWriter::create(path, &specs, &metadata)?;
        for s in plan.sequences() {
            let ids: Vec<i32> = s.tokens.iter().map(|&t| t as i32).collect();
            out.write_i32(&ids)?;
        }
        Ok(Self { out })
    }

    /// Size of the finished file.
    pub fn file_len(&self) -> u64 {
        self.out.file_len()
    }

    /// All logits of the next sequence.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::write`].
    pub fn write(&mut self, logits: &[f32]) -> Result<()> {
        self.out.write_f32(logits)
    }

    /// Puts the file in place; returns its size.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::finish`].
    pub fn finish(self) -> Result<u64> {
        self.out.finish()
    }
}
