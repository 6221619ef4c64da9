//! compressed-tensors' layouts: `pack-quantized`, and those of one byte a weight.

use super::{EightBitLinear, MatrixRef, ModuleMatrix, PackedConfig, PackedFacts, PackedLayout, Parts};
use crate::Result;
use compressed_tensors::{
    ActivationSpec, Config, ConfigGroup, EightBitModule, InputScales, LoadsIn, ModuleFacts, PackedModule, PackedTensor,
    ScaleType, Storage, StoredEightBit, StoredModule, Target, loads_in,
};
use gptq::checkpoint::GptqConfig;
use quant_core::activation::{ActivationGrid, ActivationQuantizer, ActivationScales};
use quant_core::checkpoint::CheckpointError;
use quant_core::eight_bit::EightBitCode;
use safetensors::Dtype;
use serde_json::Value;

/// How the config says that a module is stored.
fn storage(config: &Config, parts: &Parts<'_, '_>) -> Result<Storage> {
    let why = || CheckpointError::NotStorable { why: "the config leaves it in full precision".to_owned() };
    config.storage(parts.module).and_then(|storage| storage.ok_or_else(why)).map_err(|e| parts.error(e))
}

/// The tensors of a module of format `pack-quantized`.
fn packed<'a>(parts: &Parts<'_, 'a>) -> Result<StoredModule<'a>> {
    Ok(StoredModule {
        weight_packed: parts.need("weight_packed")?,
        weight_scale: parts.need("weight_scale")?,
        weight_shape: parts.need("weight_shape")?,
        weight_zero_point: parts.get("weight_zero_point")?,
        weight_g_idx: parts.get("weight_g_idx")?,
    })
}

/// The tensors of a module of one byte a weight.
fn eight_bit<'a>(parts: &Parts<'_, 'a>) -> Result<StoredEightBit<'a>> {
    Ok(StoredEightBit {
        weight: parts.need("weight")?,
        weight_scale: parts.need("weight_scale")?,
        weight_zero_point: parts.get("weight_zero_point")?,
        input_scale: parts.get("input_scale")?,
        input_zero_point: parts.get("input_zero_point")?,
    })
}

fn module_facts(config: &Config, parts: &Parts<'_, '_>) -> Result<ModuleFacts> {
    let storage = storage(config, parts)?;
    let wrong = |e| parts.error(e);
    let ([out_features, in_features], g_idx) = match &storage {
        Storage::Packed(spec) => {
            let module = packed(parts)?;
            (module.shape(spec).map_err(wrong)?, module.order(spec).map_err(wrong)?)
        }
        Storage::EightBit(spec) => (eight_bit(parts)?.shape(spec).map_err(wrong)?, None),
    };
    Ok(ModuleFacts { name: parts.module.to_owned(), out_features, in_features, storage, g_idx })
}

/// What a group of the config says of activations, in words.
pub(super) fn activations_of(config: &Config, group: &ConfigGroup) -> Option<String> {
    let name = group.targets.iter().find_map(|t| match t {
        Target::Name(name) => Some(name.as_str()),
        Target::Pattern(_) => None,
    });
    // All that is needed is a module of this group.
    let alone = Config { groups: vec![group.clone()], ignore: Vec::new(), ..config.clone() };
    match alone.storage(name.unwrap_or("any")) {
        Ok(Some(Storage::EightBit(spec))) => spec.activations.map(|a| describe(&a)),
        _ => None,
    }
}

fn describe(activations: &ActivationSpec) -> String {
    let grid = match activations.grid {
        ActivationGrid::Int8 { symmetric: true } => "int8",
        ActivationGrid::Int8 { symmetric: false } => "asymmetric int8",
        ActivationGrid::E4M3 => "FP8 E4M3",
    };
    let scales = match activations.scales {
        InputScales::Token => "one dynamic scale per token",
        InputScales::Tensor => "one dynamic scale per tensor",
        InputScales::Static => "one static scale per tensor",
    };
    format!("{grid}, {scales}")
}

impl PackedLayout for Config {
    fn method(&self) -> &'static str {
        "compressed-tensors"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[
            ".weight_packed",
            ".weight_scale",
            ".weight",
            ".weight_shape",
            ".weight_zero_point",
            ".weight_g_idx",
            ".input_scale",
            ".input_zero_point",
        ]
    }

    fn holds(&self, module: &str, find: &dyn Fn(&str) -> Option<Dtype>) -> bool {
        let there = |suffix: &str| find(&format!("{module}{suffix}"));
        there(".weight_packed").is_some()
            || there(".weight_scale").is_some()
            || there(".weight").is_some_and(|dtype| matches!(dtype, Dtype::I8 | Dtype::F8_E4M3))
    }

    fn keeps_weight(&self, module: &str) -> Result<bool, CheckpointError> {
        Ok(matches!(self.storage(module)?, Some(Storage::EightBit(_))))
    }

    fn files(&self) -> &'static [&'static str] {
        &[]
    }

    fn input_rotation(&self, module: &str) -> Result<Option<Option<usize>>, CheckpointError> {
        Config::input_rotation(self, module)
    }

    fn is_quantized(&self, module: &str) -> Result<bool, CheckpointError> {
        Ok(self.storage(module)?.is_some())
    }

    fn shape(&self, parts: &Parts<'_, '_>) -> Result<[usize; 2]> {
        match storage(self, parts)? {
            Storage::Packed(spec) => packed(parts)?.shape(&spec).map_err(|e| parts.error(e)),
            Storage::EightBit(spec) => eight_bit(parts)?.shape(&spec).map_err(|e| parts.error(e)),
        }
    }

    fn unpack(&self, parts: &Parts<'_, '_>) -> Result<ModuleMatrix> {
        match storage(self, parts)? {
            Storage::Packed(spec) => packed(parts)?.unpack(&spec).map(ModuleMatrix::Affine).map_err(|e| parts.error(e)),
            Storage::EightBit(spec) => {
                let matrix = eight_bit(parts)?.unpack(&spec).map_err(|e| parts.error(e))?;
                let input = match self.activations(parts)?.map(|quantizer| quantizer.scales) {
                    Some(ActivationScales::Static(scale)) => Some(scale),
                    _ => None,
                };
                Ok(ModuleMatrix::EightBit(EightBitLinear { matrix, input }))
            }
        }
    }

    fn activations(&self, parts: &Parts<'_, '_>) -> Result<Option<ActivationQuantizer>> {
        match storage(self, parts)? {
            Storage::Packed(_) => Ok(None),
            Storage::EightBit(spec) => eight_bit(parts)?.activations(&spec).map_err(|e| parts.error(e)),
        }
    }

    fn facts(&self, parts: &Parts<'_, '_>) -> Result<PackedFacts> {
        let ModuleFacts { name, out_features, in_features, g_idx, storage } = module_facts(self, parts)?;
        let act_order = g_idx.is_some();
        Ok(match storage {
            Storage::Packed(spec) => {
                let rounded_scales = packed(parts)?.rounded_scales(&spec).map_err(|e| parts.error(e))?;
                PackedFacts {
                    name,
                    out_features,
                    in_features,
                    bits: spec.bits.get(),
                    group_size: spec.group_size,
                    symmetric: spec.symmetric,
                    format: "pack-quantized",
                    activations: None,
                    act_order,
                    rounded_scales,
                }
            }
            Storage::EightBit(spec) => PackedFacts {
                name,
                out_features,
                in_features,
                bits: 8,
                group_size: None,
                symmetric: spec.symmetric,
                format: match spec.code {
                    EightBitCode::Int8 => "int-quantized",
                    EightBitCode::E4M3 => "float-quantized",
                },
                activations: self.activations(parts)?,
                act_order,
                rounded_scales: 0,
            },
        })
    }

    fn loads_in(&self, modules: &[Parts<'_, '_>], dense: &[&str]) -> Result<LoadsIn> {
        let facts = modules.iter().map(|parts| module_facts(self, parts)).collect::<Result<Vec<_>>>()?;
        Ok(loads_in(self, &facts, dense))
    }

    fn check(&self, module: &str, matrix: MatrixRef<'_>) -> Result<(), CheckpointError> {
        match matrix {
            MatrixRef::Affine(matrix) => Config::check(self, module, matrix).map(drop),
            MatrixRef::EightBit(matrix, input) => self.check_eight_bit(module, matrix, input).map(drop),
        }
    }

    fn pack(&self, module: &str, matrix: MatrixRef<'_>) -> Result<Vec<PackedTensor>, CheckpointError> {
        match matrix {
            MatrixRef::Affine(matrix) => {
                let symmetric = self.module(module)?.is_some_and(|spec| spec.symmetric);
                Ok(PackedModule::pack(matrix, symmetric, ScaleType::F16)?.into_tensors())
            }
            MatrixRef::EightBit(matrix, input) => {
                let spec = self.check_eight_bit(module, matrix, input)?;
                Ok(EightBitModule::pack(matrix, &spec, input).into_tensors())
            }
        }
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
