//! The quantized modules of a GPTQ directory.

use super::{HfDir, HfEntry};
use crate::{Error, Result};
use gptq::checkpoint::{
    CheckpointError, DType, GptqConfig, LoadsIn, ModuleFacts, ModuleSpec, StoredModule, StoredTensor, loads_in,
};
use quant_core::affine::AffineMatrix;
use safetensors::Dtype;
use std::path::{Path, PathBuf};

/// The file that AutoGPTQ keeps the config in.
const QUANTIZE_CONFIG: &str = "quantize_config.json";

/// The ends of a quantized module's tensors.
pub(crate) const SUFFIXES: [&str; 4] = [".qweight", ".qzeros", ".scales", ".g_idx"];

/// A directory whose linear layers are stored as GPTQ has them.
#[derive(Clone, Debug)]
pub struct GptqModules<'a> {
    dir: &'a HfDir,
    config: GptqConfig,
    /// Where the config is.
    file: PathBuf,
}

impl HfDir {
    /// The GPTQ side of a directory; `None` if it is not quantized, or by another method.
    ///
    /// The config is `quantization_config` of config.json, else `quantize_config.json`.
    ///
    /// # Errors
    /// [`Error::Gptq`] for a config that cannot be, or asks for something that is not read here.
    pub fn gptq(&self) -> Result<Option<GptqModules<'_>>> {
        let in_config = self.config_json().get("quantization_config").filter(|q| !q.is_null());
        let (json, file) = match in_config {
            Some(json) => (json.clone(), self.path().join("config.json")),
            None => match self.json(QUANTIZE_CONFIG)? {
                // Beside dense weights it says nothing of them.
                Some(json) if self.tensor_names().any(|n| n.ends_with(SUFFIXES[0])) => {
                    (json, self.path().join(QUANTIZE_CONFIG))
                }
                _ => return Ok(None),
            },
        };
        let method = json.get("quant_method").or_else(|| json.get("method")).and_then(|m| m.as_str());
        if in_config.is_some() && !method.is_some_and(|m| m.eq_ignore_ascii_case("gptq")) {
            return Ok(None);
        }
        let config = GptqConfig::from_json(&json).map_err(|e| error(&file, "", e))?;
        Ok(Some(GptqModules { dir: self, config, file }))
    }
}

impl<'a> GptqModules<'a> {
    /// The config.
    pub fn config(&self) -> &GptqConfig {
        &self.config
    }

    /// Names of the quantized modules (`model.layers.0.mlp.up_proj`), in file order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.dir.tensor_names().filter_map(|name| name.strip_suffix(SUFFIXES[0]))
    }

    /// The tensors of a module, and how the config says they are stored; `None` if it is not quantized.
    ///
    /// # Errors
    /// [`Error::Malformed`] if one of its tensors is missing or of a type that the layout does not have, if its weight is there too, or if the config
    /// leaves it in full precision.
    pub fn stored(&self, module: &str) -> Result<Option<(ModuleSpec, StoredModule<'a>)>> {
        let part = |suffix: &str| self.dir.entry(&format!("{module}{suffix}"));
        let Some(qweight) = part(SUFFIXES[0]) else { return Ok(None) };
        let file = qweight.file;
        let wrong = |what: String, expected: &str, found: &str| Err(Error::malformed(file, what, expected, found));
        if part(".weight").is_some() {
            return wrong(format!("tensor `{module}.weight`"), "none beside `qweight`", "both");
        }
        let Some(spec) = self.config.module(module) else {
            let found = "`qweight` in place of `weight`";
            return wrong(format!("module `{module}`"), "full precision, as `dynamic` says", found);
        };
        let module = stored_module(module, qweight, part)?;
        Ok(Some((spec, module)))
    }

    /// `[out_features, in_features]` of a module; `None` if it is not quantized.
    ///
    /// # Errors
    /// As [`GptqModules::stored`], and tensors that do not fit each other or the config.
    pub fn shape(&self, module: &str) -> Result<Option<[usize; 2]>> {
        let Some((spec, stored)) = self.stored(module)? else { return Ok(None) };
        stored.shape(&spec).map(Some).map_err(|e| self.error(module, e))
    }

    /// A module's matrix; `None` if it is not quantized.
    ///
    /// # Errors
    /// As [`GptqModules::shape`]; scales that are not finite; a `g_idx` out of range.
    pub fn matrix(&self, module: &str) -> Result<Option<AffineMatrix>> {
        let Some((spec, stored)) = self.stored(module)? else { return Ok(None) };
        stored.unpack(&spec, self.config.zero_point).map(Some).map_err(|e| self.error(module, e))
    }

    /// What the other readers need to know of every module, see [`loads_in`].
    ///
    /// # Errors
    /// As [`GptqModules::matrix`].
    pub fn facts(&self) -> Result<Vec<ModuleFacts>> {
        self.names()
            .filter_map(|name| {
                let (spec, stored) = match self.stored(name) {
                    Ok(found) => found?,
                    Err(e) => return Some(Err(e)),
                };
                let facts = || {
                    let [out_features, in_features] = stored.shape(&spec)?;
                    Ok(ModuleFacts {
                        name: name.to_owned(),
                        out_features,
                        in_features,
                        spec,
                        zero_point: stored.zero_point(&spec, self.config.zero_point)?,
                        g_idx: stored.order(&spec)?,
                    })
                };
                Some(facts().map_err(|e| self.error(name, e)))
            })
            .collect()
    }

    /// Which other readers load the directory.
    pub fn loads_in(&self, facts: &[ModuleFacts]) -> LoadsIn {
        let is_linear = |entry: &HfEntry<'_>| entry.shape.len() == 2 && entry.name.contains(".layers.");
        let dense: Vec<&str> =
            self.dir.entries().filter(is_linear).filter_map(|e| e.name.strip_suffix(".weight")).collect();
        loads_in(&self.config, facts, &dense)
    }

    fn error(&self, module: &str, source: CheckpointError) -> Error {
        let file = self.dir.entry(&format!("{module}{}", SUFFIXES[0])).map_or(self.file.as_path(), |e| e.file);
        error(file, &format!("module `{module}`: "), source)
    }
}

/// The tensors of a module; `part` finds the one with a suffix.
///
/// # Errors
/// [`Error::Malformed`] if one is missing or of a type that the layout does not have.
pub(crate) fn stored_module<'a>(
    module: &str,
    qweight: HfEntry<'a>,
    part: impl Fn(&str) -> Option<HfEntry<'a>>,
) -> Result<StoredModule<'a>> {
    let file = qweight.file;
    let need = |suffix: &str| match part(suffix) {
        Some(entry) => stored(entry),
        None => Err(Error::malformed(file, format!("tensor `{module}{suffix}`"), "one beside `qweight`", "nothing")),
    };
    Ok(StoredModule {
        qweight: stored(qweight)?,
        qzeros: need(SUFFIXES[1])?,
        scales: need(SUFFIXES[2])?,
        g_idx: part(SUFFIXES[3]).map(stored).transpose()?,
    })
}

fn stored(entry: HfEntry<'_>) -> Result<StoredTensor<'_>> {
    let dtype = match entry.dtype {
        Dtype::I32 => DType::I32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        other => {
            let what = format!("tensor `{}`", entry.name);
            return Err(Error::malformed(entry.file, what, "type I32, F16, BF16 or F32", other.to_string()));
        }
    };
    Ok(StoredTensor { dtype, shape: entry.shape, data: entry.data })
}

/// What is wrong with a module or a config in `path`; `what` is followed by `: `, or empty.
pub(crate) fn error(path: &Path, what: &str, source: CheckpointError) -> Error {
    Error::Gptq { path: path.to_path_buf(), what: what.to_owned(), source: Box::new(source) }
}
