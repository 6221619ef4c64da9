//! Writes a directory with packed modules, part by part.

use crate::checkpoint::{
    HfDir, HfEntry, MatrixRef, ModuleMatrix, PackedConfig, Parts, packed_error as error, quantized_modules,
};
use crate::hf_writer::{HfDirWriter, OwnedTensor, WriteOptions, WrittenDir};
use crate::{Error, Result};
use half::{bf16, f16};
use quant_core::checkpoint::DType;
use safetensors::Dtype;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What made the directory, as its config has it.
const MAKER: &str = concat!("quant:", env!("CARGO_PKG_VERSION"));

/// A directory under way: modules are given part by part (a layer each), the rest comes from the source.
///
/// ```no_run
/// # use quant_runtime::{Result, checkpoint::HfDir, hf_writer::WriteOptions, packed_dir::PackedDirWriter};
/// # fn quantized(_: u32) -> Vec<(String, quant_core::affine::AffineMatrix)> { Vec::new() }
/// # fn example(config: awq::checkpoint::AwqConfig) -> Result<()> {
/// let source = std::sync::Arc::new(HfDir::open("model")?);
/// let options = WriteOptions { fingerprint: "calibrated on x".into(), ..WriteOptions::default() };
/// // A GptqConfig, an AwqConfig or a compressed_tensors::Config decides the layout.
/// let mut writer = PackedDirWriter::create(source, "model-awq".as_ref(), config, &options)?;
/// for layer in 0..6 {
///     if writer.is_done(layer) {
///         continue; // by an earlier run that was cut short
///     }
///     let mut part = writer.part(layer);
///     for (name, matrix) in quantized(layer) {
///         part.module(&name, &matrix, None)?;
///     }
///     // A scale that was folded into a norm.
///     part.replace(&format!("model.layers.{layer}.input_layernorm.weight"), &[1.0; 256], None)?;
///     writer.commit(part, "")?;
/// }
/// let written = writer.finish()?;
/// # let _ = written;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PackedDirWriter {
    inner: HfDirWriter,
    config: Arc<PackedConfig>,
    /// Other values for keys of config.json.
    keys: Map<String, Value>,
}

/// Tensors of one part, in memory.
#[derive(Debug)]
pub struct PackedPart {
    index: u32,
    path: PathBuf,
    source: Arc<HfDir>,
    config: Arc<PackedConfig>,
    tensors: Vec<OwnedTensor>,
}

impl PackedDirWriter {
    /// Opens the target for writing. `config` becomes `quantization_config` (and `quantize_config.json` of a GPTQ directory), and counts towards the
    /// fingerprint.
    ///
    /// # Errors
    /// What [`HfDirWriter::create`] refuses; [`Error::Usage`] if the source is quantized already.
    pub fn create(
        source: Arc<HfDir>,
        out: &Path,
        config: impl Into<PackedConfig>,
        options: &WriteOptions,
    ) -> Result<Self> {
        let config = config.into();
        if source.config_json().get("quantization_config").is_some_and(|q| !q.is_null()) {
            return Err(Error::Usage(format!("{}: is quantized already", source.path().display())));
        }
        let fingerprint = format!("{MAKER}\n{}\n{}", config.to_json(MAKER), options.fingerprint);
        let inner = HfDirWriter::create(source, out, &WriteOptions { fingerprint, ..options.clone() })?;
        Ok(Self { inner, config: Arc::new(config), keys: Map::new() })
    }

    /// Gives a key of config.json another value than the source's.
    pub fn set_config_key(&mut self, key: &str, value: Value) {
        self.keys.insert(key.to_owned(), value);
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
    /// [`Error::Packed`] or [`Error::Malformed`] if the part is not what the config says; nothing for a part that is not there.
    pub fn matrices(&self, index: u32) -> Result<HashMap<String, ModuleMatrix>> {
        let mut matrices = HashMap::new();
        let Some(file) = self.inner.part(index) else { return Ok(matrices) };
        let entries: HashMap<&str, HfEntry<'_>> = file.entries().map(|e| (e.name, e)).collect();
        let find = |name: &str| entries.get(name).copied();
        let layout = self.config.layout();
        for module in quantized_modules(layout, entries.keys().copied(), |name| find(name).map(|e| e.dtype)) {
            if let Some(parts) = Parts::new(layout, module, &find)? {
                matrices.insert(module.to_owned(), layout.unpack(&parts)?);
            }
        }
        Ok(matrices)
    }

    /// Where the caller may keep files of its own meanwhile, see [`HfDirWriter::scratch`].
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.inner.scratch(name)
    }

    /// A part, empty.
    pub fn part(&self, index: u32) -> PackedPart {
        PackedPart {
            index,
            path: self.inner.source().path().to_path_buf(),
            source: self.inner.source().clone(),
            config: self.config.clone(),
            tensors: Vec::new(),
        }
    }

    /// Writes a part: after this returns it outlives a crash. `note` comes back from [`PackedDirWriter::parts`], in a later run too.
    ///
    /// # Errors
    /// As [`HfDirWriter::write_part`].
    pub fn commit(&mut self, part: PackedPart, note: &str) -> Result<()> {
        self.inner.write_part(part.index, &part.tensors, note)
    }

    /// Completes the directory: tensors that no part replaced are the source's, as they are; the linear layers among them are named in the config as
    /// left in full precision, unless it says so already. The target appears whole, by a rename.
    ///
    /// # Errors
    /// As [`HfDirWriter::finish`]; a module that is quantized, but not in the source.
    pub fn finish(self) -> Result<WrittenDir> {
        let Self { inner, config, keys } = self;
        let source = inner.source().clone();
        let wrong = |e| error(source.path(), "", e);
        let mut config = Arc::unwrap_or_clone(config);
        let written: HashMap<&str, Dtype> = inner
            .parts()
            .filter_map(|(index, _)| inner.part(index))
            .flat_map(|file| file.entries())
            .map(|e| (e.name, e.dtype))
            .collect();
        let names = quantized_modules(config.layout(), inner.tensor_names(), |name| written.get(name).copied());
        let modules: BTreeSet<String> = names.map(str::to_owned).collect();
        drop(written);
        for entry in source.entries() {
            let Some(module) = entry.name.strip_suffix(".weight") else { continue };
            let is_linear = entry.shape.len() == 2 && module.contains(".layers.");
            if is_linear && !modules.contains(module) && config.layout().is_quantized(module).map_err(wrong)? {
                config.layout_mut().keep_dense(module).map_err(wrong)?;
            }
        }
        for module in &modules {
            let path = source.path().display();
            if source.entry(&format!("{module}.weight")).is_none() {
                return Err(Error::Usage(format!("{path}: has no module `{module}`, which was quantized")));
            }
            // Names of others may be part of its own (AWQ).
            if !config.layout().is_quantized(module).map_err(wrong)? {
                let why = "the names of those in full precision match it too";
                return Err(Error::Usage(format!("{path}: module `{module}` was quantized, and {why}")));
            }
        }
        let quantization = config.to_json(MAKER);
        let mut json = source.config_json().clone();
        if let Value::Object(map) = &mut json {
            map.insert("quantization_config".to_owned(), quantization.clone());
            map.extend(keys);
        }
        let replaced = |name: &str| name.strip_suffix(".weight").is_some_and(|m| modules.contains(m));
        let files: Vec<_> = config.layout().files().iter().map(|file| (*file, quantization.clone())).collect();
        inner.finish(&json, &files, replaced)
    }
}

impl PackedPart {
    /// A quantized module, by the name that the source has for it (`model.layers.0.mlp.up_proj`), with its bias: the source's, if it has one, or
    /// `bias`. Biases are stored as F16 where it holds them, as GPTQ's and AWQ's layouts ask; in compressed-tensors' they keep the type of the source.
    ///
    /// # Errors
    /// [`Error::Packed`] for a matrix that the config does not describe, or the layout does not have; [`Error::Usage`] for a module that the source does not
    /// have in this shape.
    pub fn module<'m>(&mut self, name: &str, matrix: impl Into<MatrixRef<'m>>, bias: Option<&[f32]>) -> Result<()> {
        let matrix = matrix.into();
        let shape = matrix.shape();
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
        let layout = self.config.layout();
        layout.check(name, matrix).map_err(|e| error(&self.path, "", e))?;
        let packed = layout.pack(name, matrix).map_err(|e| error(&self.path, &format!("module `{name}`: "), e))?;
        for tensor in packed {
            let dtype = match tensor.dtype {
                DType::I8 => Dtype::I8,
                DType::F8E4M3 => Dtype::F8_E4M3,
                DType::I64 => Dtype::I64,
                DType::I32 => Dtype::I32,
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                DType::F32 => Dtype::F32,
                other => return Err(Error::Unsupported(format!("module `{name}`: tensors of type {}", other.name()))),
            };
            let name = format!("{name}.{}", tensor.suffix);
            self.tensors.push(OwnedTensor { name, dtype, shape: tensor.shape, data: tensor.data });
        }
        let name = format!("{name}.bias");
        // compressed-tensors' layout does not ask for F16.
        let keeps_type = matches!(*self.config, PackedConfig::CompressedTensors(_));
        let bias = match (bias, self.source.entry(&name)) {
            (Some(values), Some(_)) if keeps_type => return self.replace(&name, values, None),
            (None, Some(_)) if keeps_type => None,
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

    /// Other values for a tensor of the source that stays dense: its name there, its shape, and its type or `dtype` (F32, F16 or BF16; rounded to
    /// nearest, ties to even).
    ///
    /// # Errors
    /// [`Error::Usage`] for a tensor that the source does not have in this size, a type that is none of the three; [`Error::NotFinite`] for values that
    /// are not finite in it.
    pub fn replace(&mut self, name: &str, values: &[f32], dtype: Option<Dtype>) -> Result<()> {
        let usage = |what: String| Err(Error::Usage(format!("{}: tensor `{name}`: {what}", self.path.display())));
        let Some(entry) = self.source.entry(name) else { return usage("the source has none".into()) };
        let elements = entry.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if elements != Some(values.len()) {
            return usage(format!("{} values for shape {:?}", values.len(), entry.shape));
        }
        let (dtype, shape) = (dtype.unwrap_or(entry.dtype), entry.shape.to_vec());
        let Some((data, finite)) = to_bytes(values, dtype) else {
            return usage(format!("type {dtype} (F32, F16 and BF16 can be)"));
        };
        if !finite {
            return Err(Error::NotFinite(format!("values of `{name}` as {dtype}")));
        }
        self.tensors.push(OwnedTensor { name: name.to_owned(), dtype, shape, data });
        Ok(())
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

/// Values as bytes of a type, and whether all are finite in it; `None` for other types.
fn to_bytes(values: &[f32], dtype: Dtype) -> Option<(Vec<u8>, bool)> {
    Some(match dtype {
        Dtype::F32 => (values.iter().flat_map(|v| v.to_le_bytes()).collect(), values.iter().all(|v| v.is_finite())),
        Dtype::F16 => {
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            (halves.iter().flat_map(|v| v.to_le_bytes()).collect(), halves.iter().all(|v| v.is_finite()))
        }
        Dtype::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            (halves.iter().flat_map(|v| v.to_le_bytes()).collect(), halves.iter().all(|v| v.is_finite()))
        }
        _ => return None,
    })
}
