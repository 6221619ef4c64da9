//! What a reader does with a checkpoint, and how vLLM joins modules.

use std::collections::BTreeMap;

/// What a reader does with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It loads and computes what the checkpoint says.
    Loads {
        /// By which kernel, and what to know about it.
        how: String,
    },
    /// It loads, and computes something else.
    Misreads {
        /// What it takes for what.
        why: String,
    },
    /// It refuses.
    Refuses {
        /// The first reason.
        why: String,
    },
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loads { how } => write!(f, "yes: {how}"),
            Self::Misreads { why } => write!(f, "wrongly: {why}"),
            Self::Refuses { why } => write!(f, "no: {why}"),
        }
    }
}

/// A verdict per reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadsIn {
    /// transformers 5, and the library it reads the layout with.
    pub transformers: Verdict,
    /// vLLM on CUDA.
    pub vllm: Verdict,
}

/// Modules that vLLM joins: the last part of their names, and of the joined one's.
const JOINED: [(&str, &[&str]); 2] =
    [("qkv_proj", &["q_proj", "k_proj", "v_proj"]), ("gate_up_proj", &["gate_proj", "up_proj"])];

/// The name of the module that vLLM makes of this one and its neighbours: `self_attn.qkv_proj` of `self_attn.k_proj`.
pub fn joined_name(name: &str) -> String {
    let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
    match JOINED.iter().find(|(_, parts)| parts.contains(&last)) {
        Some((joined, _)) => format!("{parent}.{joined}"),
        None => name.to_owned(),
    }
}

/// Modules by the joined name, those of one in the given order.
pub fn by_joined_name<T>(modules: &[T], name: impl Fn(&T) -> &str) -> BTreeMap<String, Vec<&T>> {
    let mut all: BTreeMap<String, Vec<&T>> = BTreeMap::new();
    for module in modules {
        all.entry(joined_name(name(module))).or_default().push(module);
    }
    all
}
