//! What a GPTQ directory is, and who loads it.

use quant_runtime::checkpoint::HfDir;
use quant_runtime::{ModelConfig, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Of a directory whose config says `gptq`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Gptq {
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
    checkpoint_format: &'static str,
    /// What the zero points are stored as, module by module.
    stored_as: Vec<&'static str>,
    modules: usize,
    /// Modules stored otherwise than the config says for most.
    overridden: usize,
    /// Modules whose groups are not in the order of the columns.
    act_order: usize,
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

impl Gptq {
    /// `None` if the directory is not a GPTQ one.
    pub(super) fn of(dir: &HfDir) -> Option<Self> {
        match Facts::of(dir) {
            Ok(facts) => Some(Self::Known(Box::new(facts?))),
            Err(e) => Some(Self::Broken { error: e.to_string() }),
        }
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let facts = match self {
            Self::Known(facts) => facts,
            Self::Broken { error } => return writeln!(out, "gptq: {}", error.escape_debug()),
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
        write!(out, "gptq: {} bits, {groups}, {grid}, {order}, format {}", facts.bits, facts.checkpoint_format)?;
        if facts.stored_as != [facts.checkpoint_format] {
            write!(out, " declared, {} stored", facts.stored_as.join(" and "))?;
        }
        write!(out, "; {} modules", facts.modules)?;
        if facts.overridden > 0 {
            write!(out, ", {} of them otherwise", facts.overridden)?;
        }
        writeln!(out, ", {:.3} bits per weight", facts.bits_per_weight)?;
        let Readers { transformers, vllm, here } = &facts.loads_in;
        for (reader, verdict) in [("transformers, GPTQModel", transformers), ("vLLM", vllm), ("here", here)] {
            writeln!(out, "loads in {reader:<23}  {}", verdict.escape_debug())?;
        }
        Ok(())
    }
}

impl Facts {
    fn of(dir: &HfDir) -> Result<Option<Self>> {
        let Some(gptq) = dir.gptq()? else { return Ok(None) };
        let config = gptq.config();
        let modules = gptq.facts()?;
        let verdicts = gptq.loads_in(&modules);
        let here = match ModelConfig::from_hf(dir) {
            Ok(_) => "yes: packed, on the CPU".to_owned(),
            Err(e) => format!("no: {e}"),
        };
        let mut stored_as: Vec<_> = modules.iter().map(|m| m.zero_point.name()).collect();
        stored_as.sort_unstable();
        stored_as.dedup();
        let (mut bits, mut weights) = (0.0, 0.0);
        for m in &modules {
            let (out, columns, b) = (m.out_features as f64, m.in_features as f64, f64::from(m.spec.bits.get()));
            let groups = m.in_features.div_ceil(m.spec.group_size.unwrap_or(m.in_features)) as f64;
            bits +=
                out * columns * b + out * groups * (16.0 + b) + if m.g_idx.is_some() { 32.0 * columns } else { 0.0 };
            weights += out * columns;
        }
        let base = |m: &&quant_runtime::checkpoint::ModuleFacts| {
            let same = (m.spec.bits, m.spec.group_size, m.spec.sym, m.spec.desc_act);
            same != (config.bits, config.group_size, config.sym, config.desc_act)
        };
        Ok(Some(Self {
            bits: config.bits.get(),
            group_size: config.group_size.map_or(-1, |g| g as i64),
            sym: config.sym,
            desc_act: config.desc_act,
            checkpoint_format: config.zero_point.name(),
            stored_as,
            overridden: modules.iter().filter(base).count(),
            act_order: modules.iter().filter(|m| m.g_idx.is_some()).count(),
            modules: modules.len(),
            quantizer: config.quantizer.clone(),
            bits_per_weight: if weights > 0.0 { bits / weights } else { 0.0 },
            loads_in: Readers {
                transformers: verdicts.transformers.to_string(),
                vllm: verdicts.vllm.to_string(),
                here,
            },
        }))
    }
}
