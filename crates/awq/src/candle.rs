//! Tensors in and out, for programs built on candle (feature `candle`).
//!
//! Everything is computed on the CPU in f32; tensors on other devices or of other float types are copied over.

use crate::{AffineMatrix, AwqError, ClipRanges, Inputs, Member, Options, Quantized, ScaleGroup, Scales};
use candle_core::{DType, Device, Tensor};
use quant_core::input_stats::{InputStats, StatsError};

/// What can go wrong with tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// candle's own.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The rows are no input of this layer.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// The matrix cannot be quantized.
    #[error(transparent)]
    Awq(#[from] AwqError),
}

/// Adds the rows of `inputs`, `[.., in_features]`, to the statistics.
///
/// # Errors
/// [`TensorError`]; nothing is added then.
pub fn add_inputs(stats: &mut InputStats, inputs: &Tensor) -> Result<(), TensorError> {
    let columns = inputs.dims().last().copied().unwrap_or(0);
    let rows = inputs.elem_count() / columns.max(1);
    Ok(stats.add(&to_f32(inputs)?, rows, columns)?)
}

/// [`crate::search_scales`] for the `weight`s, `[out_features, in_features]`, of linear layers that read one input.
///
/// # Errors
/// [`TensorError`].
pub fn search_scales(
    inputs: &Inputs,
    weights: &[&Tensor],
    ties: Option<&[u32]>,
    options: &Options,
) -> Result<Scales, TensorError> {
    let matrices = weights.iter().map(|weight| matrix(weight, inputs.in_features()));
    let matrices: Vec<(Vec<f32>, usize)> = matrices.collect::<Result<_, _>>()?;
    let members: Vec<Member<'_>> =
        matrices.iter().map(|(weights, out_features)| Member { weights, out_features: *out_features }).collect();
    Ok(crate::search_scales(inputs, &ScaleGroup { members: &members, ties }, options)?)
}

/// [`crate::search_clip`] of a linear layer's `weight`, `[out_features, in_features]`.
///
/// # Errors
/// [`TensorError`].
pub fn search_clip(
    inputs: &Inputs,
    weight: &Tensor,
    scales: &[f32],
    options: &Options,
) -> Result<ClipRanges, TensorError> {
    let (weights, out_features) = matrix(weight, inputs.in_features())?;
    Ok(crate::search_clip(inputs, &weights, out_features, scales, options)?)
}

/// [`crate::round`] of a linear layer's `weight`, `[out_features, in_features]`.
///
/// # Errors
/// [`TensorError`].
pub fn round(
    weight: &Tensor,
    scales: &[f32],
    clip: Option<&ClipRanges>,
    inputs: Option<&Inputs>,
    options: &Options,
) -> Result<Quantized, TensorError> {
    let (weights, out_features) = matrix(weight, scales.len())?;
    Ok(crate::round(&weights, out_features, scales, clip, inputs, options)?)
}

/// The weights of `matrix` as a tensor `[out_features, in_features]`.
///
/// # Errors
/// [`TensorError::Candle`].
pub fn dequantize(matrix: &AffineMatrix, dtype: DType, device: &Device) -> Result<Tensor, TensorError> {
    let (rows, columns) = (matrix.out_features(), matrix.in_features());
    let mut values = vec![0.0; rows * columns];
    // As many as the matrix has.
    let _ = matrix.dequantize_into(&mut values);
    Ok(Tensor::from_vec(values, (rows, columns), device)?.to_dtype(dtype)?)
}

/// Values and rows of a tensor of `in_features` columns.
fn matrix(weight: &Tensor, in_features: usize) -> Result<(Vec<f32>, usize), TensorError> {
    let (out_features, columns) = weight.dims2()?;
    if columns != in_features {
        let expected = out_features.saturating_mul(in_features);
        return Err(AwqError::Length { name: "weight", expected, found: weight.elem_count() }.into());
    }
    Ok((to_f32(weight)?, out_features))
}

fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, candle_core::Error> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bits;
    use quant_core::input_stats::Detail;

    #[test]
    fn equals_the_slices() {
        let x: Vec<f32> = (0..40 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let weights: Vec<f32> = (0..3 * 16).map(|i| (i as f32 * 0.3).cos()).collect();
        let options = Options::new(Bits::new(4).unwrap(), Some(8));
        let mut stats = InputStats::new(16, Detail::Gram);
        add_inputs(&mut stats, &Tensor::from_slice(&x, (2, 20, 16), &Device::Cpu).unwrap()).unwrap();
        assert_eq!(stats.count(), 40);
        let inputs = Inputs::new(&stats, None).unwrap();
        let weight = Tensor::from_slice(&weights, (3, 16), &Device::Cpu).unwrap();
        let scales = search_scales(&inputs, &[&weight], None, &options).unwrap();
        let members = [Member { weights: &weights, out_features: 3 }];
        let group = ScaleGroup { members: &members, ties: None };
        assert_eq!(scales, crate::search_scales(&inputs, &group, &options).unwrap());
        let clip = search_clip(&inputs, &weight, &scales.values, &options).unwrap();
        let got = round(&weight, &scales.values, Some(&clip), Some(&inputs), &options).unwrap().matrix;
        assert_eq!(got, crate::round(&weights, 3, &scales.values, Some(&clip), None, &options).unwrap().matrix);
        let mut values = vec![0.0; weights.len()];
        got.dequantize_into(&mut values).unwrap();
        let tensor = dequantize(&got, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
        let narrow = Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap();
        let error = search_clip(&inputs, &narrow, &scales.values, &options).unwrap_err();
        assert!(matches!(error, TensorError::Awq(AwqError::Length { name: "weight", .. })), "{error}");
        assert!(matches!(add_inputs(&mut stats, &narrow), Err(TensorError::Stats(StatsError::Columns { .. }))));
    }
}
