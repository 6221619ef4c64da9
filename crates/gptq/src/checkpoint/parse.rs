//! Keys of a JSON object, with errors that name them.

use super::{CheckpointError, Result};
use serde_json::{Map, Value};

/// An object of the config and where it stands.
pub(super) struct Keys<'a> {
    pub(super) map: &'a Map<String, Value>,
    /// Empty at the top.
    pub(super) path: &'a str,
}

impl<'a> Keys<'a> {
    /// The value of a key; null counts as absent, as Python writers leave it.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The key with its path, for messages.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}: {key}", self.path) }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|v| v.as_bool().ok_or_else(|| wrong(&self.name(key), "true or false", v))).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|v| v.as_f64().ok_or_else(|| wrong(&self.name(key), "a number", v))).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| wrong(&self.name(key), "a string", v))).transpose()
    }
}

pub(super) fn wrong(key: &str, expected: &str, found: &Value) -> CheckpointError {
    let mut found = found.to_string();
    if let Some((at, _)) = found.char_indices().nth(80) {
        found.truncate(at);
        found.push_str("...");
    }
    CheckpointError::Config { key: key.to_owned(), expected: expected.to_owned(), found }
}
