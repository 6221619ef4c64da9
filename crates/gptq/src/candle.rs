//! Tensors in and out, for programs built on candle (feature `candle`).
//!
//! Everything is computed on the CPU in f32; tensors on other devices or of other float types are copied over.

use crate::{AffineMatrix, Factor, GptqError, Options, Quantized};
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
    Gptq(#[from] GptqError),
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

/// [`crate::quantize`] of a linear layer's `weight`, `[out_features, in_features]`.
///
/// # Errors
/// [`TensorError`].
pub fn quantize(weight: &Tensor, factor: &Factor, options: &Options) -> Result<Quantized, TensorError> {
    let (out_features, in_features) = weight.dims2()?;
    if in_features != factor.in_features() {
        let expected = out_features.saturating_mul(factor.in_features());
        return Err(GptqError::Length { name: "weight", expected, found: weight.elem_count() }.into());
    }
    Ok(crate::quantize(&to_f32(weight)?, out_features, factor, options)?)
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
        let inputs: Vec<f32> = (0..40 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let weights: Vec<f32> = (0..3 * 16).map(|i| (i as f32 * 0.3).cos()).collect();
        let options = Options::new(Bits::new(4).unwrap(), Some(8));
        let mut stats = InputStats::new(16, Detail::Gram);
        add_inputs(&mut stats, &Tensor::from_slice(&inputs, (2, 20, 16), &Device::Cpu).unwrap()).unwrap();
        assert_eq!(stats.count(), 40);
        let factor = Factor::new(&stats, &options).unwrap();
        let weight = Tensor::from_slice(&weights, (3, 16), &Device::Cpu).unwrap();
        let got = quantize(&weight, &factor, &options).unwrap().matrix;
        assert_eq!(got, crate::quantize(&weights, 3, &factor, &options).unwrap().matrix);
        let mut values = vec![0.0; weights.len()];
        got.dequantize_into(&mut values).unwrap();
        let tensor = dequantize(&got, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
        let narrow = Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(quantize(&narrow, &factor, &options), Err(TensorError::Gptq(GptqError::Length { .. }))));
        assert!(matches!(add_inputs(&mut stats, &narrow), Err(TensorError::Stats(StatsError::Columns { .. }))));
    }
}
