//! Overrides of the config for modules whose name matches a regular expression (GPTQModel's `dynamic`).

use super::{CheckpointError, Result, is_stored_width};
use quant_core::affine::Bits;
use quant_core::checkpoint::{Keys, MAX_PATTERNS, Pattern, group_size_from_json, group_size_to_json, wrong};
use serde_json::{Map, Value};

/// What a rule changes; `None` leaves the config's value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Bits of a code.
    pub bits: Option<Bits>,
    /// Input features of a group; `Some(None)` for all (-1 in the file).
    pub group_size: Option<Option<usize>>,
    /// Symmetric grid.
    pub sym: Option<bool>,
    /// Groups follow the order of activations.
    pub desc_act: Option<bool>,
}

/// One rule: `-:regex` leaves modules in full precision, `+:regex` or `regex` overrides values. The expression must match from the name's first
/// character on (Python's `re.match`); the first rule that matches is the one that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicRule {
    pattern: Pattern,
    /// `None`: the module is left in full precision.
    action: Option<Overrides>,
}

impl DynamicRule {
    /// Modules matching `pattern` (without prefix) stay in full precision.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] if `pattern` is no regular expression.
    pub fn skip(pattern: &str) -> Result<Self> {
        Ok(Self { pattern: Pattern::new(pattern, pattern, 1)?, action: None })
    }

    /// Modules matching `pattern` (without prefix) are quantized otherwise.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] if `pattern` is no regular expression.
    pub fn overriding(pattern: &str, overrides: Overrides) -> Result<Self> {
        Ok(Self { pattern: Pattern::new(pattern, pattern, 1)?, action: Some(overrides) })
    }

    /// A rule that leaves exactly the module `name` in full precision.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a name that is too long.
    pub fn skip_module(name: &str) -> Result<Self> {
        Self::skip(&format!("^{}$", regex::escape(name)))
    }

    /// The expression, without prefix.
    pub fn pattern(&self) -> &str {
        self.pattern.text()
    }

    /// What it overrides; `None` if modules are left in full precision.
    pub fn overrides(&self) -> Option<&Overrides> {
        self.action.as_ref()
    }

    /// Whether it is about this module.
    pub fn matches(&self, module: &str) -> bool {
        self.pattern.matches(module)
    }
}

/// The rules of `dynamic`: an object whose order counts, null, or absent.
pub(super) fn from_json(value: &Value) -> Result<Vec<DynamicRule>> {
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(map) => map,
        other => return Err(wrong("dynamic", "an object of regular expressions", other)),
    };
    if map.len() > MAX_PATTERNS {
        return Err(CheckpointError::Config {
            key: "dynamic".into(),
            expected: format!("at most {MAX_PATTERNS} rules"),
            found: map.len().to_string(),
        });
    }
    map.iter().map(|(key, value)| rule(key, value, map.len())).collect()
}

/// One of `count` rules.
fn rule(key: &str, value: &Value, count: usize) -> Result<DynamicRule> {
    let path = format!("dynamic: {key}");
    if let Some(pattern) = key.strip_prefix("-:") {
        return Ok(DynamicRule { pattern: Pattern::new(&path, pattern, count)?, action: None });
    }
    let pattern = key.strip_prefix("+:").unwrap_or(key);
    let Value::Object(map) = value else { return Err(wrong(&path, "an object", value)) };
    let keys = Keys { map, path: &path };
    let overrides = Overrides {
        bits: keys.get("bits").map(|v| stored_bits(&keys.name("bits"), v)).transpose()?,
        group_size: keys.get("group_size").map(|v| group_size_from_json(&keys.name("group_size"), v)).transpose()?,
        sym: keys.boolean("sym")?,
        desc_act: keys.boolean("desc_act")?,
    };
    Ok(DynamicRule { pattern: Pattern::new(&path, pattern, count)?, action: Some(overrides) })
}

/// 2, 3, 4 or 8.
pub(super) fn stored_bits(key: &str, value: &Value) -> Result<Bits> {
    let bits = value.as_u64().and_then(|b| u8::try_from(b).ok()).and_then(Bits::new);
    bits.filter(|b| is_stored_width(*b)).ok_or_else(|| wrong(key, "2, 3, 4 or 8", value))
}

pub(super) fn to_json(rules: &[DynamicRule]) -> Value {
    let mut map = Map::new();
    for rule in rules {
        let mut values = Map::new();
        if let Some(Overrides { bits, group_size, sym, desc_act }) = rule.action {
            bits.map(|b| values.insert("bits".into(), b.get().into()));
            group_size.map(|g| values.insert("group_size".into(), group_size_to_json(g)));
            sym.map(|s| values.insert("sym".into(), s.into()));
            desc_act.map(|d| values.insert("desc_act".into(), d.into()));
        }
        let prefix = if rule.action.is_some() { "+:" } else { "-:" };
        map.insert(format!("{prefix}{}", rule.pattern()), Value::Object(values));
    }
    Value::Object(map)
}
