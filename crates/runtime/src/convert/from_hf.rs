//! A Hugging Face directory as the content of a GGUF file.

use super::hyper_parameters::architecture_name;
use super::{ModelSource, Place, RowOrder, SourceTensor, hyper_parameters, packed, rope_freqs, vocab};
use crate::checkpoint::{HfDir, gguf_name, hf_name};
use crate::{Error, ModelConfig, Result};
use gguf_format::mix::{file_order, layer_of};
use gguf_format::{GgmlType, Metadata, blocks};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn source(dir: &Arc<HfDir>) -> Result<ModelSource> {
    let config = ModelConfig::from_hf(dir)?;
    let packed = dir.packed()?;
    let mut of_modules: HashSet<String> = HashSet::new();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut tensors = Vec::new();
    if let Some(modules) = &packed {
        for module in modules.names() {
            of_modules.extend(modules.tensors_of(module));
            let own = format!("{module}.weight");
            if is_left_out(&own, &config) {
                continue;
            }
            let shape = modules.shape(module)?.unwrap_or_default();
            let name = checked_name(&own, &shape, modules.config_file(), &config)?;
            let order = row_order(&name, &config);
            tensors.push(packed::tensor(modules, module, name, order)?);
        }
    }
    for entry in dir.entries() {
        // All of them: none may be the target.
        let file = files.iter().position(|f| f == entry.file).unwrap_or_else(|| {
            files.push(entry.file.to_path_buf());
            files.len() - 1
        });
        if of_modules.contains(entry.name) || is_left_out(entry.name, &config) {
            continue;
        }
        let name = checked_name(entry.name, entry.shape, entry.file, &config)?;
        let Some(view) = dir.tensor(entry.name)? else { continue };
        let shape: Vec<u64> = entry.shape.iter().map(|&n| n as u64).collect();
        let order = row_order(&name, &config);
        let mut tensor = SourceTensor {
            // What has one dimension is small and delicate: F32 always.
            ty: if shape.len() < 2 { GgmlType::F32 } else { view.ty },
            stored: view.ty,
            place: Place::File { file, offset: entry.offset },
            order,
            shape,
            name,
        };
        if tensor.shape.len() < 2 && order != RowOrder::AsStored {
            permute_bias(&mut tensor, view.data).map_err(|e| {
                Error::malformed(entry.file, format!("tensor `{}`", entry.name), "values", e.to_string())
            })?;
        }
        tensors.push(tensor);
    }
    if let Some(divisors) = rope_freqs::divisors(&config) {
        tensors.push(SourceTensor {
            name: "rope_freqs.weight".to_owned(),
            shape: vec![divisors.len() as u64],
            ty: GgmlType::F32,
            stored: GgmlType::F32,
            place: Place::Memory(divisors.iter().flat_map(|d| d.to_le_bytes()).collect()),
            order: RowOrder::AsStored,
        });
    }
    tensors.sort_by(|a, b| file_order(&a.name, &b.name));
    check_complete(dir, &config, &tensors)?;

    let mut metadata = Metadata::new();
    let parameters = tensors.iter().filter(|t| t.name != "rope_freqs.weight").map(SourceTensor::elements).sum();
    let has_head_dim = dir.config_json()["head_dim"].is_number();
    hyper_parameters::write(&config, &name_of(dir), parameters, has_head_dim, &mut metadata);
    vocab::write(dir, config.vocab_size, &mut metadata)?;
    let packed = packed.map(|_| dir.clone());
    Ok(ModelSource { path: dir.path().to_path_buf(), metadata, tensors, files, packed })
}

/// The GGUF name of a tensor, whose shape must be the one that config.json implies.
fn checked_name(own: &str, shape: &[usize], file: &Path, config: &ModelConfig) -> Result<String> {
    let Some(name) = gguf_name(own) else {
        let what = format!("{}: tensor `{own}` has no place in GGUF's", file.display());
        return Err(Error::Unsupported(format!("{what} `{}`", architecture_name(config.architecture))));
    };
    let expected = shape_of(&name, config);
    if expected.as_deref() != Some(shape) {
        let expected = expected.map_or("no such tensor".to_owned(), |s| format!("shape {s:?}"));
        return Err(Error::malformed(file, format!("tensor `{own}`"), expected, format!("shape {shape:?}")));
    }
    Ok(name)
}

/// Buffers that the model computes itself, and a head that is stored although the embedding is used.
fn is_left_out(hf_name: &str, config: &ModelConfig) -> bool {
    hf_name.ends_with(".rotary_emb.inv_freq") || (config.tied && hf_name == "lm_head.weight")
}

/// The folder's name.
fn name_of(dir: &HfDir) -> String {
    let path = std::fs::canonicalize(dir.path()).unwrap_or_else(|_| dir.path().to_path_buf());
    path.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The shape that config.json implies; `None` for a tensor that such a model does not have.
fn shape_of(name: &str, c: &ModelConfig) -> Option<Vec<usize>> {
    let (q, kv) = (c.num_heads.checked_mul(c.head_dim)?, c.num_kv_heads.checked_mul(c.head_dim)?);
    let part = match layer_of(name) {
        Some(layer) if (layer as usize) < c.num_layers => name.split_once('.')?.1.split_once('.')?.1,
        Some(_) => return None,
        None => name,
    };
    Some(match part {
        "token_embd.weight" | "output.weight" => vec![c.vocab_size, c.hidden_size],
        "output_norm.weight" | "attn_norm.weight" | "ffn_norm.weight" => vec![c.hidden_size],
        "attn_q.weight" => vec![q, c.hidden_size],
        "attn_k.weight" | "attn_v.weight" => vec![kv, c.hidden_size],
        "attn_q.bias" => vec![q],
        "attn_k.bias" | "attn_v.bias" => vec![kv],
        "attn_q_norm.weight" | "attn_k_norm.weight" => vec![c.head_dim],
        "attn_output.weight" => vec![c.hidden_size, q],
        "attn_output.bias" | "ffn_down.bias" => vec![c.hidden_size],
        "ffn_gate.weight" | "ffn_up.weight" => vec![c.intermediate_size, c.hidden_size],
        "ffn_gate.bias" | "ffn_up.bias" => vec![c.intermediate_size],
        "ffn_down.weight" => vec![c.hidden_size, c.intermediate_size],
        _ => return None,
    })
}

/// GGUF's `llama` rotates adjacent channels, all others halves, as Hugging Face does.
fn row_order(name: &str, config: &ModelConfig) -> RowOrder {
    let rotated =
        [".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"].iter().any(|s| name.ends_with(s));
    match rotated && architecture_name(config.architecture) == "llama" {
        true => RowOrder::Halves { head_dim: config.head_dim as u64 },
        false => RowOrder::AsStored,
    }
}

/// Brings the values of a bias into GGUF's order, in memory.
fn permute_bias(tensor: &mut SourceTensor, bytes: &[u8]) -> gguf_format::Result<()> {
    let mut values = vec![0.0f32; tensor.elements() as usize];
    blocks::dequantize(tensor.stored, bytes, &mut values)?;
    let ordered = (0..values.len() as u64).filter_map(|i| values.get(tensor.order.stored_row(i) as usize));
    tensor.place = Place::Memory(ordered.flat_map(|v| v.to_le_bytes()).collect());
    tensor.stored = GgmlType::F32;
    tensor.order = RowOrder::AsStored;
    Ok(())
}

/// Every tensor that the model cannot do without.
fn check_complete(dir: &HfDir, config: &ModelConfig, tensors: &[SourceTensor]) -> Result<()> {
    const OF_LAYER: &[&str] =
        &["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];
    let mut needed = vec!["token_embd.weight".to_owned(), "output_norm.weight".to_owned()];
    if !config.tied {
        needed.push("output.weight".to_owned());
    }
    for layer in 0..config.num_layers {
        needed.extend(OF_LAYER.iter().map(|part| format!("blk.{layer}.{part}.weight")));
        if config.architecture == crate::model::Architecture::Qwen3 {
            needed.extend(["attn_q_norm", "attn_k_norm"].map(|part| format!("blk.{layer}.{part}.weight")));
        }
    }
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    match needed.iter().find(|n| !names.contains(n.as_str())) {
        None => Ok(()),
        Some(name) => {
            let own = hf_name(name).unwrap_or_else(|| name.clone());
            Err(Error::malformed(dir.path(), format!("tensor `{own}`"), "it in a .safetensors file", "none"))
        }
    }
}
