//! Weights where they lie: a place in the checkpoint's map, checked once, or in memory if the file's form is not one for products.

use super::config::Architecture;
use super::eight_bit::{EightBitWeights, ScaledRows};
use super::weight_memory::Part;
use crate::checkpoint::{EightBitLinear, GgufFile, HfDir, ModuleMatrix, PackedModules, hf_name};
use crate::fold::{Folds, Rotations, TensorRotation};
use crate::{Checkpoint, Error, ModelConfig, Result};
use gguf_format::{GgmlType, TensorInfo, blocks};
use quant_core::activation::{ActivationGrid, ActivationQuantizer};
use quant_core::rotation::Rotation;
use quant_kernels::{AffineWeights, Encoding, Int8Weights, Interleaved, Matrix, integers_are_quicker, is_integer};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

/// A weight matrix.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    place: Place,
    /// A copy for the products ([`Model::repack`](super::Model::repack)).
    packed: OnceLock<Part>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// How the model says that its input is rounded.
    pub(super) activations: Option<ActivationQuantizer>,
}

#[derive(Clone, Debug)]
enum Place {
    /// In the map of a file, which it keeps open.
    Gguf(Arc<GgufFile>, TensorInfo),
    Hf(Arc<HfDir>, (usize, usize), GgmlType),
    /// In memory, packed.
    Affine(Arc<AffineWeights>),
    /// Affine ones that are interleaved and nowhere else: their encoding, their columns there, and the input feature of each.
    Interleaved(Encoding, usize, Option<Arc<[u32]>>),
    /// In memory, one byte a weight.
    EightBit(Arc<EightBitWeights>),
    /// In memory, f32: what scales or rotations were folded into.
    Dense(Arc<Vec<f32>>),
}

impl Weight {
    /// For the kernels, but without the scales of `row_scales`. The columns of affine weights are those that `gather` lists. `None` for `int8` and for
    /// what is interleaved only.
    pub(super) fn matrix(&self) -> Option<Matrix<'_>> {
        let matrix = self.own_matrix()?;
        // A copy of the same bytes is read more quickly.
        let copy = self.packed.get().filter(|_| !interleaves(matrix.ty)).map(Part::bytes);
        Some(Matrix { data: copy.unwrap_or(matrix.data), ..matrix })
    }

    /// Where the weight came from.
    fn own_matrix(&self) -> Option<Matrix<'_>> {
        let (ty, data) = match &self.place {
            Place::Gguf(file, info) => (info.ggml_type(), file.gguf.data(info)),
            Place::Hf(dir, place, ty) => (*ty, dir.data_at(*place)),
            Place::Affine(weights) => return Some(weights.matrix()),
            Place::Interleaved(..) => return None,
            Place::EightBit(_) => return self.scaled().map(ScaledRows::matrix),
            Place::Dense(values) => (GgmlType::F32, bytemuck::cast_slice(values)),
        };
        Some(Matrix { ty: ty.into(), rows: self.rows, cols: self.cols, data })
    }

    /// For integer products, with 16 rows side by side; columns as those of `matrix`.
    pub(super) fn interleaved(&self) -> Option<Interleaved<'_>> {
        let part = self.packed.get()?;
        let (ty, cols) = match &self.place {
            Place::Interleaved(ty, cols, _) => (*ty, *cols),
            _ => self.own_matrix().map(|m| (m.ty, m.cols)).filter(|(ty, _)| interleaves(*ty))?,
        };
        Interleaved::new(ty, self.rows, cols, part.bytes()).ok()
    }

    /// True if integer products have it with 16 rows side by side, now or once it is moved.
    pub(super) fn interleaves(&self) -> bool {
        match &self.place {
            Place::Interleaved(..) => true,
            _ => self.own_matrix().is_some_and(|matrix| interleaves(matrix.ty)),
        }
    }

    /// True if it was made for this model, and is not in the map of a file.
    pub(super) fn is_made(&self) -> bool {
        !matches!(self.place, Place::Gguf(..) | Place::Hf(..))
    }

    /// Bytes of a copy for the products; `None` if there is one already, or no better place for it than its own.
    pub(super) fn packed_bytes(&self) -> Option<usize> {
        let matrix = self.own_matrix().filter(|_| self.packed.get().is_none())?;
        let interleaved = interleaves(matrix.ty).then(|| Interleaved::bytes(matrix.ty, matrix.rows, matrix.cols));
        match (&self.place, interleaved.flatten()) {
            (Place::Gguf(..) | Place::Hf(..) | Place::Affine(_), Some(bytes)) => Some(bytes),
            (Place::Gguf(..) | Place::Hf(..), None) => Some(matrix.data.len()),
            _ => None,
        }
    }

    /// Writes the copy, of `packed_bytes`. Pages of a file are let go as soon as they are copied: who still reads them gets them again.
    pub(super) fn pack(&self, bytes: &mut [u8]) -> Result<()> {
        let Some(matrix) = self.own_matrix() else { return Ok(()) };
        let interleaves = interleaves(matrix.ty);
        let row = matrix.data.len() / matrix.rows.max(1);
        let rows = (PIECE / row.max(1)).max(1).next_multiple_of(Interleaved::ROWS);
        let packed = match interleaves {
            true => bytes.len() / matrix.rows.div_ceil(Interleaved::ROWS).max(1) * (rows / Interleaved::ROWS),
            false => rows * row,
        };
        for (data, bytes) in matrix.data.chunks((rows * row).max(1)).zip(bytes.chunks_mut(packed.max(1))) {
            if interleaves {
                Interleaved::pack(&Matrix { rows: data.len() / row, data, ..matrix }, bytes)?;
            } else {
                bytes.par_chunks_mut(CHUNK).zip(data.par_chunks(CHUNK)).for_each(|(to, from)| to.copy_from_slice(from));
            }
            match &self.place {
                Place::Gguf(file, _) => file.release(data),
                Place::Hf(dir, ..) => dir.release(data),
                _ => {}
            }
        }
        Ok(())
    }

    /// Products read the copy from now on.
    pub(super) fn set_packed(&self, part: Part) {
        // Set only once: `packed_bytes` says so.
        let _ = self.packed.set(part);
    }

    /// Keeps nothing but the copy, where there is one of what is in no file.
    pub(super) fn drop_source(&mut self) {
        let Place::Affine(weights) = &self.place else { return };
        if self.packed.get().is_some() {
            let matrix = weights.matrix();
            self.place = Place::Interleaved(matrix.ty, matrix.cols, weights.gather().map(Arc::from));
        }
    }

    /// For integer products.
    pub(super) fn int8(&self) -> Option<&Int8Weights> {
        match &self.place {
            Place::EightBit(weights) => match &**weights {
                EightBitWeights::Int8(weights) => Some(weights),
                EightBitWeights::Scaled(_) => None,
            },
            _ => None,
        }
    }

    fn scaled(&self) -> Option<&ScaledRows> {
        match &self.place {
            Place::EightBit(weights) => match &**weights {
                EightBitWeights::Scaled(rows) => Some(rows),
                EightBitWeights::Int8(_) => None,
            },
            _ => None,
        }
    }

    /// What the rows of a product with `matrix` are to be multiplied by.
    pub(super) fn row_scales(&self) -> Option<&[f32]> {
        self.scaled().map(|rows| rows.scales.as_slice())
    }

    /// What a product reads.
    pub(super) fn bytes(&self) -> &[u8] {
        if let Some(part) = self.packed.get() {
            return part.bytes();
        }
        self.matrix().map(|m| m.data).or_else(|| self.int8().map(Int8Weights::data)).unwrap_or_default()
    }

    /// The input feature of each column of `matrix`, where they are not in order.
    pub(super) fn gather(&self) -> Option<&[u32]> {
        match &self.place {
            Place::Affine(weights) => weights.gather(),
            Place::Interleaved(_, _, gather) => gather.as_deref(),
            _ => self.scaled().and_then(ScaledRows::gather),
        }
    }

    /// One row as f32.
    pub(super) fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        match (&self.place, self.matrix()) {
            (Place::Affine(weights), _) => weights.row(row, dst)?,
            (Place::EightBit(weights), _) => match &**weights {
                EightBitWeights::Int8(weights) => weights.row(row, dst)?,
                EightBitWeights::Scaled(rows) => rows.row(row, dst)?,
            },
            (Place::Interleaved(_, cols, gather), _) => {
                let Some(weights) = self.interleaved() else { return Ok(()) };
                let Some(gather) = gather else { return Ok(weights.row(row, dst)?) };
                let mut values = vec![0.0; *cols];
                weights.row(row, &mut values)?;
                for (&value, &feature) in values.iter().zip(gather.iter()) {
                    if let Some(dst) = dst.get_mut(feature as usize) {
                        *dst = value;
                    }
                }
            }
            (_, Some(matrix)) => matrix.row(row, dst)?,
            (_, None) => {}
        }
        Ok(())
    }
}

/// True if weights of this encoding are interleaved on this machine.
fn interleaves(encoding: Encoding) -> bool {
    is_integer(encoding) && integers_are_quicker()
}

/// Bytes that one thread copies at a time.
const CHUNK: usize = 2 << 20;

/// Bytes, about, that are copied before they are let go: of these there are two copies.
const PIECE: usize = 32 << 20;

/// Reads the tensors of a checkpoint with the shapes that the configuration gives them.
pub(super) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    /// The quantized modules of a directory.
    packed: Option<PackedModules<'a>>,
    folds: Folds,
    rotations: Rotations,
}

impl<'a> Loader<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, config: &'a ModelConfig) -> Result<Self> {
        let packed = match checkpoint {
            Checkpoint::Gguf(_) => None,
            Checkpoint::HfDir(dir) => dir.packed()?,
        };
        Ok(Self { checkpoint, config, packed, folds: Folds::new(), rotations: Rotations::none() })
    }

    /// Everything that is loaded from now on has these scales folded in.
    pub(super) fn set_folds(&mut self, folds: Folds) {
        self.folds = folds;
    }

    /// Everything that is loaded from now on is of the rotated model; scales are folded in after.
    pub(super) fn set_rotations(&mut self, rotations: Rotations) {
        self.rotations = rotations;
    }

    pub(super) fn rotations(&self) -> &Rotations {
        &self.rotations
    }

    /// The rotation of what a linear layer reads, while the model runs: one that the checkpoint asks for, or of the rotated model.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there are two, or one of an input other than down's.
    pub(super) fn input_rotation(&self, gguf_name: &str, cols: usize) -> Result<Option<Rotation>> {
        let is_down = gguf_name.ends_with(".ffn_down.weight");
        let own = self.rotations.down().filter(|_| is_down);
        let module = hf_name(gguf_name).and_then(|name| name.strip_suffix(".weight").map(str::to_owned));
        let stored = match (&self.packed, module) {
            (Some(packed), Some(module)) => packed.input_rotation(&module, cols)?,
            _ => None,
        };
        let unsupported = |what: &str| {
            let (path, name) = (self.checkpoint.path().display(), self.checkpoint.own_name(gguf_name));
            Err(Error::Unsupported(format!("{path}: {what} of what `{name}` reads")))
        };
        match (own, stored) {
            (Some(_), Some(_)) => unsupported("a second rotation"),
            (None, Some(_)) if !is_down => unsupported("a rotation"),
            (own, stored) => Ok(own.or(stored)),
        }
    }

    /// The matrix that the head is read from.
    pub(super) fn head_name(&self) -> &'static str {
        if self.config.tied && !self.rotations.unties() { "token_embd.weight" } else { "output.weight" }
    }

    /// The module of a weight, where it is a quantized one.
    fn packed_module(&self, gguf_name: &str) -> Option<(&PackedModules<'a>, String)> {
        let packed = self.packed.as_ref()?;
        let module = hf_name(gguf_name)?.strip_suffix(".weight")?.to_owned();
        packed.has(&module).then_some((packed, module))
    }

    /// Checks that the checkpoint holds every tensor of the model in its shape, and none that the model would have to use but does not know.
    pub(super) fn check_tensors(&self) -> Result<()> {
        let mut known = HashSet::new();
        for (name, shape, optional) in self.config.expected_tensors() {
            if let Some((packed, module)) = self.packed_module(&name) {
                if let Some(found) = packed.shape(&module)? {
                    self.check_shape(&name, &shape, &found)?;
                }
                known.extend(packed.tensors_of(&module));
                continue;
            }
            match self.checkpoint.tensor(&name)? {
                Some(view) => self.check_shape(&name, &shape, &view.shape)?,
                None if optional => {}
                None => return Err(self.missing(&name)),
            }
            known.insert(self.checkpoint.own_name(&name));
        }
        for name in self.checkpoint.own_names() {
            let harmless = name == "rope_freqs.weight"
                || name.ends_with("rotary_emb.inv_freq")
                || name.ends_with("attn_rot_embd.weight")
                || (self.config.tied && name == "lm_head.weight");
            if !known.contains(name) && !harmless {
                let architecture = match self.config.architecture {
                    Architecture::Llama => "Llama",
                    Architecture::Mistral => "Mistral",
                    Architecture::Qwen2 => "Qwen2",
                    Architecture::Qwen3 => "Qwen3",
                };
                let path = self.checkpoint.path().display();
                return Err(Error::Unsupported(format!("{path}: tensor `{name}`, which {architecture} does not have")));
            }
        }
        Ok(())
    }

    /// A weight matrix.
    pub(super) fn matrix(&self, gguf_name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let tied = gguf_name == "output.weight" && self.config.tied;
        let weight = self.stored_matrix(if tied { "token_embd.weight" } else { gguf_name }, rows, cols)?;
        let fold = self.folds.of_tensor(gguf_name);
        if fold.is_none() && self.rotations.of_matrix(gguf_name).is_none() {
            return Ok(weight);
        }
        if weight.activations.is_some() {
            let (name, what) =
                (self.checkpoint.own_name(gguf_name), if fold.is_some() { "scales" } else { "rotations" });
            return Err(Error::Unsupported(format!("{what} folded into `{name}`, whose input is quantized")));
        }
        let mut values = vec![0.0; rows * cols];
        for (row, values) in values.chunks_exact_mut(cols.max(1)).enumerate() {
            weight.row(row, values)?;
        }
        if let Some((rotation, norm)) = self.transform(gguf_name, cols)? {
            rotation.apply(cols, norm.as_deref(), &mut values);
        }
        if let Some(fold) = fold {
            fold.apply(0, cols, &mut values);
        }
        Ok(Weight { place: Place::Dense(Arc::new(values)), packed: OnceLock::new(), rows, cols, activations: None })
    }

    /// What rotations do to a matrix, and the weight of the norm that goes into it.
    pub(super) fn transform(&self, gguf_name: &str, cols: usize) -> Result<Option<(TensorRotation, Option<Vec<f32>>)>> {
        let Some(rotation) = self.rotations.of_matrix(gguf_name) else { return Ok(None) };
        let norm = rotation.norm.as_ref().map(|norm| self.stored_vector(norm, cols)?.ok_or_else(|| self.missing(norm)));
        let norm = norm.transpose()?;
        Ok(Some((rotation, norm)))
    }

    /// A weight matrix as the checkpoint has it.
    pub(super) fn stored_matrix(&self, gguf_name: &str, rows: usize, cols: usize) -> Result<Weight> {
        if let Some((packed, module)) = self.packed_module(gguf_name)
            && let Some(matrix) = packed.matrix(&module)?
        {
            self.check_shape(gguf_name, &[rows, cols], &matrix.shape())?;
            let activations = packed.activations(&module)?;
            // What was read is in `matrix`: one copy is enough.
            if let Checkpoint::HfDir(dir) = self.checkpoint {
                packed
                    .tensors_of(&module)
                    .filter_map(|name| dir.locate(&name))
                    .for_each(|at| dir.release(dir.data_at(at)));
            }
            let place = match matrix {
                ModuleMatrix::Affine(matrix) => Place::Affine(Arc::new(AffineWeights::pack(&matrix)?)),
                ModuleMatrix::EightBit(EightBitLinear { matrix, .. }) => {
                    let integers = activations.is_some_and(|a| matches!(a.grid, ActivationGrid::Int8 { .. }));
                    Place::EightBit(Arc::new(EightBitWeights::new(matrix, integers)?))
                }
            };
            return Ok(Weight { place, packed: OnceLock::new(), rows, cols, activations });
        }
        let view = self.checkpoint.tensor(gguf_name)?.ok_or_else(|| self.missing(gguf_name))?;
        self.check_shape(gguf_name, &[rows, cols], &view.shape)?;
        if !quant_kernels::is_supported(view.ty) {
            let path = self.checkpoint.path().display();
            let name = self.checkpoint.own_name(gguf_name);
            return Err(Error::Unsupported(format!("{path}: tensor `{name}` of type {}", view.ty)));
        }
        self.check_bytes(gguf_name, view.ty, rows * cols, view.data.len())?;
        let place = match self.checkpoint {
            Checkpoint::Gguf(file) => file.gguf.tensor(gguf_name).map(|info| Place::Gguf(file.clone(), info.clone())),
            Checkpoint::HfDir(dir) => {
                hf_name(gguf_name).and_then(|name| dir.locate(&name)).map(|at| Place::Hf(dir.clone(), at, view.ty))
            }
        };
        let place = place.ok_or_else(|| self.missing(gguf_name))?;
        Ok(Weight { place, packed: OnceLock::new(), rows, cols, activations: None })
    }

    /// The type that the checkpoint holds a tensor in.
    pub(super) fn stored_type(&self, gguf_name: &str) -> Result<Option<GgmlType>> {
        Ok(self.checkpoint.tensor(gguf_name)?.map(|view| view.ty))
    }

    /// A vector as f32.
    pub(super) fn vector(&self, gguf_name: &str, len: usize) -> Result<Vec<f32>> {
        self.optional_vector(gguf_name, len)?.ok_or_else(|| self.missing(gguf_name))
    }

    /// A vector as f32, if it is there.
    pub(super) fn optional_vector(&self, gguf_name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(mut values) = self.stored_vector(gguf_name, len)? else { return Ok(None) };
        self.rotations.apply_to_vector(gguf_name, &mut values);
        if let Some(fold) = self.folds.of_tensor(gguf_name) {
            fold.apply(0, 1, &mut values);
        }
        Ok(Some(values))
    }

    /// A vector as the checkpoint has it.
    fn stored_vector(&self, gguf_name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.checkpoint.tensor(gguf_name)? else { return Ok(None) };
        self.check_shape(gguf_name, &[len], &view.shape)?;
        self.check_bytes(gguf_name, view.ty, len, view.data.len())?;
        let mut values = vec![0.0; len];
        blocks::dequantize(view.ty, view.data, &mut values).map_err(|e| {
            Error::malformed(self.checkpoint.path(), self.what(gguf_name), "values that can be read", e.to_string())
        })?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let found = format!("{} at index {i}", values[i]);
            return Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), "finite values", found));
        }
        Ok(Some(values))
    }

    fn what(&self, gguf_name: &str) -> String {
        format!("tensor `{}`", self.checkpoint.own_name(gguf_name))
    }

    fn missing(&self, gguf_name: &str) -> Error {
        Error::malformed(self.checkpoint.path(), self.what(gguf_name), "the tensor", "nothing")
    }

    fn check_shape(&self, gguf_name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        let (expected, found) = (format!("shape {expected:?}"), format!("{found:?}"));
        Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), expected, found))
    }

    fn check_bytes(&self, gguf_name: &str, ty: GgmlType, values: usize, found: usize) -> Result<()> {
        match ty.bytes_for(values as u64) {
            Some(bytes) if bytes == found as u64 => Ok(()),
            bytes => {
                let expected = bytes.map_or(format!("whole blocks of {ty}"), |b| format!("{b} bytes of {ty}"));
                Err(Error::malformed(self.checkpoint.path(), self.what(gguf_name), expected, format!("{found} bytes")))
            }
        }
    }
}
