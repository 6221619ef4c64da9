//! Tensors that are not quantized, but that rotations or scales change.

use super::layer::{QuantizedLayer, of_layer};
use super::plan::Modules;
use crate::Result;
use crate::checkpoint::hf_name;
use crate::hf_writer::OwnedTensor;
use crate::model::LayerWalk;
use gguf_format::GgmlType;
use half::{bf16, f16};
use safetensors::Dtype;

/// Adds those of a layer: norms, biases, and linears that are left in full precision. `walk` has the layer's scales folded in.
pub(super) fn add(walk: &LayerWalk<'_>, modules: &Modules, l: usize, layer: &mut QuantizedLayer) -> Result<()> {
    let changes = |name: &str| walk.rotations().changes_vector(name) || layer.folds.of_tensor(name).is_some();
    for part in ["attn_norm", "ffn_norm"] {
        let gguf_name = format!("blk.{l}.{part}.weight");
        let Some(name) = hf_name(&gguf_name).filter(|_| changes(&gguf_name)) else { continue };
        if layer.norms.iter().all(|norm| norm.name != name)
            && let Some(values) = walk.optional_vector(&gguf_name, walk.config().hidden_size)?
        {
            layer.changed.push((name, values));
        }
    }
    for (_, module) in of_layer(modules, l) {
        let gguf_bias = module.gguf_name.trim_end_matches("weight").to_owned() + "bias";
        if changes(&gguf_bias)
            && let Some(bias) = walk.optional_vector(&gguf_bias, module.rows)?
        {
            match module.spec {
                Some(_) => drop(layer.biases.insert(module.name.clone(), bias)),
                None => layer.changed.push((format!("{}.bias", module.name), bias)),
            }
        }
        let is_changed = walk.rotations().of_matrix(&module.gguf_name).is_some()
            || layer.folds.of_tensor(&module.gguf_name).is_some();
        if module.spec.is_none() && is_changed {
            let weights = walk.weight(&module.gguf_name, module.rows, module.cols)?;
            layer.changed.push((format!("{}.weight", module.name), weights));
        }
    }
    Ok(())
}

/// The embeddings, the last norm and the head of a rotated model, each in the type that the source has it in; a head that was the embedding matrix in that
/// one's.
pub(super) fn outside_layers(walk: &LayerWalk<'_>) -> Result<Vec<OwnedTensor>> {
    if !walk.rotations().unties() {
        return Ok(Vec::new());
    }
    let (vocab, hidden) = (walk.config().vocab_size, walk.config().hidden_size);
    let mut tensors = Vec::new();
    for gguf_name in ["token_embd.weight", "output.weight"] {
        let dtype = match stored(walk, gguf_name)? {
            None => stored(walk, "token_embd.weight")?.unwrap_or(Dtype::F32),
            Some(dtype) => dtype,
        };
        let mut data = Vec::with_capacity(vocab * hidden * dtype.bitsize() / 8);
        walk.rows(gguf_name, &mut |rows| {
            push(&mut data, rows, dtype);
            Ok(())
        })?;
        let name = hf_name(gguf_name).unwrap_or_default();
        tensors.push(OwnedTensor { name, dtype, shape: vec![vocab, hidden], data });
    }
    if let Some(norm) = walk.optional_vector("output_norm.weight", hidden)? {
        let dtype = stored(walk, "output_norm.weight")?.unwrap_or(Dtype::F32);
        let mut data = Vec::new();
        push(&mut data, &norm, dtype);
        let name = hf_name("output_norm.weight").unwrap_or_default();
        tensors.push(OwnedTensor { name, dtype, shape: vec![hidden], data });
    }
    Ok(tensors)
}

fn stored(walk: &LayerWalk<'_>, gguf_name: &str) -> Result<Option<Dtype>> {
    Ok(walk.stored_type(gguf_name)?.map(|ty| match ty {
        GgmlType::F16 => Dtype::F16,
        GgmlType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }))
}

/// F16, BF16 or else F32, to nearest, ties to even. A rotated row is no longer than it was, so that its values are finite where those were.
fn push(data: &mut Vec<u8>, values: &[f32], dtype: Dtype) {
    match dtype {
        Dtype::F16 => data.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
        Dtype::BF16 => data.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        _ => data.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
}
