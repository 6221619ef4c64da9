//! `transform_config`: rotations, as compressed-tensors 0.20 describes them (`transform/transform_{config,scheme,args}.py`).
//!
//! Those of weights are in the weights already. Left to be done is what is said of inputs: every row is multiplied by a Walsh-Hadamard matrix in blocks,
//! Sylvester's order, divided by the root of the block's size; its inverse is itself. vLLM does it, transformers 5.24 does not read the object.

use super::{CheckpointError, Result, Target};
use quant_core::checkpoint::{Keys, MAX_PATTERNS, unsupported, wrong};
use serde_json::{Map, Value, json};

/// A Walsh-Hadamard transform of what linear layers read, while the model runs. The columns of their weights are transformed alike.
#[derive(Clone, Debug, PartialEq)]
pub struct InputHadamard {
    /// Name of its group.
    pub name: String,
    /// The layers.
    pub targets: Vec<Target>,
    /// Those of them that are left out.
    pub ignore: Vec<Target>,
    /// Values of a block, a power of two; `None`: the whole row is one.
    pub block: Option<usize>,
}

impl InputHadamard {
    /// Whether what a layer reads is transformed.
    pub fn matches(&self, module: &str) -> bool {
        let any = |targets: &[Target]| targets.iter().any(|t| t.is_linear() || t.matches(module));
        any(&self.targets) && !any(&self.ignore)
    }

    fn to_json(&self) -> Value {
        let texts = |targets: &[Target]| targets.iter().map(|t| Value::from(t.text())).collect::<Vec<_>>();
        let apply = |location: &str, inverse: bool| {
            let (targets, ignore) = (texts(&self.targets), texts(&self.ignore));
            json!({ "targets": targets, "location": location, "inverse": inverse, "ignore": ignore })
        };
        json!({
            "type": "hadamard",
            "apply": [apply("input", false), apply("weight_input", true)],
            "randomize": false,
            "requires_grad": false,
            "head_dim": self.block,
            "precision": "torch.float32",
        })
    }
}

/// The value of `transform_config`.
pub(super) fn to_json(transforms: &[InputHadamard]) -> Value {
    if transforms.is_empty() {
        return json!({});
    }
    let groups: Map<String, Value> = transforms.iter().map(|t| (t.name.clone(), t.to_json())).collect();
    json!({ "config_groups": groups })
}

/// Reads `transform_config`.
///
/// # Errors
/// [`CheckpointError::Config`] for a value that is impossible; [`CheckpointError::Unsupported`] for transforms while running other than of inputs, and other
/// than by plain Hadamard matrices.
pub(super) fn from_json(json: Option<&Value>) -> Result<Vec<InputHadamard>> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let groups = match json.get("config_groups") {
        None if json.as_object().is_some_and(Map::is_empty) => return Ok(Vec::new()),
        Some(Value::Object(groups)) => groups,
        _ => return Err(wrong("transform_config", "an object with config_groups", json)),
    };
    let mut transforms = Vec::new();
    if groups.len() > MAX_PATTERNS {
        let (expected, found) = (format!("at most {MAX_PATTERNS} groups"), groups.len().to_string());
        return Err(CheckpointError::Config { key: "transform_config".into(), expected, found });
    }
    for (name, group) in groups {
        let path = format!("transform_config: {name}");
        let Value::Object(map) = group else { return Err(wrong(&path, "an object", group)) };
        let keys = Keys { map, path: &path };
        let applied = match keys.get("apply") {
            None => &[][..],
            Some(list) => list.as_array().ok_or_else(|| wrong(&keys.name("apply"), "a list", list))?,
        };
        for (index, args) in applied.iter().enumerate() {
            let path = format!("{path}: apply {index}");
            let Value::Object(map) = args else { return Err(wrong(&path, "an object", args)) };
            let args = Keys { map, path: &path };
            match args.text("location")? {
                Some("weight_input" | "weight_output") => continue,
                Some("input") => {}
                other => return Err(unsupported(&args.name("location"), other.unwrap_or("none"), "input")),
            }
            match keys.text("type")? {
                Some("hadamard") => {}
                other => return Err(unsupported(&keys.name("type"), other.unwrap_or("none"), "hadamard")),
            }
            if keys.get("randomize").is_some_and(|v| v != &Value::Bool(false)) {
                return Err(unsupported(&keys.name("randomize"), "true", "false"));
            }
            let block = match keys.get("head_dim") {
                None => None,
                Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                    Some(n) if n.is_power_of_two() => Some(n),
                    _ => return Err(wrong(&keys.name("head_dim"), "a power of two", value)),
                },
            };
            transforms.push(InputHadamard {
                name: name.clone(),
                targets: targets(&args, "targets")?,
                ignore: targets(&args, "ignore")?,
                block,
            });
        }
    }
    Ok(transforms)
}

fn targets(keys: &Keys<'_>, key: &str) -> Result<Vec<Target>> {
    let name = keys.name(key);
    let values = match keys.get(key) {
        None => &[][..],
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(list) => list.as_array().ok_or_else(|| wrong(&name, "a list of names", list))?,
    };
    if values.len() > MAX_PATTERNS {
        let (expected, found) = (format!("at most {MAX_PATTERNS} targets"), values.len().to_string());
        return Err(CheckpointError::Config { key: name, expected, found });
    }
    let text = |value: &Value| {
        let text = value.as_str().ok_or_else(|| wrong(&name, "strings", value))?;
        Target::new(&name, text, values.len())
    };
    values.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(block: Option<usize>) -> InputHadamard {
        let targets = vec![Target::new("", "re:.*down_proj$", 1).unwrap()];
        InputHadamard { name: "R4".into(), targets, ignore: Vec::new(), block }
    }

    #[test]
    fn what_is_written_reads_back() {
        for block in [Some(128), None] {
            let transforms = [down(block)];
            let text = to_json(&transforms).to_string();
            assert_eq!(from_json(Some(&serde_json::from_str(&text).unwrap())).unwrap(), transforms);
        }
        assert_eq!(to_json(&[]), json!({}));
        assert!(from_json(None).unwrap().is_empty() && from_json(Some(&json!({}))).unwrap().is_empty());
        assert!(down(None).matches("model.layers.3.mlp.down_proj"));
        assert!(!down(None).matches("model.layers.3.mlp.up_proj"));
        let but = InputHadamard { ignore: vec![Target::Name("a.down_proj".into())], ..down(None) };
        assert!(but.matches("b.down_proj") && !but.matches("a.down_proj"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let group = |change: Value| {
            let mut json = down(Some(64)).to_json();
            json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            from_json(Some(&json!({ "config_groups": { "R": json } }))).map(|t| t.len()).map_err(|e| e.to_string())
        };
        let at = |location: &str| json!({ "apply": [{ "targets": "Linear", "location": location }] });
        assert_eq!(group(at("weight_output")), Ok(0));
        assert_eq!(group(at("input")), Ok(1));
        let cases = [
            (at("output"), "location"),
            (at("k_cache"), "location"),
            (json!({ "type": "random-matrix" }), "type"),
            (json!({ "randomize": true }), "randomize"),
            (json!({ "head_dim": 96 }), "head_dim"),
            (json!({ "head_dim": 0 }), "head_dim"),
            (json!({ "apply": 3 }), "apply"),
            (json!({ "apply": [{ "location": "input", "targets": 7 }] }), "targets"),
            (json!({ "apply": [{ "location": "input", "targets": ["re:("] }] }), "targets"),
        ];
        for (change, expected) in cases {
            let error = group(change).unwrap_err();
            assert!(error.contains("transform_config: R") && error.contains(expected), "{error}");
        }
        for bad in [json!(3), json!({ "config_groups": [] }), json!({ "config_groups": { "R": 1 } }), json!({ "x": 1 })]
        {
            assert!(from_json(Some(&bad)).unwrap_err().to_string().contains("transform_config"));
        }
    }
}
