//! Keys of a JSON object, with errors that name them.

use super::{CheckpointError, Result};
use serde_json::{Map, Value};

/// An object of the config and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// The object.
    pub map: &'a Map<String, Value>,
    /// Empty at the top.
    pub path: &'a str,
}

impl<'a> Keys<'a> {
    /// The value of a key; null counts as absent, as Python writers leave it.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The key with its path, for messages.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}: {key}", self.path) }
    }

    /// A boolean, `None` if absent.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a value of another type; so do the methods that follow.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key).map(|v| v.as_bool().ok_or_else(|| wrong(&self.name(key), "true or false", v))).transpose()
    }

    /// A number, `None` if absent.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|v| v.as_f64().ok_or_else(|| wrong(&self.name(key), "a number", v))).transpose()
    }

    /// A string, `None` if absent.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| wrong(&self.name(key), "a string", v))).transpose()
    }
}

/// A key with an impossible value, which is cut to 80 characters.
pub fn wrong(key: &str, expected: &str, found: &Value) -> CheckpointError {
    let mut found = found.to_string();
    if let Some((at, _)) = found.char_indices().nth(80) {
        found.truncate(at);
        found.push_str("...");
    }
    CheckpointError::Config { key: key.to_owned(), expected: expected.to_owned(), found }
}

/// A feature of the config that is not read here; `value` is cut to 80 characters.
pub fn unsupported(key: &str, value: &str, supported: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        key: key.to_owned(),
        value: value.chars().take(80).collect(),
        supported: supported.to_owned(),
    }
}

/// Input features of a group: -1 (all of them, `None`), or the number of them.
///
/// # Errors
/// [`CheckpointError::Config`] for any other value.
pub fn group_size_from_json(key: &str, value: &Value) -> Result<Option<usize>> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(size @ 1..=0x7fff_ffff) => Ok(Some(size as usize)),
        _ => Err(wrong(key, "-1 or a positive number", value)),
    }
}

/// -1 for `None`.
pub fn group_size_to_json(size: Option<usize>) -> Value {
    size.map_or(Value::from(-1), Value::from)
}
