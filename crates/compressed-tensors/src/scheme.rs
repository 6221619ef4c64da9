//! How weights or activations are quantized.

use super::{CheckpointError, Result};
use quant_core::checkpoint::{Keys, wrong};
use serde_json::{Value, json};

/// How the tensors of a module are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `pack-quantized`: integers of 1 to 8 bits in 32-bit words.
    PackQuantized,
    /// `int-quantized`: I8 weights, quantized activations.
    IntQuantized,
    /// `float-quantized`: FP8 weights.
    FloatQuantized,
    /// `naive-quantized`: I8 or FP8 weights, as stored by older releases.
    NaiveQuantized,
    /// `mixed-precision`: each group says its own.
    MixedPrecision,
    /// Any other, by its name.
    Other(String),
}

impl Format {
    /// From the config's spelling.
    pub fn from_name(name: &str) -> Self {
        match name {
            "pack-quantized" => Self::PackQuantized,
            "int-quantized" => Self::IntQuantized,
            "float-quantized" => Self::FloatQuantized,
            "naive-quantized" => Self::NaiveQuantized,
            "mixed-precision" => Self::MixedPrecision,
            other => Self::Other(other.chars().take(80).collect()),
        }
    }

    /// As the config spells it.
    pub fn name(&self) -> &str {
        match self {
            Self::PackQuantized => "pack-quantized",
            Self::IntQuantized => "int-quantized",
            Self::FloatQuantized => "float-quantized",
            Self::NaiveQuantized => "naive-quantized",
            Self::MixedPrecision => "mixed-precision",
            Self::Other(name) => name,
        }
    }
}

/// What a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    /// `int`.
    Int,
    /// `float`.
    Float,
}

/// Which values share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One for the tensor.
    Tensor,
    /// One for each row.
    Channel,
    /// One for so many input features of a row.
    Group(usize),
    /// One for a block of rows and columns.
    Block([usize; 2]),
    /// Of activations: one for each token.
    Token,
    /// `tensor_group`: groups, and one for the tensor.
    TensorGroup(usize),
}

/// How weights or activations are quantized: `weights`, `input_activations` of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantArgs {
    /// Bits of a code.
    pub num_bits: u8,
    /// What a code is.
    pub number_type: NumberType,
    /// Zero points are in the middle, and not stored.
    pub symmetric: bool,
    /// Which values share a scale.
    pub strategy: Strategy,
    /// Scales are found while running.
    pub dynamic: bool,
    /// Groups follow the order of activations (`actorder` is `group`): there is a `weight_g_idx`.
    pub act_order: bool,
}

impl QuantArgs {
    /// Reads an object; `path` is where it stands.
    ///
    /// # Errors
    /// [`CheckpointError::Config`] for a key that is missing or impossible.
    pub fn from_json(path: &str, json: &Value) -> Result<Self> {
        let Value::Object(map) = json else { return Err(wrong(path, "an object", json)) };
        let keys = Keys { map, path };
        let number = |key: &str, default: u64| match keys.get(key) {
            None => Ok(default),
            Some(v) => v.as_u64().ok_or_else(|| wrong(&keys.name(key), "a whole number", v)),
        };
        let num_bits = u8::try_from(number("num_bits", 8)?).ok().filter(|b| (1..=32).contains(b));
        let num_bits = num_bits
            .ok_or_else(|| wrong(&keys.name("num_bits"), "1 to 32", keys.get("num_bits").unwrap_or(&Value::Null)))?;
        let number_type = match keys.text("type")?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("int") => NumberType::Int,
            Some("float") => NumberType::Float,
            Some(other) => return Err(wrong(&keys.name("type"), "int or float", &other.into())),
        };
        let dynamic = match keys.get("dynamic") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(local)) if local == "local" => true,
            Some(other) => return Err(wrong(&keys.name("dynamic"), "true, false or local", other)),
        };
        let act_order = match keys.get("actorder") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(order)) => match order.as_str() {
                "group" | "dynamic" => true,
                // Columns were reordered while quantizing only.
                "weight" | "static" => false,
                _ => return Err(wrong(&keys.name("actorder"), "group, dynamic, weight or static", &json!(order))),
            },
            Some(other) => return Err(wrong(&keys.name("actorder"), "a string", other)),
        };
        Ok(Self {
            num_bits,
            number_type,
            symmetric: keys.boolean("symmetric")?.unwrap_or(true),
            strategy: strategy(&keys)?,
            dynamic,
            act_order,
        })
    }

    /// The object, with keys that the library knows (it refuses others).
    pub fn to_json(&self) -> Value {
        let (strategy, group_size) = match self.strategy {
            Strategy::Tensor => ("tensor", Value::Null),
            Strategy::Channel => ("channel", Value::Null),
            Strategy::Group(size) => ("group", size.into()),
            Strategy::Block(_) => ("block", Value::Null),
            Strategy::Token => ("token", Value::Null),
            Strategy::TensorGroup(size) => ("tensor_group", size.into()),
        };
        let mut json = json!({
            "num_bits": self.num_bits,
            "type": match self.number_type { NumberType::Int => "int", NumberType::Float => "float" },
            "symmetric": self.symmetric,
            "strategy": strategy,
            "group_size": group_size,
            "dynamic": self.dynamic,
        });
        if let Strategy::Block(block) = self.strategy {
            json["block_structure"] = json!(block);
        }
        if self.act_order {
            json["actorder"] = "group".into();
        }
        json
    }
}

/// `strategy`; without it `group_size` decides, as in the library.
fn strategy(keys: &Keys<'_>) -> Result<Strategy> {
    let size = match keys.get("group_size") {
        None => None,
        Some(v) => Some(v.as_i64().ok_or_else(|| wrong(&keys.name("group_size"), "a number", v))?),
    };
    let group = || match size {
        Some(n @ 1..=0x7fff_ffff) => Ok(n as usize),
        _ => {
            let value = keys.get("group_size").unwrap_or(&Value::Null);
            Err(wrong(&keys.name("group_size"), "a positive number", value))
        }
    };
    Ok(match (keys.text("strategy")?.map(str::to_ascii_lowercase).as_deref(), size) {
        (None, None | Some(0)) | (Some("tensor"), _) => Strategy::Tensor,
        (None, Some(-1)) | (Some("channel"), _) => Strategy::Channel,
        (None | Some("group"), _) => Strategy::Group(group()?),
        (Some("token"), _) => Strategy::Token,
        (Some("tensor_group"), _) => Strategy::TensorGroup(group()?),
        (Some("block"), _) => {
            let value = keys.get("block_structure").unwrap_or(&Value::Null);
            let sides: Option<Vec<usize>> = value
                .as_array()
                .and_then(|a| a.iter().map(|v| v.as_u64().filter(|n| *n > 0)?.try_into().ok()).collect());
            match sides.as_deref() {
                Some(&[rows, columns]) => Strategy::Block([rows, columns]),
                _ => return Err(wrong(&keys.name("block_structure"), "rows and columns", value)),
            }
        }
        (Some(other), _) => {
            let expected = "tensor, channel, group, tensor_group, block or token".into();
            return Err(CheckpointError::Config { key: keys.name("strategy"), expected, found: other.into() });
        }
    })
}
