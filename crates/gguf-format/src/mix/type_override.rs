//! `REGEX=TYPE`: tensors whose name matches get this type.

use crate::{Error, GgmlType, Result};
use regex::{Regex, RegexBuilder};
use std::str::FromStr;

/// A type for all tensors whose name matches a pattern.
#[derive(Clone, Debug)]
pub struct TypeOverride {
    text: String,
    pattern: Regex,
    ty: GgmlType,
}

impl TypeOverride {
    /// `pattern` is searched for anywhere in the name; case is ignored (llama-quantize lower-cases the pattern).
    ///
    /// # Errors
    /// [`Error::Refused`] where `pattern` is no regular expression.
    pub fn new(pattern: &str, ty: GgmlType) -> Result<Self> {
        let compiled = RegexBuilder::new(pattern).case_insensitive(true).size_limit(1 << 20).build();
        let compiled = compiled.map_err(|e| Error::Refused {
            what: format!("pattern `{pattern}`"),
            reason: e.to_string().lines().last().unwrap_or("not a regular expression").trim().to_owned(),
        })?;
        Ok(Self { text: pattern.to_owned(), pattern: compiled, ty })
    }

    /// Whether the pattern occurs in `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name)
    }

    /// The type.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// The pattern as it was given.
    pub fn pattern(&self) -> &str {
        &self.text
    }
}

impl FromStr for TypeOverride {
    type Err = Error;

    /// `attn_v=q6_k`. The last `=` separates, so that a pattern may hold one.
    fn from_str(s: &str) -> Result<Self> {
        let refused = |reason: String| Error::Refused { what: format!("`{s}`"), reason };
        let (pattern, name) = s.rsplit_once('=').ok_or_else(|| refused("expected REGEX=TYPE".to_owned()))?;
        if pattern.is_empty() {
            return Err(refused("the pattern before `=` is empty".to_owned()));
        }
        let ty = GgmlType::from_name(name).ok_or_else(|| refused(format!("`{name}` is no tensor type")))?;
        Self::new(pattern, ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_matches() {
        let o: TypeOverride = r"\.(\d|1\d)\.attn_v=q6_K".parse().unwrap();
        assert_eq!((o.ty(), o.pattern()), (GgmlType::Q6_K, r"\.(\d|1\d)\.attn_v"));
        assert!(o.matches("blk.17.attn_v.weight") && !o.matches("blk.27.attn_v.weight"));
        assert!("ATTN_V=Q8_0".parse::<TypeOverride>().unwrap().matches("blk.0.attn_v.weight"));
        for bad in ["attn_v", "=Q4_0", "attn_v=", "attn_v=Q4_K_M", "(=Q4_0"] {
            assert!(bad.parse::<TypeOverride>().is_err(), "{bad}");
        }
    }
}
