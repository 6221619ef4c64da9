//! AWQ's layouts.

use super::{MatrixRef, ModuleMatrix, PackedFacts, PackedLayout, Parts};
use crate::Result;
use awq::checkpoint::{
    AwqConfig, Layout, LoadsIn, ModuleFacts, ModuleSpec, PackedModule, PackedTensor, StoredModule, loads_in,
};
use quant_core::checkpoint::CheckpointError;
use serde_json::Value;

/// The tensors, and how the config says they are stored.
fn stored<'a>(config: &AwqConfig, parts: &Parts<'_, 'a>) -> Result<(ModuleSpec, StoredModule<'a>)> {
    let spec = config.module(parts.module).ok_or_else(|| {
        let why = "the config leaves it in full precision".to_owned();
        parts.error(CheckpointError::NotStorable { why })
    })?;
    let qzeros = match parts.get("scaled_zeros")? {
        Some(scaled) if config.layout == Layout::GemvFast => scaled,
        _ => parts.need("qzeros")?,
    };
    Ok((spec, StoredModule { qweight: parts.need("qweight")?, qzeros, scales: parts.need("scales")? }))
}

impl PackedLayout for AwqConfig {
    fn method(&self) -> &'static str {
        "awq"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        match self.layout {
            Layout::GemvFast => &[".qweight", ".qzeros", ".scales", ".scaled_zeros"],
            _ => &[".qweight", ".qzeros", ".scales"],
        }
    }

    fn files(&self) -> &'static [&'static str] {
        &[]
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
        module.unpack(&spec).map(ModuleMatrix::Affine).map_err(|e| parts.error(e))
    }

    fn facts(&self, parts: &Parts<'_, '_>) -> Result<PackedFacts> {
        let [out_features, in_features] = self.shape(parts)?;
        Ok(PackedFacts {
            name: parts.module.to_owned(),
            out_features,
            in_features,
            bits: self.bits.get(),
            group_size: self.group_size,
            symmetric: !self.zero_point,
            format: self.layout.name(),
            act_order: false,
            activations: None,
            rounded_scales: 0,
        })
    }

    fn loads_in(&self, modules: &[Parts<'_, '_>], dense: &[&str]) -> Result<LoadsIn> {
        let facts = |parts: &Parts<'_, '_>| {
            let [out_features, in_features] = self.shape(parts)?;
            Ok(ModuleFacts { name: parts.module.to_owned(), out_features, in_features })
        };
        Ok(loads_in(self, &modules.iter().map(facts).collect::<Result<Vec<_>>>()?, dense))
    }

    fn check(&self, module: &str, matrix: MatrixRef<'_>) -> Result<(), CheckpointError> {
        AwqConfig::check(self, module, matrix.affine("AWQ")?).map(drop)
    }

    fn pack(&self, _: &str, matrix: MatrixRef<'_>) -> Result<Vec<PackedTensor>, CheckpointError> {
        if self.layout != Layout::Gemm {
            let why = format!("layout {}, which is read alone (gemm is written)", self.layout.name());
            return Err(CheckpointError::NotStorable { why });
        }
        Ok(PackedModule::pack(matrix.affine("AWQ")?)?.into_tensors().into())
    }

    fn keep_dense(&mut self, module: &str) -> Result<(), CheckpointError> {
        self.modules_to_not_convert.push(module.to_owned());
        Ok(())
    }

    fn to_json(&self, maker: &str) -> Value {
        AwqConfig::to_json(self, maker)
    }
}
