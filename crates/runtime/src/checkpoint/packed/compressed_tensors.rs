//! compressed-tensors' layout `pack-quantized`.

use super::{PackedConfig, PackedFacts, PackedLayout, Parts};
use crate::Result;
use compressed_tensors::{
    Config, ConfigGroup, LoadsIn, ModuleFacts, ModuleSpec, PackedModule, PackedTensor, ScaleType, StoredModule, Target,
    loads_in,
};
use gptq::checkpoint::GptqConfig;
use quant_core::affine::AffineMatrix;
use quant_core::checkpoint::CheckpointError;
use serde_json::Value;

/// The tensors, and how the config says they are stored.
fn stored<'a>(config: &Config, parts: &Parts<'_, 'a>) -> Result<(ModuleSpec, StoredModule<'a>)> {
    let why = || CheckpointError::NotStorable { why: "the config leaves it in full precision".to_owned() };
    let spec = config.module(parts.module).and_then(|spec| spec.ok_or_else(why)).map_err(|e| parts.error(e))?;
    let module = StoredModule {
        weight_packed: parts.need("weight_packed")?,
        weight_scale: parts.need("weight_scale")?,
        weight_shape: parts.need("weight_shape")?,
        weight_zero_point: parts.get("weight_zero_point")?,
        weight_g_idx: parts.get("weight_g_idx")?,
    };
    Ok((spec, module))
}

fn module_facts(config: &Config, parts: &Parts<'_, '_>) -> Result<ModuleFacts> {
    let (spec, module) = stored(config, parts)?;
    let facts = || {
        let [out_features, in_features] = module.shape(&spec)?;
        Ok(ModuleFacts { name: parts.module.to_owned(), out_features, in_features, spec, g_idx: module.order(&spec)? })
    };
    facts().map_err(|e| parts.error(e))
}

impl PackedLayout for Config {
    fn method(&self) -> &'static str {
        "compressed-tensors"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx"]
    }

    fn files(&self) -> &'static [&'static str] {
        &[]
    }

    fn is_quantized(&self, module: &str) -> Result<bool, CheckpointError> {
        Ok(self.module(module)?.is_some())
    }

    fn shape(&self, parts: &Parts<'_, '_>) -> Result<[usize; 2]> {
        let (spec, module) = stored(self, parts)?;
        module.shape(&spec).map_err(|e| parts.error(e))
    }

    fn unpack(&self, parts: &Parts<'_, '_>) -> Result<AffineMatrix> {
        let (spec, module) = stored(self, parts)?;
        module.unpack(&spec).map_err(|e| parts.error(e))
    }

    fn facts(&self, parts: &Parts<'_, '_>) -> Result<PackedFacts> {
        let (spec, module) = stored(self, parts)?;
        let ModuleFacts { name, out_features, in_features, g_idx, .. } = module_facts(self, parts)?;
        Ok(PackedFacts {
            name,
            out_features,
            in_features,
            bits: spec.bits.get(),
            group_size: spec.group_size,
            symmetric: spec.symmetric,
            format: "pack-quantized",
            act_order: g_idx.is_some(),
            rounded_scales: module.rounded_scales(&spec).map_err(|e| parts.error(e))?,
        })
    }

    fn loads_in(&self, modules: &[Parts<'_, '_>], dense: &[&str]) -> Result<LoadsIn> {
        let facts = modules.iter().map(|parts| module_facts(self, parts)).collect::<Result<Vec<_>>>()?;
        Ok(loads_in(self, &facts, dense))
    }

    fn check(&self, module: &str, matrix: &AffineMatrix) -> Result<(), CheckpointError> {
        Config::check(self, module, matrix).map(drop)
    }

    fn pack(&self, module: &str, matrix: &AffineMatrix) -> Result<Vec<PackedTensor>, CheckpointError> {
        let symmetric = self.module(module)?.is_some_and(|spec| spec.symmetric);
        Ok(PackedModule::pack(matrix, symmetric, ScaleType::F16)?.into_tensors())
    }

    fn keep_dense(&mut self, module: &str) -> Result<(), CheckpointError> {
        self.ignore.push(Target::Name(module.to_owned()));
        Ok(())
    }

    fn to_json(&self, maker: &str) -> Value {
        Config::to_json(self, maker)
    }
}

impl PackedConfig {
    /// The compressed-tensors config that says what a GPTQ config says: bits, groups and grids, rules as groups and as `ignore`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for groups in the order of activations, and for a quantized head.
    pub fn compressed_tensors_of(config: &GptqConfig) -> Result<Self, CheckpointError> {
        let no = |why: &str| CheckpointError::NotStorable { why: why.to_owned() };
        let desc_act =
            |rule: &gptq::checkpoint::DynamicRule| rule.overrides().is_some_and(|o| o.desc_act == Some(true));
        if config.desc_act || config.dynamic.iter().any(desc_act) {
            return Err(no(
                "compressed-tensors no longer reads groups in the order of activations (static groups can be)",
            ));
        }
        if config.lm_head {
            return Err(no("a quantized head"));
        }
        let mut made = Config::packed(config.bits, config.group_size, config.sym);
        for (at, rule) in config.dynamic.iter().enumerate() {
            let target = Target::new("rule", &format!("re:{}", rule.pattern()), config.dynamic.len())?;
            match rule.overrides() {
                None => made.ignore.push(target),
                Some(over) => {
                    let (bits, sym) = (over.bits.unwrap_or(config.bits), over.sym.unwrap_or(config.sym));
                    let group_size = over.group_size.unwrap_or(config.group_size);
                    let name = format!("group_{}", at + 1);
                    made.groups.push(ConfigGroup::packed(&name, vec![target], bits, group_size, sym));
                }
            }
        }
        Ok(Self::CompressedTensors(made))
    }
}
