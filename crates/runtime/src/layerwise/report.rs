//! How it went, module by module.

use serde_json::{Value, json};
use std::path::PathBuf;

/// A model that was quantized.
#[derive(Clone, Debug)]
pub struct LayerwiseReport {
    /// The directory.
    pub out: PathBuf,
    /// Bytes of its weight files.
    pub bytes: u64,
    /// The same per weight of the source, embeddings and all.
    pub bits_per_weight: f64,
    /// In the order in which they were quantized.
    pub modules: Vec<ModuleReport>,
    /// Inputs that SmoothQuant's scales were folded in for.
    pub smoothed_inputs: usize,
    /// Layers that an earlier run had finished.
    pub resumed_layers: usize,
    /// Of this run.
    pub seconds: f64,
}

/// One module.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleReport {
    /// `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// `gptq`, `awq`, or what a weight of one byte is: `int8`, `fp8`.
    pub method: &'static str,
    /// Bits of a code.
    pub bits: u8,
    /// Columns of a group.
    pub group_size: usize,
    /// Stored bits, with scales, zero points and group indices, per weight.
    pub bits_per_weight: f64,
    /// Squared error of the module's output per calibration row, see [`gptq::Report::loss`] and [`awq::Report::loss`].
    pub loss: Option<f64>,
    /// `Σ (w − q)² / Σ w²`.
    pub nmse: f64,
    /// Damping that GPTQ used, as a part of the mean diagonal.
    pub damp: Option<f64>,
    /// Why it was rounded to nearest, if it was.
    pub fallback: Option<String>,
    /// Input features that no calibration row used.
    pub dead_columns: usize,
    /// Groups whose range AWQ cut.
    pub clipped_groups: Option<usize>,
    /// Seconds of the solver; the factor counts for the first module that uses it.
    pub seconds: f64,
}

impl ModuleReport {
    /// With the keys of the command's JSON.
    pub fn to_json(&self) -> Value {
        let ty = match self.method {
            "int8" | "fp8" => self.method.to_owned(),
            method => format!("{method}-{}bit", self.bits),
        };
        json!({
            "name": self.name, "type": ty, "bits": self.bits,
            "group_size": self.group_size, "bits_per_weight": self.bits_per_weight, "loss": self.loss, "nmse": self.nmse,
            "damp": self.damp, "fallback": self.fallback, "dead_columns": self.dead_columns,
            "clipped_groups": self.clipped_groups, "seconds": self.seconds,
        })
    }

    fn from_json(json: &Value) -> Option<Self> {
        Some(Self {
            name: json["name"].as_str()?.to_owned(),
            method: ["gptq", "awq", "int8", "fp8"]
                .into_iter()
                .find(|m| json["type"].as_str().is_some_and(|t| t.starts_with(m)))?,
            bits: json["bits"].as_u64()?.try_into().ok()?,
            group_size: json["group_size"].as_u64()?.try_into().ok()?,
            bits_per_weight: json["bits_per_weight"].as_f64()?,
            loss: json["loss"].as_f64(),
            nmse: json["nmse"].as_f64()?,
            damp: json["damp"].as_f64(),
            fallback: json["fallback"].as_str().map(str::to_owned),
            dead_columns: json["dead_columns"].as_u64()?.try_into().ok()?,
            clipped_groups: json["clipped_groups"].as_u64().and_then(|n| n.try_into().ok()),
            seconds: json["seconds"].as_f64()?,
        })
    }
}

/// The reports of a layer, as they are kept with it.
pub(super) fn to_note(reports: &[ModuleReport]) -> String {
    Value::from(reports.iter().map(ModuleReport::to_json).collect::<Vec<_>>()).to_string()
}

pub(super) fn from_note(note: &str) -> Option<Vec<ModuleReport>> {
    let note: Value = serde_json::from_str(note).ok()?;
    note.as_array()?.iter().map(ModuleReport::from_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back() {
        let report = ModuleReport {
            name: "a.b".into(),
            method: "gptq",
            bits: 3,
            group_size: 64,
            bits_per_weight: 3.3,
            loss: Some(0.125),
            nmse: 1.0 / 3.0,
            damp: Some(0.01),
            fallback: None,
            dead_columns: 2,
            clipped_groups: None,
            seconds: 0.5,
        };
        let other = ModuleReport {
            method: "awq",
            loss: None,
            damp: None,
            clipped_groups: Some(7),
            fallback: Some("why".into()),
            ..report.clone()
        };
        let int8 = ModuleReport { method: "int8", bits: 8, ..report.clone() };
        assert_eq!((&int8.to_json()["type"], &report.to_json()["type"]), (&"int8".into(), &"gptq-3bit".into()));
        let all = [report, other, int8];
        assert_eq!(from_note(&to_note(&all)).unwrap(), all);
        assert_eq!(from_note("[{}]"), None);
        assert_eq!(from_note(""), None);
    }
}
