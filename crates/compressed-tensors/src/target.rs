//! Which modules a group of the config is about.

use super::Result;
use quant_core::checkpoint::Pattern;

/// The class of the modules that are quantized here.
const CLASS: &str = "Linear";

/// A name of a module or of its class, or after `re:` a regular expression that matches names from their start on.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `model.layers.0.mlp.up_proj`, `Linear`.
    Name(String),
    /// `re:.*down_proj`.
    Pattern(Pattern),
}

impl Target {
    /// One of `count` targets of a config; `key` is named in errors.
    ///
    /// # Errors
    /// [`CheckpointError::Config`](super::CheckpointError::Config) for what is no regular expression.
    pub fn new(key: &str, text: &str, count: usize) -> Result<Self> {
        match text.strip_prefix("re:") {
            Some(pattern) => Pattern::new(&format!("{key}: {text}"), pattern, count).map(Self::Pattern),
            None => Ok(Self::Name(text.to_owned())),
        }
    }

    /// All linear layers.
    pub fn linear() -> Self {
        Self::Name(CLASS.to_owned())
    }

    /// As the config has it.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Pattern(pattern) => format!("re:{}", pattern.text()),
        }
    }

    /// Whether it names this module.
    pub fn matches(&self, module: &str) -> bool {
        match self {
            Self::Name(name) => name == module,
            Self::Pattern(pattern) => pattern.matches(module),
        }
    }

    /// Whether it names the class of linear layers.
    pub fn is_linear(&self) -> bool {
        matches!(self, Self::Name(name) if name == CLASS)
    }
}
