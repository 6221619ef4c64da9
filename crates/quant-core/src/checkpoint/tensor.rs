//! Tensors of a module as they lie in a file.

use super::{CheckpointError, Result};
use half::{bf16, f16};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DType {
    /// 8-bit integers.
    I8,
    /// FP8 of 4 bits of exponent and 3 of mantissa.
    F8E4M3,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// binary16.
    F16,
    /// bfloat16.
    BF16,
    /// binary32.
    F32,
}

impl DType {
    /// As safetensors spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "I8",
            Self::F8E4M3 => "F8_E4M3",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
        }
    }

    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::F8E4M3 => 1,
            Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 => 8,
        }
    }
}

/// A tensor as it lies in a file: little endian, row-major, at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct StoredTensor<'a> {
    /// Element type.
    pub dtype: DType,
    /// Rows first.
    pub shape: &'a [usize],
    /// The bytes.
    pub data: &'a [u8],
}

impl StoredTensor<'_> {
    /// Rows and columns, after checking type, rank and bytes. `tensor` is its name in errors.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`].
    pub fn matrix(&self, tensor: &'static str, dtypes: &[DType]) -> Result<[usize; 2]> {
        self.check(tensor, dtypes)?;
        match *self.shape {
            [rows, cols] => Ok([rows, cols]),
            _ => Err(self.rank(tensor, "2 dimensions")),
        }
    }

    /// The length of a vector, after the same checks.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`].
    pub fn vector(&self, tensor: &'static str, dtypes: &[DType]) -> Result<usize> {
        self.check(tensor, dtypes)?;
        match *self.shape {
            [len] => Ok(len),
            _ => Err(self.rank(tensor, "1 dimension")),
        }
    }

    fn rank(&self, tensor: &'static str, expected: &str) -> CheckpointError {
        CheckpointError::Tensor { tensor, expected: expected.into(), found: format!("shape {:?}", self.shape) }
    }

    fn check(&self, tensor: &'static str, dtypes: &[DType]) -> Result<()> {
        if !dtypes.contains(&self.dtype) {
            let names: Vec<_> = dtypes.iter().map(|d| d.name()).collect();
            let expected = format!("type {}", names.join(" or "));
            return Err(CheckpointError::Tensor { tensor, expected, found: self.dtype.name().into() });
        }
        let need = self.shape.iter().try_fold(self.dtype.size(), |n, &d| n.checked_mul(d));
        if need != Some(self.data.len()) {
            let expected = format!("the bytes of {} {:?}", self.dtype.name(), self.shape);
            return Err(CheckpointError::Tensor { tensor, expected, found: format!("{} bytes", self.data.len()) });
        }
        Ok(())
    }

    /// The words of an I32 tensor.
    pub fn words(&self) -> Vec<u32> {
        self.data.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
    }

    /// The values of an F16, BF16 or F32 tensor.
    pub fn floats(&self) -> Vec<f32> {
        match self.dtype {
            DType::F16 => self.data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            DType::BF16 => self.data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => self.data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        }
    }

    /// The values of an F16, BF16 or F32 tensor as F16.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a value that F16 does not have.
    pub fn exact_halves(&self, tensor: &'static str) -> Result<Vec<f16>> {
        if self.dtype == DType::F16 {
            return Ok(self.data.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b)).collect());
        }
        let exact = |(at, v): (usize, f32)| {
            let half = f16::from_f32(v);
            if half.to_f32() == v || !v.is_finite() {
                return Ok(half);
            }
            let expected = format!("{} values that F16 has", self.dtype.name());
            Err(CheckpointError::Tensor { tensor, expected, found: format!("{v} at index {at}") })
        };
        self.floats().into_iter().enumerate().map(exact).collect()
    }
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedTensor {
    /// Follows the module's name and a dot: `qweight`.
    pub suffix: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Rows first.
    pub shape: Vec<usize>,
    /// Little endian, row-major.
    pub data: Vec<u8>,
}

impl PackedTensor {
    /// I32 words.
    pub fn words(suffix: &'static str, shape: Vec<usize>, words: &[u32]) -> Self {
        Self { suffix, dtype: DType::I32, shape, data: words.iter().flat_map(|w| w.to_le_bytes()).collect() }
    }

    /// F16 values.
    pub fn halves(suffix: &'static str, shape: Vec<usize>, values: &[f16]) -> Self {
        Self { suffix, dtype: DType::F16, shape, data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// As it would lie in a file.
    pub fn stored(&self) -> StoredTensor<'_> {
        StoredTensor { dtype: self.dtype, shape: &self.shape, data: &self.data }
    }
}

/// Shapes that must be equal.
///
/// # Errors
/// [`CheckpointError::Tensor`] with both.
pub fn expect_shape(tensor: &'static str, expected: [usize; 2], found: [usize; 2]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(CheckpointError::Tensor { tensor, expected: format!("shape {expected:?}"), found: format!("{found:?}") })
}

/// `[rows, cols]` to `[cols, rows]`.
pub fn transposed<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| r * cols + c)).filter_map(|at| values.get(at).copied()).collect()
}
