//! GPTQ's layout.

use super::{MatrixRef, ModuleMatrix, PackedFacts, PackedLayout, Parts};
use crate::Result;
use gptq::checkpoint::{
    DynamicRule, GptqConfig, LoadsIn, ModuleFacts, ModuleSpec, PackedModule, PackedTensor, StoredModule, loads_in,
};
use quant_core::checkpoint::CheckpointError;
use serde_json::Value;

/// The tensors, and how the config says they are stored.
fn stored<'a>(config: &GptqConfig, parts: &Parts<'_, 'a>) -> Result<(ModuleSpec, StoredModule<'a>)> {
    let spec = config.module(parts.module).ok_or_else(|| {
        let why = "the config leaves it in full precision".to_owned();
        parts.error(CheckpointError::NotStorable { why })
    })?;
    let module = StoredModule {
        qweight: parts.need("qweight")?,
        qzeros: parts.need("qzeros")?,
        scales: parts.need("scales")?,
        g_idx: parts.get("g_idx")?,
    };
    Ok((spec, module))
}

fn module_facts(config: &GptqConfig, parts: &Parts<'_, '_>) -> Result<ModuleFacts> {
    let (spec, module) = stored(config, parts)?;
    let facts = || {
        let [out_features, in_features] = module.shape(&spec)?;
        Ok(ModuleFacts {
            name: parts.module.to_owned(),
            out_features,
            in_features,
            spec,
            zero_point: module.zero_point(&spec, config.zero_point)?,
            g_idx: module.order(&spec)?,
        })
    };
    facts().map_err(|e| parts.error(e))
}

impl PackedLayout for GptqConfig {
    fn method(&self) -> &'static str {
        "gptq"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".qweight", ".qzeros", ".scales", ".g_idx"]
    }

    fn files(&self) -> &'static [&'static str] {
        &["quantize_config.json"]
    }

    fn is_quantized(&self, module: &str) -> Result<bool, CheckpointError> {
        Ok(self.module(module).is_some())
    }

    fn shape(&self, parts: &Parts<'_, '_>) -> Result<[usize; 2]> {
        let (spec, module) = stored(self, parts)?;
        module.shape(&spec).map_err(|e| parts.error(e))
    }

    fn unpack(&self, parts: &Parts<'_, '_>) -> Result<ModuleMatrix> {
        let (spec, module) = stored(self, parts)?;
        module.unpack(&spec, self.zero_point).map(ModuleMatrix::Affine).map_err(|e| parts.error(e))
    }

    fn facts(&self, parts: &Parts<'_, '_>) -> Result<PackedFacts> {
        let ModuleFacts { name, out_features, in_features, spec, zero_point, g_idx } = module_facts(self, parts)?;
        Ok(PackedFacts {
            name,
            out_features,
            in_features,
            bits: spec.bits.get(),
            group_size: spec.group_size,
            symmetric: spec.sym,
            format: zero_point.name(),
            act_order: g_idx.is_some(),
            activations: None,
            rounded_scales: 0,
        })
    }

    fn loads_in(&self, modules: &[Parts<'_, '_>], dense: &[&str]) -> Result<LoadsIn> {
        let facts = modules.iter().map(|parts| module_facts(self, parts)).collect::<Result<Vec<_>>>()?;
        Ok(loads_in(self, &facts, dense))
    }

    fn check(&self, module: &str, matrix: MatrixRef<'_>) -> Result<(), CheckpointError> {
        GptqConfig::check(self, module, matrix.affine("GPTQ")?).map(drop)
    }

    fn pack(&self, _: &str, matrix: MatrixRef<'_>) -> Result<Vec<PackedTensor>, CheckpointError> {
        Ok(PackedModule::pack(matrix.affine("GPTQ")?, self.zero_point)?.into_tensors().into())
    }

    fn keep_dense(&mut self, module: &str) -> Result<(), CheckpointError> {
        // First, as the first rule that matches counts.
        self.dynamic.insert(0, DynamicRule::skip_module(module)?);
        Ok(())
    }

    fn to_json(&self, maker: &str) -> Value {
        GptqConfig::to_json(self, maker)
    }
}
