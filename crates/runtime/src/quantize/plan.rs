//! Everything that is decided before a weight is read.

use super::pipeline::{self, Progress};
use super::{Importance, QuantizeReport, TensorReport};
use crate::convert::{AsBlocks, ModelSource, Place, SourceTensor};
use crate::fold::{Folds, TensorFold};
use crate::{Error, Result};
use gguf_format::mix::{Choice, FileType, MixOptions, ModelFacts, Reason, TensorDesc, plan};
use gguf_format::{GgmlType, GgufWriter, Metadata, TensorSpec, WritePlan, blocks};
use quant_core::error_metrics::ErrorMetrics;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// `general.quantization_version`: the layout of ggml's blocks since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// What is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// The mix. `has_importance` is set from `importance`.
    pub mix: MixOptions,
    /// Importance weights.
    pub importance: Option<Importance>,
    /// Quantize again what is quantized already, which adds its errors up.
    pub allow_requantize: bool,
    /// Measure how far each tensor is from its source.
    pub measure_errors: bool,
    /// Scales that are folded into the model before it is quantized. `importance` is that of the model as it is, and is scaled with it.
    pub folds: Folds,
}

impl QuantizeOptions {
    /// A mix without importance weights.
    pub fn new(mix: MixOptions) -> Self {
        Self { mix, importance: None, allow_requantize: false, measure_errors: false, folds: Folds::new() }
    }
}

/// A model, the type of each of its tensors, and the header of the file to be.
#[derive(Debug)]
pub struct QuantizePlan<'a> {
    pub(super) source: &'a ModelSource,
    pub(super) options: QuantizeOptions,
    pub(super) choices: Vec<Choice>,
    file: WritePlan,
}

impl<'a> QuantizePlan<'a> {
    /// Chooses types and checks that every tensor can be brought to its own.
    ///
    /// # Errors
    /// [`Error::Gguf`] for what [`plan`] refuses, and for names and keys that have no place in a file; [`Error::Usage`] for importance of
    /// another width than the tensor; [`Error::Unsupported`] for a type without a codec.
    pub fn new(source: &'a ModelSource, mut options: QuantizeOptions) -> Result<Self> {
        let gguf = |e| Error::gguf(&source.path, e);
        options.importance = options.importance.filter(|i| !i.values.is_empty());
        if let Some(importance) = &mut options.importance {
            importance.divide(&options.folds);
        }
        options.mix.has_importance = options.importance.is_some();
        let model = ModelFacts::from_metadata(&source.metadata).map_err(gguf)?;
        let tensors: Vec<_> =
            source.tensors.iter().map(|t| TensorDesc { name: &t.name, shape: &t.shape, ty: t.ty }).collect();
        let choices = plan(&tensors, &model, &options.mix).map_err(gguf)?;
        Self::with_choices(source, options, choices)
    }

    /// Every tensor in the type it has, or that its values call for: codes of packed modules stand as they are; matrices that are not quantized get
    /// `dense`, where it is given.
    ///
    /// # Errors
    /// As [`QuantizePlan::new`].
    pub fn unchanged(source: &'a ModelSource, dense: Option<FileType>) -> Result<Self> {
        let choose = |tensor: &SourceTensor| {
            let given = dense.and_then(FileType::default_type).filter(|_| tensor.shape.len() > 1);
            let (ty, reason) = match given {
                Some(ty) if !tensor.stored.is_quantized() => (ty, Reason::Default),
                _ => (tensor.ty, Reason::Kept),
            };
            Choice { ty, reason, needs_importance: false }
        };
        let choices: Vec<Choice> = source.tensors.iter().map(choose).collect();
        // `general.file_type` is what most values have.
        let mut sums: Vec<(GgmlType, u64)> = Vec::new();
        for (tensor, choice) in source.tensors.iter().zip(&choices) {
            match sums.iter_mut().find(|(ty, _)| *ty == choice.ty) {
                Some((_, n)) => *n = n.saturating_add(tensor.elements()),
                None => sums.push((choice.ty, tensor.elements())),
            }
        }
        let most = sums.into_iter().max_by_key(|&(_, n)| n).map_or(GgmlType::F32, |(ty, _)| ty);
        let named = |f: &&FileType| f.default_type() == Some(most);
        let file_type = FileType::KNOWN.iter().find(named).copied().unwrap_or(FileType::F32);
        Self::with_choices(source, QuantizeOptions::new(MixOptions::new(file_type)), choices)
    }

    fn with_choices(source: &'a ModelSource, options: QuantizeOptions, choices: Vec<Choice>) -> Result<Self> {
        let gguf = |e| Error::gguf(&source.path, e);
        for (tensor, choice) in source.tensors.iter().zip(&choices) {
            check(tensor, choice, &options)?;
        }
        let specs: Vec<_> = source
            .tensors
            .iter()
            .zip(&choices)
            .map(|(t, c)| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), ty: c.ty })
            .collect();
        let file = WritePlan::new(&metadata(source, &options), &specs).map_err(gguf)?;
        Ok(Self { source, options, choices, file })
    }

    /// The type that each tensor gets, by its name.
    pub fn types(&self) -> impl Iterator<Item = (&str, GgmlType)> {
        self.source.tensors.iter().zip(&self.choices).map(|(tensor, choice)| (tensor.name.as_str(), choice.ty))
    }

    /// The scales that are folded into a tensor.
    pub(super) fn fold(&self, tensor: &SourceTensor) -> Option<TensorFold> {
        self.options.folds.of_tensor(&tensor.name)
    }

    /// The importance weights of a tensor.
    pub(super) fn importance(&self, tensor: &SourceTensor) -> Option<&[f32]> {
        importance_of(tensor, &self.options)
    }

    /// Whether [`run`](Self::run) would go ahead; a dry run may show what it would do all the same.
    ///
    /// # Errors
    /// [`Error::Usage`] for a source that is quantized already, unless that is allowed, and for importance that is missing where a type
    /// cannot do without it.
    pub fn ready(&self) -> Result<()> {
        let pairs = self.source.tensors.iter().zip(&self.choices);
        for (tensor, choice) in pairs.filter(|(t, c)| t.stored != c.ty) {
            let name = &tensor.name;
            if tensor.stored.is_quantized() && !self.options.allow_requantize {
                return Err(Error::Usage(format!(
                    "tensor `{name}` is {} already; quantizing it again adds to its errors (allow it with --allow-requantize)",
                    tensor.stored
                )));
            }
            // The mix exempts the embedding and the head, the codecs of three types nothing.
            let needed = choice.needs_importance || blocks::needs_importance(choice.ty);
            if needed && self.importance(tensor).is_none() {
                let (ty, file_type) = (choice.ty, self.options.mix.file_type);
                return Err(Error::Usage(format!(
                    "tensor `{name}` as {ty} in {file_type} needs an importance matrix (--imatrix)"
                )));
            }
        }
        Ok(())
    }

    /// What [`run`](Self::run) would do.
    pub fn dry_run(&self) -> QuantizeReport {
        self.report(&[])
    }

    /// Quantizes and writes the file, on all threads of the current rayon pool, reading and writing meanwhile. The target is replaced only
    /// by a complete file. `observer` is called after every slab of rows and can end the run.
    ///
    /// # Errors
    /// What [`ready`](Self::ready) refuses; [`Error::Usage`] if `out` is a file of the source, or if `observer` ended the run; [`Error::Malformed`], naming the tensor, for a weight
    /// that is not finite or does not fit in the type; [`Error::Io`].
    pub fn run(
        self,
        out: impl AsRef<Path>,
        observer: &(dyn Fn(Progress<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<QuantizeReport> {
        let out = out.as_ref();
        self.ready()?;
        if self.source.reads(out) {
            return Err(Error::Usage(format!("{} would be overwritten by its own result", out.display())));
        }
        let started = Instant::now();
        let writer = GgufWriter::from_plan(out, self.file.clone()).map_err(|e| Error::gguf(out, e))?;
        let (writer, errors) = pipeline::run(&self, writer, out, observer)?;
        writer.finish().map_err(|e| Error::gguf(out, e))?;
        let mut report = self.report(&errors);
        report.out = Some(out.to_path_buf());
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn report(&self, errors: &[Option<ErrorMetrics>]) -> QuantizeReport {
        let mut report = QuantizeReport {
            out: None,
            bytes: self.file.file_len(),
            bits_per_weight: 0.0,
            seconds: 0.0,
            tensors: Vec::with_capacity(self.choices.len()),
            without_importance: Vec::new(),
        };
        let (mut bytes, mut elements) = (0u64, 0u64);
        for (i, (tensor, choice)) in self.source.tensors.iter().zip(&self.choices).enumerate() {
            let importance = choice.ty.is_quantized() && self.importance(tensor).is_some();
            if choice.ty.is_quantized() && choice.ty != tensor.stored && self.options.mix.has_importance && !importance
            {
                report.without_importance.push(tensor.name.clone());
            }
            let tensor_bytes = choice.ty.bytes_for(tensor.elements()).unwrap_or(0);
            bytes += tensor_bytes;
            elements += tensor.elements();
            report.tensors.push(TensorReport {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                source: tensor.stored,
                ty: choice.ty,
                reason: choice.reason.clone(),
                bytes: tensor_bytes,
                importance,
                errors: errors.get(i).copied().flatten().or(rounding_of(tensor, choice)),
            });
        }
        if elements > 0 {
            report.bits_per_weight = bytes as f64 * 8.0 / elements as f64;
        }
        report
    }
}

/// The source's keys, then the file's own, in llama-quantize's order.
fn metadata(source: &ModelSource, options: &QuantizeOptions) -> Metadata {
    let mut metadata = source.metadata.clone();
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    metadata.set("general.file_type", options.mix.file_type.id());
    if let Some(importance) = &options.importance {
        importance.write_keys(&mut metadata);
    }
    metadata
}

/// What bringing a packed module to blocks cost; of blocks that are not changed any more.
fn rounding_of(tensor: &SourceTensor, choice: &Choice) -> Option<ErrorMetrics> {
    match &tensor.place {
        Place::Packed { as_blocks: AsBlocks::Codes(rounding), .. } if choice.ty == tensor.stored => Some(*rounding),
        _ => None,
    }
}

fn importance_of<'o>(tensor: &SourceTensor, options: &'o QuantizeOptions) -> Option<&'o [f32]> {
    let values = options.importance.as_ref()?.values.get(&tensor.name)?;
    (values.len() as u64 == expected_importance(tensor)).then_some(values)
}

/// One value per column of each matrix.
fn expected_importance(tensor: &SourceTensor) -> u64 {
    tensor.row_len() * (tensor.rows() / tensor.rows_per_matrix().max(1))
}

fn check(tensor: &SourceTensor, choice: &Choice, options: &QuantizeOptions) -> Result<()> {
    if choice.ty == tensor.stored && options.folds.of_tensor(&tensor.name).is_none() {
        return Ok(());
    }
    let name = &tensor.name;
    if !blocks::can_dequantize(tensor.stored) {
        return Err(Error::Unsupported(format!("tensor `{name}`: reading values of {}", tensor.stored)));
    }
    if !blocks::can_quantize(choice.ty) {
        return Err(Error::Unsupported(format!("tensor `{name}`: quantizing to {}", choice.ty)));
    }
    let given = options.importance.as_ref().and_then(|i| i.values.get(name));
    if let Some(values) = given.filter(|_| choice.ty.is_quantized()) {
        let expected = expected_importance(tensor);
        // llama-quantize lets the embedding pass, whose entries some tools write with another width.
        if values.len() as u64 != expected && !name.ends_with("token_embd.weight") {
            let found = values.len();
            return Err(Error::Usage(format!("importance of `{name}`: expected {expected} values, found {found}")));
        }
    }
    Ok(())
}

impl QuantizePlan<'_> {
    /// Source types that a run would quantize again.
    pub fn requantizes(&self) -> impl Iterator<Item = GgmlType> {
        let pairs = self.source.tensors.iter().zip(&self.choices);
        pairs.filter(|(t, c)| t.stored.is_quantized() && t.stored != c.ty).map(|(t, _)| t.stored)
    }
}
