//! The steps of a layer as operations on candle tensors: own kernels on the CPU, candle's elsewhere.

use super::Activations;
use super::weights::Weight;
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Module, Shape, Storage, Tensor};
use gguf_format::{GgmlType, blocks};
use quant_core::activation::ActivationQuantizer;
use quant_core::rotation::Rotation;
use quant_kernels::{
    ActivationGrid, Encoding, Int8Activations, Interleaved, Matrix, gather, matmul, matmul_int8, matmul_interleaved,
    matmul_rounded, rms_norm_in_place,
};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Candle's error for one of ours.
fn candle_error(e: impl std::error::Error + Send + Sync + 'static) -> candle_core::Error {
    candle_core::Error::wrap(e)
}

/// The f32 values of a contiguous CPU tensor.
fn cpu_values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { candle_core::bail!("expected f32 values") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, found {layout:?}"),
    }
}

/// `x += y`.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Calls `f` with the values of a contiguous f32 CPU tensor.
pub(super) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(cpu_values(storage, layout)?),
        _ => Err(candle_core::Error::Msg("expected a tensor on the CPU".into()).into()),
    }
}

/// Where the operations run.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) device: Device,
    /// Own kernels. Without them the CPU runs candle's, as other devices do; only tests ask for that.
    pub(super) own_kernels: bool,
    pub(super) activations: Activations,
    /// Own kernels multiply integers where they can.
    pub(super) integer_products: bool,
}

impl Backend {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            own_kernels: device.is_cpu(),
            activations: Activations::default(),
            integer_products: false,
        }
    }
}

/// Linear layers that read the same input, one below the other: `y = [W_0 x + b_0, W_1 x + b_1, ...]`.
#[derive(Debug)]
pub(super) struct Linear {
    weights: Weights,
    bias: Option<Bias>,
    out_features: usize,
}

#[derive(Debug)]
enum Weights {
    /// For the own kernels. Each range reads the activations in one order, rounded alike, and multiplies them by one kernel.
    Own(Vec<Weight>, Vec<Range<usize>>),
    /// On the device, and how the model says that the input of each is rounded.
    Candle(Vec<(QMatMul, Option<ActivationQuantizer>)>),
}

#[derive(Debug)]
struct Bias {
    values: Vec<f32>,
    tensor: Tensor,
}

impl Linear {
    /// `biases[i]` belongs to `weights[i]`.
    pub(super) fn new(backend: &Backend, weights: Vec<Weight>, biases: &[Option<Vec<f32>>]) -> Result<Self> {
        assert!(weights.len() <= MOST, "q, k and v are the most that read one input");
        let out_features = weights.iter().map(|w| w.rows).sum();
        let bias = if biases.iter().any(Option::is_some) {
            let parts = weights.iter().zip(biases).map(|(w, b)| b.clone().unwrap_or_else(|| vec![0.0; w.rows]));
            let values = parts.collect::<Vec<_>>().concat();
            let tensor = Tensor::from_slice(&values, out_features, &backend.device)?;
            Some(Bias { values, tensor })
        } else {
            None
        };
        let weights = if backend.own_kernels {
            let runs = alike(&weights);
            Weights::Own(weights, runs)
        } else {
            let matmul = |w: &Weight| Ok((candle_matmul(w, &backend.device)?, w.activations));
            Weights::Candle(weights.iter().map(matmul).collect::<Result<_>>()?)
        };
        Ok(Self { weights, bias, out_features })
    }

    /// The weights, where the own kernels read them.
    pub(super) fn own_weights(&self) -> &[Weight] {
        match &self.weights {
            Weights::Own(weights, _) => weights,
            Weights::Candle(_) => &[],
        }
    }

    pub(super) fn own_weights_mut(&mut self) -> &mut [Weight] {
        match &mut self.weights {
            Weights::Own(weights, _) => weights,
            Weights::Candle(_) => &mut [],
        }
    }

    fn packed<'a>(&'a self, backend: &Backend, weights: &'a [Weight], runs: &'a [Range<usize>]) -> PackedProduct<'a> {
        let bias = self.bias.as_ref().map(|b| b.values.as_slice());
        let (out_features, activations) = (self.out_features, backend.activations);
        // What ggml's products see is multiplied exactly.
        let integers = backend.integer_products && activations != Activations::Ggml;
        PackedProduct { weights, runs, bias, out_features, activations, integers }
    }

    /// With the own kernels: `x`, `[tokens, in_features]`, to `y`, which becomes `[tokens, out_features]`.
    pub(super) fn forward_values(
        &self,
        backend: &Backend,
        x: &[f32],
        tokens: usize,
        y: &mut Vec<f32>,
        memory: &mut ProductMemory,
    ) -> Result<()> {
        let Weights::Own(weights, runs) = &self.weights else {
            return Err(Error::Unsupported("own kernels on this device".into()));
        };
        y.resize(tokens * self.out_features, 0.0);
        Ok(self.packed(backend, weights, runs).product(x, tokens, y, memory)?)
    }

    /// `x`: `[tokens, in_features]` f32, to `[tokens, out_features]`.
    pub(super) fn forward(&self, backend: &Backend, x: &Tensor) -> Result<Tensor> {
        match &self.weights {
            Weights::Own(weights, runs) => Ok(x.apply_op1_no_bwd(&self.packed(backend, weights, runs))?),
            Weights::Candle(weights) => {
                let mut parts = Vec::with_capacity(weights.len());
                let mut rounded: Option<(ActivationQuantizer, Tensor)> = None;
                for (weight, quantizer) in weights {
                    let Some(quantizer) = quantizer.filter(|_| backend.activations == Activations::Model) else {
                        parts.push(weight.forward(x)?);
                        continue;
                    };
                    if rounded.as_ref().is_none_or(|(of, _)| *of != quantizer) {
                        rounded = Some((quantizer, round_tensor(x, &quantizer)?));
                    }
                    let x = rounded.as_ref().map_or(x, |(_, rounded)| rounded);
                    parts.push(weight.forward(x)?);
                }
                let y = if let [one] = parts.as_slice() { one.clone() } else { Tensor::cat(&parts, 1)? };
                Ok(match &self.bias {
                    Some(bias) => y.broadcast_add(&bias.tensor)?,
                    None => y,
                })
            }
        }
    }
}

/// Runs of weights that are alike.
fn alike(weights: &[Weight]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, weight) in weights.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if is_alike(&weights[run.start], weight) => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// Whether two weights read the same activations by the same kernel.
fn is_alike(a: &Weight, b: &Weight) -> bool {
    a.gather() == b.gather()
        && a.activations == b.activations
        && a.int8().is_some() == b.int8().is_some()
        && a.interleaves() == b.interleaves()
}

/// Rounds activations, `[tokens, features]`, on the CPU, wherever they are: one rounding for all devices.
fn round_tensor(x: &Tensor, quantizer: &ActivationQuantizer) -> Result<Tensor> {
    let (tokens, columns) = x.dims2()?;
    let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
    quantizer.round(&mut values, columns).map_err(candle_error)?;
    Ok(Tensor::from_vec(values, (tokens, columns), x.device())?)
}

/// Linears that read one input: q, k and v at most.
const MOST: usize = 3;

/// Calls `f` with something of each weight, if all have it.
fn with_each<'a, T: Copy, R>(
    weights: &'a [Weight],
    of: impl Fn(&'a Weight) -> Option<T>,
    f: impl FnOnce(&[T]) -> R,
) -> Option<R> {
    let mut all = [of(weights.first()?)?; MOST];
    let all = all.get_mut(..weights.len())?;
    for (slot, weight) in all.iter_mut().zip(weights) {
        *slot = of(weight)?;
    }
    Some(f(all))
}

/// What products keep from one to the next, so that they need not ask for memory.
#[derive(Debug, Default)]
pub(super) struct ProductMemory {
    /// Results of some of the weights.
    part: Vec<f32>,
    /// Activations rounded, gathered.
    rounded: Vec<f32>,
    gathered: Vec<f32>,
}

/// The product with the own kernels, as an operation of candle's.
struct PackedProduct<'a> {
    weights: &'a [Weight],
    runs: &'a [Range<usize>],
    bias: Option<&'a [f32]>,
    out_features: usize,
    activations: Activations,
    integers: bool,
}

impl PackedProduct<'_> {
    /// `y = [w_0 g_0(x), w_1 g_1(x), ...]` plus the bias, where `g_i` gathers the columns as `w_i` has them and rounds them to the grid that belongs to its type, or that
    /// the model says.
    fn product(
        &self,
        x: &[f32],
        tokens: usize,
        y: &mut [f32],
        memory: &mut ProductMemory,
    ) -> quant_kernels::Result<()> {
        let one_by_one: Vec<Range<usize>>;
        let runs = match self.activations {
            Activations::Ggml => {
                one_by_one = (0..self.weights.len()).map(|i| i..i + 1).collect();
                &one_by_one
            }
            _ => self.runs,
        };
        let mut first = 0;
        let mut part = std::mem::take(&mut memory.part);
        for run in runs {
            let weights = &self.weights[run.clone()];
            let rows: usize = weights.iter().map(|w| w.rows).sum();
            if let [_] = runs {
                self.run(weights, x, tokens, y, memory)?;
                break;
            }
            part.resize(tokens * rows, 0.0);
            self.run(weights, x, tokens, &mut part, memory)?;
            for (y, part) in y.chunks_exact_mut(self.out_features).zip(part.chunks_exact(rows.max(1))) {
                y[first..first + rows].copy_from_slice(part);
            }
            first += rows;
        }
        memory.part = part;
        if let Some(bias) = self.bias {
            y.chunks_exact_mut(self.out_features).for_each(|row| add(row, bias));
        }
        Ok(())
    }

    /// The product with weights that are alike.
    fn run(
        &self,
        weights: &[Weight],
        x: &[f32],
        tokens: usize,
        y: &mut [f32],
        memory: &mut ProductMemory,
    ) -> quant_kernels::Result<()> {
        let Some(head) = weights.first() else { return Ok(()) };
        let cols = x.len() / tokens.max(1);
        let quantizer = head.activations.filter(|_| self.activations == Activations::Model);
        if let Some(quantizer) = quantizer
            && head.int8().is_some()
        {
            let codes = int8_codes(&quantizer, x, cols)?;
            return with_each(weights, Weight::int8, |weights| matmul_int8(&codes, weights, y)).unwrap_or(Ok(()));
        }
        let as_ggml: Vec<f32>;
        let mut x = x;
        if let Some(quantizer) = quantizer {
            memory.rounded.clear();
            memory.rounded.extend_from_slice(x);
            quantizer.round(&mut memory.rounded, cols).map_err(not_rows)?;
            x = &memory.rounded;
        }
        if let Some(map) = head.gather() {
            memory.gathered.resize(tokens * map.len(), 0.0);
            gather(x, cols, map, &mut memory.gathered)?;
            x = &memory.gathered;
        }
        if let (Activations::Ggml, Some(Matrix { ty: Encoding::Ggml(ty), .. })) = (self.activations, head.matrix()) {
            let mut values = x.to_vec();
            ActivationGrid::of(ty).unwrap_or(ActivationGrid::F32).round(&mut values, cols)?;
            as_ggml = values;
            x = &as_ggml;
        }
        let integers = self.integers && quantizer.is_none();
        // While weights are being moved some may be, and some not yet: then all are read from the file.
        let interleaved = |weights: &[Interleaved<'_>]| matmul_interleaved(x, tokens, weights, y);
        if let Some(done) = with_each(weights, |w| w.interleaved().filter(|_| integers), interleaved) {
            return done;
        }
        let product = if integers { matmul_rounded } else { matmul };
        match with_each(weights, Weight::matrix, |weights| product(x, tokens, weights, y)) {
            Some(done) => done?,
            None => return unpacked_product(x, tokens, weights, y),
        }
        if weights.iter().any(|w| w.row_scales().is_some()) {
            for y in y.chunks_exact_mut(weights.iter().map(|w| w.rows).sum::<usize>().max(1)) {
                let mut first = 0;
                for weight in weights {
                    let y = &mut y[first..][..weight.rows];
                    if let Some(scales) = weight.row_scales() {
                        y.iter_mut().zip(scales).for_each(|(y, scale)| *y *= scale);
                    }
                    first += weight.rows;
                }
            }
        }
        Ok(())
    }
}

/// The product in f32 with weights whose layout is for integers alone.
fn unpacked_product(x: &[f32], tokens: usize, weights: &[Weight], y: &mut [f32]) -> quant_kernels::Result<()> {
    let cols = x.len() / tokens.max(1);
    let rows: usize = weights.iter().map(|w| w.rows).sum();
    let mut values = vec![0.0f32; rows * cols];
    let mut rest = values.as_mut_slice();
    for weight in weights {
        let (here, others) = std::mem::take(&mut rest).split_at_mut(weight.rows * cols);
        match (weight.int8(), weight.interleaved()) {
            (Some(int8), _) => {
                here.chunks_exact_mut(cols.max(1)).enumerate().try_for_each(|(row, dst)| int8.row(row, dst))?;
            }
            (None, Some(weights)) => weights.dequantize(here)?,
            (None, None) => {}
        }
        rest = others;
    }
    matmul(x, tokens, &[Matrix::new(GgmlType::F32, rows, cols, bytemuck::cast_slice(&values))?], y)
}

/// Activations as the integer products take them.
fn int8_codes(quantizer: &ActivationQuantizer, x: &[f32], cols: usize) -> quant_kernels::Result<Int8Activations> {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    quantizer.codes(x, cols, &mut codes, &mut scales).map_err(not_rows)?;
    let zeros: Vec<i32> = scales.iter().map(|s| i32::from(s.zero)).collect();
    let scales: Vec<f32> = scales.iter().map(|s| s.scale).collect();
    Int8Activations::from_codes(&codes, cols, &scales, &zeros)
}

fn not_rows(e: quant_core::activation::ActivationError) -> quant_kernels::Error {
    let expected = format!("whole rows of {}", e.columns);
    quant_kernels::Error::Shape { what: "activations", expected, found: e.values }
}

impl CustomOp1 for PackedProduct<'_> {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (tokens, _) = layout.shape().dims2()?;
        let x = cpu_values(storage, layout)?;
        let mut y = vec![0.0; tokens * self.out_features];
        self.product(x, tokens, &mut y, &mut ProductMemory::default()).map_err(candle_error)?;
        Ok((CpuStorage::F32(y), (tokens, self.out_features).into()))
    }
}

/// Weights for candle's own product: packed where candle has the type, else as f32.
fn candle_matmul(weight: &Weight, device: &Device) -> Result<QMatMul> {
    let shape = (weight.rows, weight.cols);
    let Some(Matrix { ty: Encoding::Ggml(ty), data, .. }) = weight.matrix() else {
        // No kernel of candle's for these: as f32.
        let mut values = vec![0.0; weight.rows * weight.cols];
        for (row, values) in values.chunks_exact_mut(weight.cols).enumerate() {
            weight.row(row, values)?;
        }
        return Ok(QMatMul::Tensor(Tensor::from_vec(values, shape, device)?));
    };
    let dtype = match ty {
        GgmlType::Q4_0 => Some(GgmlDType::Q4_0),
        GgmlType::Q4_1 => Some(GgmlDType::Q4_1),
        GgmlType::Q5_0 => Some(GgmlDType::Q5_0),
        GgmlType::Q5_1 => Some(GgmlDType::Q5_1),
        GgmlType::Q8_0 => Some(GgmlDType::Q8_0),
        GgmlType::Q2_K => Some(GgmlDType::Q2K),
        GgmlType::Q3_K => Some(GgmlDType::Q3K),
        GgmlType::Q4_K => Some(GgmlDType::Q4K),
        GgmlType::Q5_K => Some(GgmlDType::Q5K),
        GgmlType::Q6_K => Some(GgmlDType::Q6K),
        _ => None,
    };
    // On the CPU candle rounds activations to 8 bits for packed types; this branch is for other devices and for exact comparisons.
    if let Some(dtype) = dtype.filter(|_| !device.is_cpu()) {
        // Copied to where f32 may lie: candle requires the alignment of its block structs, which a map does not promise.
        let mut aligned = vec![0.0f32; data.len().div_ceil(4)];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
        bytes[..data.len()].copy_from_slice(data);
        let storage = QStorage::from_data(Cow::Borrowed(&bytes[..data.len()]), device, dtype)?;
        return Ok(QMatMul::from_arc(Arc::new(QTensor::new(storage, shape)?))?);
    }
    let mut values = vec![0.0; weight.rows * weight.cols];
    blocks::dequantize(ty, data, &mut values).map_err(candle_error)?;
    Ok(QMatMul::Tensor(Tensor::from_vec(values, shape, device)?))
}

/// The weight of an RMS norm.
#[derive(Debug)]
pub(super) struct Norm {
    values: Vec<f32>,
    tensor: Tensor,
    eps: f32,
    own_kernels: bool,
}

impl Norm {
    pub(super) fn new(backend: &Backend, values: Vec<f32>, eps: f32) -> Result<Self> {
        let tensor = Tensor::from_slice(&values, values.len(), &backend.device)?;
        Ok(Self { values, tensor, eps, own_kernels: backend.own_kernels })
    }

    /// Norms the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.own_kernels {
            return Ok(x.apply_op1_no_bwd(self)?);
        }
        Ok(candle_nn::ops::rms_norm(&x.contiguous()?, &self.tensor, self.eps)?)
    }

    /// Norms each row of `x`, with the own kernel, to `y`, which becomes as long.
    pub(super) fn forward_values(&self, x: &[f32], y: &mut Vec<f32>) -> Result<()> {
        y.resize(x.len(), 0.0);
        Ok(quant_kernels::rms_norm(x, &self.values, self.eps, y)?)
    }

    /// Norms each row of `x` in place.
    pub(super) fn in_place(&self, x: &mut [f32]) -> Result<()> {
        Ok(rms_norm_in_place(x, &self.values, self.eps)?)
    }
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = cpu_values(storage, layout)?;
        let mut y = vec![0.0; x.len()];
        quant_kernels::rms_norm(x, &self.values, self.eps, &mut y).map_err(candle_error)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

/// `silu(gate) * up` of `[tokens, 2 n]`, gate beside up.
pub(super) fn gated_silu(backend: &Backend, gate_up: &Tensor) -> Result<Tensor> {
    if backend.own_kernels {
        return Ok(gate_up.apply_op1_no_bwd(&GatedSilu)?);
    }
    Ok(candle_nn::ops::swiglu(gate_up)?)
}

/// Every row rotated. Candle has no such operation: on other devices a matrix of one block does it.
pub(super) fn rotated(x: &Tensor, rotation: Rotation) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x.apply_op1_no_bwd(&RotateRows(rotation))?);
    }
    let (tokens, width) = x.dims2()?;
    let block = rotation.block();
    let mut matrix = vec![0.0; block * block];
    (0..block).for_each(|i| matrix[i * block + i] = 1.0);
    Rotation::new(block, block).apply_to_rows(&mut matrix);
    let matrix = Tensor::from_vec(matrix, (block, block), x.device())?;
    Ok(x.reshape((tokens * width / block, block))?.matmul(&matrix)?.reshape((tokens, width))?)
}

struct RotateRows(Rotation);

impl CustomOp1 for RotateRows {
    fn name(&self) -> &'static str {
        "rotate-rows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut y = cpu_values(storage, layout)?.to_vec();
        self.0.apply_to_rows(&mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

struct GatedSilu;

impl CustomOp1 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated-silu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let x = cpu_values(storage, layout)?;
        let mut y = vec![0.0; tokens * (width / 2)];
        quant_kernels::silu_mul(x, width / 2, &mut y).map_err(candle_error)?;
        Ok((CpuStorage::F32(y), (tokens, width / 2).into()))
    }
}
