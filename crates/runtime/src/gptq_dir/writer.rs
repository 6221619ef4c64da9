//! Writes a GPTQ directory, part by part.

use crate::checkpoint::{GPTQ_SUFFIXES, HfDir, gptq_error as error, stored_module};
use crate::hf_writer::{HfDirWriter, OwnedTensor, WriteOptions, WrittenDir};
use crate::{Error, Result};
use gptq::checkpoint::{DType, DynamicRule, GptqConfig, PackedModule};
use half::{bf16, f16};
use quant_core::affine::AffineMatrix;
use safetensors::Dtype;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What made the directory, as `meta.quantizer` has it.
const QUANTIZER: &str = concat!("quant:", env!("CARGO_PKG_VERSION"));

/// A GPTQ directory under way: modules are given part by part (a layer each), the rest comes from the source.
///
/// ```no_run
/// # use quant_runtime::{Result, checkpoint::HfDir, gptq_dir::GptqDirWriter, hf_writer::WriteOptions};
/// # fn quantized(_: u32) -> Vec<(String, quant_core::affine::AffineMatrix)> { Vec::new() }
/// # fn example(config: gptq::checkpoint::GptqConfig) -> Result<()> {
/// let source = std::sync::Arc::new(HfDir::open("model")?);
/// let options = WriteOptions { fingerprint: "calibrated on x".into(), ..WriteOptions::default() };
/// let mut writer = GptqDirWriter::create(source, "model-gptq".as_ref(), config, &options)?;
/// for layer in 0..6 {
///     if writer.is_done(layer) {
///         continue; // by an earlier run that was cut short
///     }
///     let mut part = writer.part(layer);
///     for (name, matrix) in quantized(layer) {
///         part.module(&name, &matrix, None)?;
///     }
///     writer.commit(part, "")?;
/// }
/// let written = writer.finish()?;
/// # let _ = written;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GptqDirWriter {
    inner: HfDirWriter,
    config: Arc<GptqConfig>,
}

/// Tensors of one part, in memory.
#[derive(Debug)]
pub struct GptqPart {
    index: u32,
    path: PathBuf,
    source: Arc<HfDir>,
    config: Arc<GptqConfig>,
    tensors: Vec<OwnedTensor>,
}

impl GptqDirWriter {
    /// Opens the target for writing. `config` becomes `quantization_config` and `quantize_config.json`, and counts towards the fingerprint.
    ///
    /// # Errors
    /// What [`HfDirWriter::create`] refuses; [`Error::Usage`] if the source is quantized already.
    pub fn create(source: Arc<HfDir>, out: &Path, config: GptqConfig, options: &WriteOptions) -> Result<Self> {
        if source.config_json().get("quantization_config").is_some_and(|q| !q.is_null()) {
            return Err(Error::Usage(format!("{}: is quantized already", source.path().display())));
        }
        let fingerprint = format!("{QUANTIZER}\n{}\n{}", config.to_json(QUANTIZER), options.fingerprint);
        let inner = HfDirWriter::create(source, out, &WriteOptions { fingerprint, ..options.clone() })?;
        Ok(Self { inner, config: Arc::new(config) })
    }

    /// Whether a part is done, by this run or an earlier one.
    pub fn is_done(&self, index: u32) -> bool {
        self.inner.part(index).is_some()
    }

    /// The parts that are done and the notes they were committed with.
    pub fn parts(&self) -> impl Iterator<Item = (u32, &str)> {
        self.inner.parts()
    }

    /// The modules of a part that is done, unpacked, by name.
    ///
    /// # Errors
    /// [`Error::Gptq`] or [`Error::Malformed`] if the part is not what the config says; nothing for a part that is not there.
    pub fn matrices(&self, index: u32) -> Result<HashMap<String, AffineMatrix>> {
        let mut matrices = HashMap::new();
        let Some(file) = self.inner.part(index) else { return Ok(matrices) };
        let entries: HashMap<&str, _> = file.entries().map(|e| (e.name, e)).collect();
        for (name, &qweight) in &entries {
            let Some(module) = name.strip_suffix(GPTQ_SUFFIXES[0]) else { continue };
            let wrong = |e| error(qweight.file, &format!("module `{module}`: "), e);
            let part = |suffix: &str| entries.get(format!("{module}{suffix}").as_str()).copied();
            let stored = stored_module(module, qweight, part)?;
            let Some(spec) = self.config.module(module) else { continue };
            matrices.insert(module.to_owned(), stored.unpack(&spec, self.config.zero_point).map_err(wrong)?);
        }
        Ok(matrices)
    }

    /// Where the caller may keep files of its own meanwhile, see [`HfDirWriter::scratch`].
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.inner.scratch(name)
    }

    /// A part, empty.
    pub fn part(&self, index: u32) -> GptqPart {
        GptqPart {
            index,
            path: self.inner.source().path().to_path_buf(),
            source: self.inner.source().clone(),
            config: self.config.clone(),
            tensors: Vec::new(),
        }
    }

    /// Writes a part: after this returns it outlives a crash. `note` comes back from [`GptqDirWriter::parts`], in a later run too.
    ///
    /// # Errors
    /// As [`HfDirWriter::write_part`].
    pub fn commit(&mut self, part: GptqPart, note: &str) -> Result<()> {
        self.inner.write_part(part.index, &part.tensors, note)
    }

    /// Completes the directory: tensors that no part replaced are the source's, as they are; the linear layers among them are named in `dynamic` as
    /// left in full precision, unless a rule does so already. The target appears whole, by a rename.
    ///
    /// # Errors
    /// As [`HfDirWriter::finish`]; a module that is quantized, but not in the source.
    pub fn finish(self) -> Result<WrittenDir> {
        let Self { inner, config } = self;
        let modules: BTreeSet<&str> = inner.tensor_names().filter_map(|n| n.strip_suffix(".qweight")).collect();
        let mut config = Arc::unwrap_or_clone(config);
        for entry in inner.source().entries() {
            let Some(module) = entry.name.strip_suffix(".weight") else { continue };
            let is_linear = entry.shape.len() == 2 && module.contains(".layers.");
            if is_linear && !modules.contains(module) && config.module(module).is_some() {
                // First, as the first rule that matches counts.
                let rule = DynamicRule::skip_module(module).map_err(|e| error(inner.source().path(), "", e))?;
                config.dynamic.insert(0, rule);
            }
        }
        if let Some(module) = modules.iter().find(|m| inner.source().entry(&format!("{m}.weight")).is_none()) {
            let source = inner.source().path().display();
            return Err(Error::Usage(format!("{source}: has no module `{module}`, which was quantized")));
        }
        let quantization = config.to_json(QUANTIZER);
        let mut json = inner.source().config_json().clone();
        if let Value::Object(map) = &mut json {
            map.insert("quantization_config".to_owned(), quantization.clone());
        }
        let modules: BTreeSet<String> = modules.into_iter().map(str::to_owned).collect();
        let replaced = |name: &str| name.strip_suffix(".weight").is_some_and(|m| modules.contains(m));
        inner.finish(&json, &[("quantize_config.json", quantization)], replaced)
    }
}

impl GptqPart {
    /// A quantized module, by the name that the source has for it (`model.layers.0.mlp.up_proj`), with its bias: the source's, if it has one, or
    /// `bias`. Biases are stored as F16 where it holds them, as the layout asks.
    ///
    /// # Errors
    /// [`Error::Gptq`] for a matrix that the config does not describe ([`GptqConfig::check`]); [`Error::Usage`] for a module that the source does not
    /// have in this shape.
    pub fn module(&mut self, name: &str, matrix: &AffineMatrix, bias: Option<&[f32]>) -> Result<()> {
        let shape = [matrix.out_features(), matrix.in_features()];
        let weight = self.source.entry(&format!("{name}.weight"));
        if weight.as_ref().is_none_or(|w| w.shape != shape) {
            let found = weight.map_or("no such module".into(), |w| format!("one of shape {:?}", w.shape));
            let path = self.path.display();
            return Err(Error::Usage(format!("{path}: module `{name}` of shape {shape:?}: the source has {found}")));
        }
        if let Some(found) = bias.map(<[f32]>::len).filter(|n| *n != shape[0]) {
            let path = self.path.display();
            return Err(Error::Usage(format!("{path}: {found} values for the {} of `{name}.bias`", shape[0])));
        }
        let wrong = |e| error(&self.path, "", e);
        self.config.check(name, matrix).map_err(wrong)?;
        let packed = PackedModule::pack(matrix, self.config.zero_point)
            .map_err(|e| error(&self.path, &format!("module `{name}`: "), e))?;
        for tensor in packed.into_tensors() {
            let dtype = match tensor.dtype {
                DType::I32 => Dtype::I32,
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                DType::F32 => Dtype::F32,
            };
            let name = format!("{name}.{}", tensor.suffix);
            self.tensors.push(OwnedTensor { name, dtype, shape: tensor.shape, data: tensor.data });
        }
        let name = format!("{name}.bias");
        let bias = match (bias, self.source.entry(&name)) {
            (Some(values), _) => Some(bias_tensor(name, &[values.len()], values, None)),
            (None, Some(entry)) => {
                let values: Option<Vec<f32>> = match entry.dtype {
                    Dtype::F32 => Some(entry.data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
                    Dtype::BF16 => {
                        Some(entry.data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect())
                    }
                    _ => None,
                };
                let original = OwnedTensor {
                    name: name.clone(),
                    dtype: entry.dtype,
                    shape: entry.shape.to_vec(),
                    data: entry.data.to_vec(),
                };
                Some(match values {
                    Some(values) => bias_tensor(name, entry.shape, &values, Some(original)),
                    None => original,
                })
            }
            (None, None) => None,
        };
        self.tensors.extend(bias);
        Ok(())
    }

    /// Another tensor, in place of the source's of this name or beside its own.
    pub fn dense(&mut self, tensor: OwnedTensor) {
        self.tensors.push(tensor);
    }

    /// Bytes of the tensors so far.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|t| t.data.len()).sum()
    }
}

/// F16 where no value overflows it, else as it was, else F32.
fn bias_tensor(name: String, shape: &[usize], values: &[f32], original: Option<OwnedTensor>) -> OwnedTensor {
    let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let shape = shape.to_vec();
    if halves.iter().all(|h| h.is_finite()) {
        let data = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        return OwnedTensor { name, dtype: Dtype::F16, shape, data };
    }
    original.unwrap_or_else(|| {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        OwnedTensor { name, dtype: Dtype::F32, shape, data }
    })
}
