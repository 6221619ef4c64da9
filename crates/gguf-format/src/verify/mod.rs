//! Checking a file: everything that is wrong with its structure, which readers refuse it, and numbers that are not finite.
//!
//! [`Gguf::parse`](crate::Gguf::parse) stops at the first error; [`verify`] goes on as far as it can and names every one.

mod place;
mod reader;
mod scan;
mod values;

pub use reader::{Reader, Rule};
pub use values::{NonFinite, checks_values, non_finite};

use crate::{Gguf, Limits};
use std::fmt;

/// At most this many findings are kept.
const KEPT: usize = 1000;

/// One thing found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The part of the file: `header`, `` key `general.name` ``, `` tensor `output.weight` ``.
    pub what: String,
    /// Byte offset from the start of the file.
    pub offset: u64,
    /// What is there, and what should be.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {:#x}: {}", self.what, self.offset, self.message)
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Version, where there is one.
    pub version: Option<u32>,
    /// True if the numbers are big endian.
    pub big_endian: bool,
    /// Keys that were walked over.
    pub keys: u64,
    /// Tensors that were walked over.
    pub tensors: u64,
    /// Everything found, in the order of the file; the first 1,000.
    pub findings: Vec<Finding>,
    /// Number of findings beyond those.
    pub left_out: u64,
    /// The first reason of each reader that refuses the file.
    pub refusals: Vec<(Reader, Finding)>,
}

impl Report {
    /// Why this reader refuses the file; `None` if it takes it.
    pub fn refusal(&self, reader: Reader) -> Option<&Finding> {
        self.refusals.iter().find(|(r, _)| *r == reader).map(|(_, finding)| finding)
    }

    fn add(&mut self, finding: Finding) {
        for &reader in finding.rule.refused_by() {
            if self.refusal(reader).is_none() {
                self.refusals.push((reader, finding.clone()));
            }
        }
        match self.findings.len() < KEPT {
            true => self.findings.push(finding),
            false => self.left_out += 1,
        }
    }
}

/// Checks the structure of a file: all that the header says, and where the data lie. The data are not looked at: [`non_finite`] does that.
///
/// No bytes make it panic. Time and memory are in proportion to the header.
///
/// ```
/// use gguf_format::verify::{Reader, verify};
/// let report = verify(b"GGUF\x04\0\0\0");
/// assert_eq!(report.findings[0].rule.code(), "bad_version");
/// assert!(report.refusal(Reader::Candle).is_some());
/// ```
pub fn verify(file: &[u8]) -> Report {
    scan::scan(file)
}

/// Whether this crate reads the file, by its own reader: the last word on what [`Reader::GgufFormat`] refuses.
///
/// # Errors
/// As [`Gguf::parse`].
pub fn readable(file: &[u8]) -> crate::Result<()> {
    Gguf::parse(file, &Limits::default()).map(drop)
}
