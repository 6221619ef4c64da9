//! Regular expressions of a config: untrusted, so their compiled size is bounded.

use super::{CheckpointError, Result};
use regex::Regex;

/// Expressions that a config may have. Writers make some per layer at the most.
pub const MAX_PATTERNS: usize = 1 << 14;
/// Bytes of all compiled expressions together, about, and of one at the least and the most: one of a few characters can unfold to any size.
const MAX_ALL_COMPILED: usize = 64 << 20;
const MIN_COMPILED: usize = 16 << 10;
const MAX_COMPILED: usize = 1 << 20;

/// A regular expression that has to match from the start of a name on, as Python's `re.match` has it.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// Compiles one of `count` expressions of a config, which share a bound on their size. `key` is named in errors.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for what is no regular expression, has look-around or back-references, or unfolds beyond the bound.
    pub fn new(key: &str, text: &str, count: usize) -> Result<Self> {
        let limit = (MAX_ALL_COMPILED / count.max(1)).clamp(MIN_COMPILED, MAX_COMPILED);
        let wrong = |e: regex::Error| CheckpointError::Config {
            key: key.to_owned(),
            expected: "a regular expression without look-around and back-references".into(),
            found: e.to_string().lines().last().unwrap_or_default().to_owned(),
        };
        // By itself first: joined, `a)(b` would be one.
        regex::RegexBuilder::new(text).size_limit(limit).build().map_err(wrong)?;
        let regex = regex::RegexBuilder::new(&format!(r"\A(?:{text})")).size_limit(limit).build().map_err(wrong)?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// The text of an expression that matches any name with `part` in it.
    pub fn containing(part: &str) -> String {
        format!(".*{}", regex::escape(part))
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches `name` from its start on.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}
