//! Importance matrices: which input channels of a layer matter, as llama.cpp's `llama-imatrix` measures and `llama-quantize` uses it.
//!
//! For every linear layer the file holds the sum over calibration tokens of the square of each input channel, and the number of tokens.
//! [`Imatrix::importance`] is their quotient, the weights of the quantizers in [`blocks`](crate::blocks). Two forms are in use:
//! GGUF (written since 2025) and an older one without a magic number (`.dat`); [`Imatrix::parse`] takes either.
//!
//! ```
//! use gguf_format::imatrix::{Entry, Imatrix};
//! let mut imatrix = Imatrix { chunk_count: 1, chunk_size: 4, ..Imatrix::default() };
//! imatrix.entries.insert("blk.0.attn_q.weight".into(), Entry { in_sum2: vec![2.0, 8.0], counts: vec![4] });
//! let read = Imatrix::parse(&imatrix.to_bytes()?)?;
//! assert_eq!(read.importance("blk.0.attn_q.weight"), Some(vec![0.5, 2.0]));
//! # Ok::<(), gguf_format::Error>(())
//! ```

#[cfg(feature = "std")]
mod files;
mod gguf_form;
mod legacy_form;

use crate::plan::refused;
use crate::{Error, Result};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The content of an importance-matrix file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// The calibration texts, as whoever wrote the file named them.
    pub datasets: Vec<String>,
    /// Chunks of text that were seen.
    pub chunk_count: u32,
    /// Tokens in a chunk; 0 where the file does not say (the legacy form).
    pub chunk_size: u32,
    /// By the name of the weight (`blk.0.attn_q.weight`), in order of name.
    pub entries: BTreeMap<String, Entry>,
}

/// The statistics of the input of one weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Sum of x² of each input channel: one row per matrix (an expert, or 1), `counts.len()` rows of equal length.
    pub in_sum2: Vec<f32>,
    /// Tokens that each matrix saw. A file in the legacy form counts chunks, and its sums are scaled to that.
    pub counts: Vec<u64>,
}

impl Imatrix {
    /// Reads either form, told apart by the magic bytes `GGUF`. Tensors of a GGUF file that are neither sums nor counts are passed over.
    ///
    /// # Errors
    /// [`Error::Malformed`]: lengths that do not fit the bytes or each other, sums without counts, a sum that is negative or not finite, no
    /// entry at all, bytes after the end of the legacy form. [`Error::KeyType`] for metadata of another type.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match bytes.starts_with(b"GGUF") {
            true => gguf_form::parse(bytes),
            false => legacy_form::parse(bytes),
        }
    }

    /// Mean x² of each input channel, matrix after matrix: `in_sum2 / count`, all ones for a matrix that saw no token, as llama-quantize
    /// has it. `None` if the name has no entry, or if `in_sum2` is not `counts.len()` rows of equal length (never so after reading).
    pub fn importance(&self, name: &str) -> Option<Vec<f32>> {
        self.entries.get(name)?.importance()
    }

    /// The GGUF form, as llama.cpp writes it: entries in order of name, `<name>.in_sum2` and `<name>.counts` of each. Counts above 2^24 are
    /// rounded to the nearest f32, as the format stores them.
    ///
    /// # Errors
    /// [`Error::Refused`] for an entry whose lengths do not fit, that holds a value that is negative or not finite, or whose name is longer
    /// than 55 bytes (ggml's 63 less the suffix).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (plan, data) = gguf_form::plan(self)?;
        plan.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// The legacy form, for readers from before 2025. It keeps only the last name of `datasets`, and chunks instead of tokens (a chunk is
    /// `chunk_size` tokens, or one count where that is 0); matrices that saw nothing become ones, entries that saw nothing are left out.
    ///
    /// # Errors
    /// [`Error::Refused`], as [`Imatrix::to_bytes`], and for numbers above the form's 2^31 - 1.
    pub fn to_legacy_bytes(&self) -> Result<Vec<u8>> {
        legacy_form::to_bytes(self)
    }

    /// Entries are what both forms can hold.
    fn check(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(refused("importance matrix", "no entries"));
        }
        self.entries.iter().try_for_each(|(name, entry)| {
            let refuse = |reason: String| Err(refused(format!("entry `{}`", name.escape_debug()), reason));
            if name.is_empty() {
                return refuse("an empty name".into());
            }
            if entry.columns().is_none() {
                return refuse(format!("{} sums for {} counts", entry.in_sum2.len(), entry.counts.len()));
            }
            match entry.first_bad_sum() {
                Some((i, value)) => refuse(format!("sum {i} is {value}, not a sum of squares")),
                None => Ok(()),
            }
        })
    }
}

impl Entry {
    /// Input channels of one matrix; `None` if the sums are not `counts.len()` rows of equal length, at least 1.
    pub fn columns(&self) -> Option<usize> {
        let columns = self.in_sum2.len().checked_div(self.counts.len())?;
        (columns > 0 && columns * self.counts.len() == self.in_sum2.len()).then_some(columns)
    }

    /// [`Imatrix::importance`] of this entry.
    pub fn importance(&self) -> Option<Vec<f32>> {
        let columns = self.columns()?;
        let mut out = Vec::with_capacity(self.in_sum2.len());
        for (row, &count) in self.in_sum2.chunks_exact(columns).zip(&self.counts) {
            match count {
                0 => out.resize(out.len() + columns, 1.0),
                count => out.extend(row.iter().map(|sum| sum / count as f32)),
            }
        }
        Some(out)
    }

    /// A sum of squares is finite and not negative.
    fn first_bad_sum(&self) -> Option<(usize, f32)> {
        self.in_sum2.iter().copied().enumerate().find(|(_, v)| !(v.is_finite() && *v >= 0.0))
    }
}

/// f32 values of checked bytes.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The error of a file whose sums are no sums of squares.
fn bad_sum(name: &str, offset: u64, (index, value): (usize, f32)) -> Error {
    Error::Malformed {
        what: format!("importance of `{}`", name.escape_debug()),
        offset: offset + 4 * index as u64,
        expected: "a sum of squares".into(),
        found: value.to_string(),
    }
}
