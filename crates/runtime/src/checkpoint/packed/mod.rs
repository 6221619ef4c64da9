//! Quantized modules of a directory, whichever layout they are stored in: GPTQ's, AWQ's, compressed-tensors'.
//!
//! A layout is an implementation of [`PackedLayout`] for its config; all else (where the config is, which tensors belong together, running, writing)
//! is the same for all.

mod awq;
mod compressed_tensors;
mod gptq;
mod matrix;
mod parts;

pub use matrix::{EightBitLinear, MatrixRef, ModuleMatrix};
pub(crate) use parts::{Parts, error};

use super::{HfDir, HfEntry};
use crate::Result;
use quant_core::activation::ActivationQuantizer;
use quant_core::checkpoint::{CheckpointError, LoadsIn, PackedTensor};
use quant_core::rotation::Rotation;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt::Debug;
use std::path::PathBuf;

/// What a module's codes are packed like, and how its config says so.
pub(crate) trait PackedLayout: Debug {
    /// `quant_method` of the config.
    fn method(&self) -> &'static str;

    /// The ends of a module's tensors.
    fn suffixes(&self) -> &'static [&'static str];

    /// Whether the tensors there are those of a quantized module: by the first of them, unless a layout knows more.
    fn holds(&self, module: &str, find: &dyn Fn(&str) -> Option<Dtype>) -> bool {
        self.suffixes().first().is_some_and(|suffix| find(&format!("{module}{suffix}")).is_some())
    }

    /// Whether one of a quantized module's tensors is called `weight`, as that of one in full precision is.
    fn keeps_weight(&self, module: &str) -> Result<bool, CheckpointError> {
        let _ = module;
        Ok(false)
    }

    /// Files beside config.json that hold the config too.
    fn files(&self) -> &'static [&'static str];

    /// Whether the config lets a module be quantized.
    fn is_quantized(&self, module: &str) -> Result<bool, CheckpointError>;

    /// `[out_features, in_features]`.
    fn shape(&self, parts: &Parts<'_, '_>) -> Result<[usize; 2]>;

    /// The matrix.
    fn unpack(&self, parts: &Parts<'_, '_>) -> Result<ModuleMatrix>;

    /// How a module's input is rounded.
    fn activations(&self, parts: &Parts<'_, '_>) -> Result<Option<ActivationQuantizer>> {
        let _ = parts;
        Ok(None)
    }

    /// What is to be said of a module.
    fn facts(&self, parts: &Parts<'_, '_>) -> Result<PackedFacts>;

    /// Whether what a module reads is to be rotated while the model runs: the size of a block, `None` for the whole row.
    fn input_rotation(&self, _module: &str) -> Result<Option<Option<usize>>, CheckpointError> {
        Ok(None)
    }

    /// Which other readers take these modules, with those linear layers in full precision beside them.
    fn loads_in(&self, modules: &[Parts<'_, '_>], dense: &[&str]) -> Result<LoadsIn>;

    /// Checks that readers of the config will read `matrix` rightly as this module.
    fn check(&self, module: &str, matrix: MatrixRef<'_>) -> Result<(), CheckpointError>;

    /// The tensors of a module that was checked.
    fn pack(&self, module: &str, matrix: MatrixRef<'_>) -> Result<Vec<PackedTensor>, CheckpointError>;

    /// Says of a linear layer that it stays in full precision.
    fn keep_dense(&mut self, module: &str) -> Result<(), CheckpointError>;

    /// The object for config.json; `maker` names what made it (`name:version`).
    fn to_json(&self, maker: &str) -> Value;
}

/// The config of a directory with packed modules.
#[derive(Clone, Debug, PartialEq)]
pub enum PackedConfig {
    /// GPTQ.
    Gptq(::gptq::checkpoint::GptqConfig),
    /// AWQ.
    Awq(::awq::checkpoint::AwqConfig),
    /// compressed-tensors.
    CompressedTensors(::compressed_tensors::Config),
}

impl From<::gptq::checkpoint::GptqConfig> for PackedConfig {
    fn from(config: ::gptq::checkpoint::GptqConfig) -> Self {
        Self::Gptq(config)
    }
}

impl From<::awq::checkpoint::AwqConfig> for PackedConfig {
    fn from(config: ::awq::checkpoint::AwqConfig) -> Self {
        Self::Awq(config)
    }
}

impl From<::compressed_tensors::Config> for PackedConfig {
    fn from(config: ::compressed_tensors::Config) -> Self {
        Self::CompressedTensors(config)
    }
}

impl PackedConfig {
    pub(crate) fn layout(&self) -> &dyn PackedLayout {
        match self {
            Self::Gptq(config) => config,
            Self::Awq(config) => config,
            Self::CompressedTensors(config) => config,
        }
    }

    pub(crate) fn layout_mut(&mut self) -> &mut dyn PackedLayout {
        match self {
            Self::Gptq(config) => config,
            Self::Awq(config) => config,
            Self::CompressedTensors(config) => config,
        }
    }

    /// `gptq`, `awq`, `compressed-tensors`: `quant_method` of config.json.
    pub fn method(&self) -> &'static str {
        self.layout().method()
    }

    /// The value of `quantization_config`; `maker` names what made it (`name:version`).
    pub fn to_json(&self, maker: &str) -> Value {
        self.layout().to_json(maker)
    }

    /// What it says of most modules.
    pub fn summary(&self) -> PackedSummary {
        match self {
            Self::Gptq(c) => PackedSummary {
                bits: c.bits.get(),
                group_size: c.group_size,
                symmetric: c.sym,
                act_order: c.desc_act,
                format: c.zero_point.name().to_owned(),
                activations: None,
                quantizer: c.quantizer.clone(),
            },
            Self::Awq(c) => PackedSummary {
                bits: c.bits.get(),
                group_size: c.group_size,
                symmetric: !c.zero_point,
                act_order: false,
                format: c.layout.name().to_owned(),
                activations: None,
                quantizer: c.quantizer.clone(),
            },
            Self::CompressedTensors(c) => {
                // The group of all linear layers, else the first.
                let of_class = c.groups.iter().find(|g| g.targets.iter().any(|t| t.is_linear()));
                let group = of_class.or(c.groups.first());
                let weights = group.and_then(|g| g.weights.as_ref());
                let group_size = weights.and_then(|w| match w.strategy {
                    ::compressed_tensors::Strategy::Group(size) => Some(size),
                    _ => None,
                });
                PackedSummary {
                    bits: weights.map_or(0, |w| w.num_bits),
                    group_size,
                    symmetric: weights.is_none_or(|w| w.symmetric),
                    act_order: weights.is_some_and(|w| w.act_order),
                    format: c.format.name().to_owned(),
                    activations: group.and_then(|g| compressed_tensors::activations_of(c, g)),
                    quantizer: c.version.iter().cloned().collect(),
                }
            }
        }
    }

    /// Checks that readers of a directory with this config will read `matrix` rightly as the module `name`.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`], with the reason.
    pub fn check<'m>(&self, name: &str, matrix: impl Into<MatrixRef<'m>>) -> Result<(), CheckpointError> {
        self.layout().check(name, matrix.into())
    }
}

/// What a config says of most modules.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedSummary {
    /// Bits of a code.
    pub bits: u8,
    /// Input features of a group, `None` for all.
    pub group_size: Option<usize>,
    /// Zero points are all in the middle.
    pub symmetric: bool,
    /// Groups follow the order of activations.
    pub act_order: bool,
    /// `gptq_v2`, `gemm`, `pack-quantized`.
    pub format: String,
    /// How the input of modules is rounded: `int8, one dynamic scale per token`; `None` for not at all.
    pub activations: Option<String>,
    /// What made it.
    pub quantizer: Vec<String>,
}

/// What is to be said of a quantized module.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedFacts {
    /// Its name: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Output features.
    pub out_features: usize,
    /// Input features.
    pub in_features: usize,
    /// Bits of a code.
    pub bits: u8,
    /// Input features of a group, `None` for all.
    pub group_size: Option<usize>,
    /// Its zero points are all in the middle, as the config says.
    pub symmetric: bool,
    /// How its tensors are stored: `gptq_v2`, `gemm`, `pack-quantized`, `int-quantized`.
    pub format: &'static str,
    /// How its input is rounded.
    pub activations: Option<ActivationQuantizer>,
    /// Its groups are not in the order of the columns.
    pub act_order: bool,
    /// Scales that F16 does not have, and that are rounded to its nearest.
    pub rounded_scales: usize,
}

/// A directory whose linear layers are quantized.
#[derive(Clone, Debug)]
pub struct PackedModules<'a> {
    dir: &'a HfDir,
    config: PackedConfig,
    /// Where the config is.
    file: PathBuf,
}

impl HfDir {
    /// The quantized modules of a directory; `None` if it is dense, or quantized by a method that is not read here.
    ///
    /// The config is `quantization_config` of config.json, else `quantize_config.json` or `quant_config.json`.
    ///
    /// # Errors
    /// [`Error::Packed`](crate::Error::Packed) for a config that cannot be, or asks for something that is not read here.
    pub fn packed(&self) -> Result<Option<PackedModules<'_>>> {
        let Some((json, file, default)) = self.quantization()? else { return Ok(None) };
        let method = json.get("quant_method").or_else(|| json.get("method")).and_then(|m| m.as_str()).or(default);
        let config = match method.map(str::to_ascii_lowercase).as_deref() {
            Some("gptq") => ::gptq::checkpoint::GptqConfig::from_json(&json).map(PackedConfig::Gptq),
            Some("awq") => ::awq::checkpoint::AwqConfig::from_json(&json).map(PackedConfig::Awq),
            Some("compressed-tensors") => {
                let config = ::compressed_tensors::Config::from_json(&json);
                config.and_then(|c| c.check_groups().map(|()| PackedConfig::CompressedTensors(c)))
            }
            _ => return Ok(None),
        };
        let config = config.map_err(|e| error(&file, "", e))?;
        Ok(Some(PackedModules { dir: self, config, file }))
    }

    /// The quantization config, where it is, and the method of a file that names none.
    fn quantization(&self) -> Result<Option<(Value, PathBuf, Option<&'static str>)>> {
        if let Some(json) = self.config_json().get("quantization_config").filter(|q| !q.is_null()) {
            return Ok(Some((json.clone(), self.path().join("config.json"), None)));
        }
        // Beside dense weights the files say nothing of them.
        if !self.tensor_names().any(|n| n.ends_with(".qweight")) {
            return Ok(None);
        }
        for (file, method) in [("quantize_config.json", "gptq"), ("quant_config.json", "awq")] {
            if let Some(json) = self.json(file)? {
                return Ok(Some((json, self.path().join(file), Some(method))));
            }
        }
        Ok(None)
    }
}

impl<'a> PackedModules<'a> {
    /// The config.
    pub fn config(&self) -> &PackedConfig {
        &self.config
    }

    /// Names of the quantized modules (`model.layers.0.mlp.up_proj`), in file order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        quantized_modules(self.config.layout(), self.dir.tensor_names(), |name| self.dir.entry(name).map(|e| e.dtype))
    }

    /// Whether a module is quantized.
    pub fn has(&self, module: &str) -> bool {
        self.config.layout().holds(module, &|name| self.dir.entry(name).map(|e| e.dtype))
    }

    /// Names of the tensors that a quantized module can have.
    pub(crate) fn tensors_of(&self, module: &str) -> impl Iterator<Item = String> {
        self.config.layout().suffixes().iter().map(move |suffix| format!("{module}{suffix}"))
    }

    fn find(&self) -> impl Fn(&str) -> Option<HfEntry<'a>> {
        let dir = self.dir;
        move |name| dir.entry(name)
    }

    /// `[out_features, in_features]` of a module; `None` if it is not quantized.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) if one of its tensors is missing or of a type that no layout has, if its weight is there too, or if
    /// the config leaves it in full precision; [`Error::Packed`](crate::Error::Packed) for tensors that do not fit each other or the config.
    pub fn shape(&self, module: &str) -> Result<Option<[usize; 2]>> {
        let find = self.find();
        let Some(parts) = Parts::new(self.config.layout(), module, &find)? else { return Ok(None) };
        self.config.layout().shape(&parts).map(Some)
    }

    /// A module's matrix; `None` if it is not quantized.
    ///
    /// # Errors
    /// As [`PackedModules::shape`]; scales that are not finite; groups out of range.
    pub fn matrix(&self, module: &str) -> Result<Option<ModuleMatrix>> {
        let find = self.find();
        let Some(parts) = Parts::new(self.config.layout(), module, &find)? else { return Ok(None) };
        self.config.layout().unpack(&parts).map(Some)
    }

    /// How a module's input is rounded; `None` if it is not, or the module is not quantized.
    ///
    /// # Errors
    /// As [`PackedModules::matrix`].
    pub fn activations(&self, module: &str) -> Result<Option<ActivationQuantizer>> {
        let find = self.find();
        let Some(parts) = Parts::new(self.config.layout(), module, &find)? else { return Ok(None) };
        self.config.layout().activations(&parts)
    }

    /// The rotation of what a module of so many columns reads, quantized or not, to be done while the model runs.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) for blocks that do not divide the columns; [`Error::Packed`](crate::Error::Packed) for rotations that
    /// cannot be done.
    pub fn input_rotation(&self, module: &str, columns: usize) -> Result<Option<Rotation>> {
        let found = self.config.layout().input_rotation(module).map_err(|e| error(&self.file, "", e))?;
        let Some(block) = found else { return Ok(None) };
        let block = block.unwrap_or(columns);
        if !block.is_power_of_two() || !columns.is_multiple_of(block) {
            let expected = format!("blocks of a power of two that divides the {columns} inputs of `{module}`");
            return Err(crate::Error::malformed(&self.file, "transform_config", expected, block.to_string()));
        }
        Ok(Some(Rotation::new(columns, block)))
    }

    /// What is to be said of every module.
    ///
    /// # Errors
    /// As [`PackedModules::matrix`].
    pub fn facts(&self) -> Result<Vec<PackedFacts>> {
        let find = self.find();
        self.parts(&find)?.iter().map(|parts| self.config.layout().facts(parts)).collect()
    }

    /// Which other readers load the directory.
    ///
    /// # Errors
    /// As [`PackedModules::matrix`].
    pub fn loads_in(&self) -> Result<LoadsIn> {
        let is_linear = |entry: &HfEntry<'_>| entry.shape.len() == 2 && entry.name.contains(".layers.");
        let entries = self.dir.entries().filter(is_linear);
        let names = entries.filter_map(|e| e.name.strip_suffix(".weight"));
        let dense: Vec<&str> = names.filter(|name| !self.has(name)).collect();
        let find = self.find();
        self.config.layout().loads_in(&self.parts(&find)?, &dense)
    }

    fn parts<'f>(&'f self, find: &'f dyn Fn(&str) -> Option<HfEntry<'a>>) -> Result<Vec<Parts<'f, 'a>>> {
        self.names().filter_map(|name| Parts::new(self.config.layout(), name, find).transpose()).collect()
    }

    /// Where the config is.
    pub fn config_file(&self) -> &std::path::Path {
        &self.file
    }
}

/// The modules among tensors that are quantized, each once, in the order of their first tensors.
pub(crate) fn quantized_modules<'n>(
    layout: &dyn PackedLayout,
    names: impl Iterator<Item = &'n str>,
    find: impl Fn(&str) -> Option<Dtype>,
) -> impl Iterator<Item = &'n str> {
    let mut seen = HashSet::new();
    let module = |name: &'n str| layout.suffixes().iter().find_map(|suffix| name.strip_suffix(suffix));
    let all: Vec<&str> = names.filter_map(module).filter(|m| seen.insert(*m) && layout.holds(m, &find)).collect();
    all.into_iter()
}
