//! What a directory with packed modules is (GPTQ, AWQ, compressed-tensors), and who loads it.

use quant_runtime::checkpoint::{HfDir, PackedFacts, PackedSummary};
use quant_runtime::{ModelConfig, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Of a directory whose config names one of the methods.
pub(super) struct Packed {
    /// `gptq`, `awq`, `compressed-tensors`.
    pub(super) method: &'static str,
    pub(super) content: Content,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    Known(Box<Facts>),
    /// It cannot be read.
    Broken {
        error: String,
    },
}

#[derive(Serialize)]
pub(super) struct Facts {
    bits: u8,
    /// -1 for all input features.
    group_size: i64,
    sym: bool,
    desc_act: bool,
    /// As the config has it.
    checkpoint_format: String,
    /// How the input of modules is rounded.
    activations: Option<String>,
    /// What the modules are stored as, module by module.
    stored_as: Vec<&'static str>,
    modules: usize,
    /// Modules stored otherwise than the config says for most.
    overridden: usize,
    /// Modules whose groups are not in the order of the columns.
    act_order: usize,
    /// Scales that are read as the nearest F16.
    rounded_scales: usize,
    quantizer: Vec<String>,
    /// Of the quantized modules, with scales, zero points and group indices.
    bits_per_weight: f64,
    loads_in: Readers,
}

#[derive(Serialize)]
struct Readers {
    transformers: String,
    vllm: String,
    here: String,
}

impl Packed {
    /// `None` if the directory is dense, or of another method.
    pub(super) fn of(dir: &HfDir) -> Option<Self> {
        let named = dir.config_json().pointer("/quantization_config/quant_method").and_then(|m| m.as_str());
        let mut method = match named.map(str::to_ascii_lowercase).as_deref() {
            Some("awq") => "awq",
            Some("compressed-tensors") => "compressed-tensors",
            _ => "gptq",
        };
        let content = match Self::read(dir, &mut method) {
            Ok(facts) => Content::Known(Box::new(facts?)),
            Err(e) => Content::Broken { error: e.to_string() },
        };
        Some(Self { method, content })
    }

    /// `method` becomes the one that was read.
    fn read(dir: &HfDir, method: &mut &'static str) -> Result<Option<Facts>> {
        let Some(packed) = dir.packed()? else { return Ok(None) };
        *method = packed.config().method();
        let (modules, verdicts) = (packed.facts()?, packed.loads_in()?);
        Ok(Some(Facts::new(dir, packed.config().summary(), &modules, &verdicts)))
    }

    /// The key of the JSON object.
    pub(super) fn key(&self) -> &'static str {
        match self.method {
            "compressed-tensors" => "compressed_tensors",
            method => method,
        }
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let facts = match &self.content {
            Content::Known(facts) => facts,
            Content::Broken { error } => return writeln!(out, "{}: {}", self.method, error.escape_debug()),
        };
        let groups = match facts.group_size {
            -1 => "one group".to_owned(),
            n => format!("groups of {n}"),
        };
        let grid = if facts.sym { "symmetric" } else { "asymmetric" };
        let order = match facts.act_order {
            0 => "groups in order".to_owned(),
            n => format!("act-order in {n} modules"),
        };
        let format = facts.checkpoint_format.escape_debug();
        write!(out, "{}: {} bits, {groups}, {grid}, {order}, format {format}", self.method, facts.bits)?;
        if facts.stored_as != [facts.checkpoint_format.as_str()] {
            write!(out, " declared, {} stored", facts.stored_as.join(" and "))?;
        }
        write!(out, "; {} modules", facts.modules)?;
        if facts.overridden > 0 {
            write!(out, ", {} of them otherwise", facts.overridden)?;
        }
        if facts.rounded_scales > 0 {
            write!(out, ", {} scales read as the nearest F16", facts.rounded_scales)?;
        }
        writeln!(out, ", {:.3} bits per weight", facts.bits_per_weight)?;
        if let Some(activations) = &facts.activations {
            writeln!(out, "activations: {}", activations.escape_debug())?;
        }
        let Readers { transformers, vllm, here } = &facts.loads_in;
        let first = if self.method == "compressed-tensors" { "transformers" } else { "transformers, GPTQModel" };
        for (reader, verdict) in [(first, transformers), ("vLLM", vllm), ("here", here)] {
            writeln!(out, "loads in {reader:<23}  {}", verdict.escape_debug())?;
        }
        Ok(())
    }
}

impl Facts {
    fn new(dir: &HfDir, base: PackedSummary, modules: &[PackedFacts], verdicts: &gptq::checkpoint::LoadsIn) -> Self {
        let here = match ModelConfig::from_hf(dir) {
            Ok(_) => "yes: packed, on the CPU".to_owned(),
            Err(e) => format!("no: {e}"),
        };
        let mut stored_as: Vec<_> = modules.iter().map(|m| m.format).collect();
        stored_as.sort_unstable();
        stored_as.dedup();
        let (mut bits, mut weights) = (0.0, 0.0);
        for m in modules {
            let (out, columns, b) = (m.out_features as f64, m.in_features as f64, f64::from(m.bits));
            let groups = m.in_features.div_ceil(m.group_size.unwrap_or(m.in_features)) as f64;
            // Scales of 32 bits beside one byte a weight; of 16, and a zero point, elsewhere.
            let of_group = match m.format {
                "int-quantized" | "float-quantized" => 32.0,
                _ => 16.0 + b,
            };
            bits += out * columns * b + out * groups * of_group + if m.act_order { 32.0 * columns } else { 0.0 };
            weights += out * columns;
        }
        let other =
            |m: &&PackedFacts| (m.bits, m.group_size, m.symmetric) != (base.bits, base.group_size, base.symmetric);
        Self {
            overridden: modules.iter().filter(other).count(),
            act_order: modules.iter().filter(|m| m.act_order).count(),
            rounded_scales: modules.iter().map(|m| m.rounded_scales).sum(),
            modules: modules.len(),
            stored_as,
            bits: base.bits,
            group_size: base.group_size.map_or(-1, |g| g as i64),
            sym: base.symmetric,
            desc_act: base.act_order,
            checkpoint_format: base.format,
            activations: base.activations,
            quantizer: base.quantizer,
            bits_per_weight: if weights > 0.0 { bits / weights } else { 0.0 },
            loads_in: Readers {
                transformers: verdicts.transformers.to_string(),
                vllm: verdicts.vllm.to_string(),
                here,
            },
        }
    }
}
