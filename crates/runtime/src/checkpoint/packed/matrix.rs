//! A quantized module's weights, in one of the two forms that layouts store.

use crate::{Error, Result};
use quant_core::activation::ActivationScale;
use quant_core::affine::AffineMatrix;
use quant_core::checkpoint::CheckpointError;
use quant_core::eight_bit::EightBitMatrix;

/// The weights of a quantized module.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleMatrix {
    /// Codes with a scale and a zero point per group.
    Affine(AffineMatrix),
    /// One byte a weight, of a module whose input may be rounded too.
    EightBit(EightBitLinear),
}

/// One byte a weight, and the static scale of the input where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBitLinear {
    /// The weights.
    pub matrix: EightBitMatrix,
    /// Of the input, where it is static.
    pub input: Option<ActivationScale>,
}

/// The weights of a module that is to be written.
#[derive(Clone, Copy, Debug)]
pub enum MatrixRef<'a> {
    /// Codes with a scale and a zero point per group.
    Affine(&'a AffineMatrix),
    /// One byte a weight, and the static scale of the input where there is one.
    EightBit(&'a EightBitMatrix, Option<&'a ActivationScale>),
}

impl<'a> From<&'a AffineMatrix> for MatrixRef<'a> {
    fn from(matrix: &'a AffineMatrix) -> Self {
        Self::Affine(matrix)
    }
}

impl<'a> From<&'a EightBitLinear> for MatrixRef<'a> {
    fn from(linear: &'a EightBitLinear) -> Self {
        Self::EightBit(&linear.matrix, linear.input.as_ref())
    }
}

impl<'a> From<&'a ModuleMatrix> for MatrixRef<'a> {
    fn from(matrix: &'a ModuleMatrix) -> Self {
        match matrix {
            ModuleMatrix::Affine(matrix) => matrix.into(),
            ModuleMatrix::EightBit(linear) => linear.into(),
        }
    }
}

impl From<AffineMatrix> for ModuleMatrix {
    fn from(matrix: AffineMatrix) -> Self {
        Self::Affine(matrix)
    }
}

impl<'a> MatrixRef<'a> {
    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Affine(matrix) => [matrix.out_features(), matrix.in_features()],
            Self::EightBit(matrix, _) => [matrix.out_features(), matrix.in_features()],
        }
    }

    /// For a layout that has nothing else.
    pub(super) fn affine(self, layout: &str) -> Result<&'a AffineMatrix, CheckpointError> {
        match self {
            Self::Affine(matrix) => Ok(matrix),
            Self::EightBit(..) => {
                let why = format!("one byte a weight with a scale per row, which {layout}'s layout does not have");
                Err(CheckpointError::NotStorable { why })
            }
        }
    }
}

impl ModuleMatrix {
    /// `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        MatrixRef::from(self).shape()
    }

    /// Codes with a scale and a zero point per group, if it is of these.
    pub fn affine(&self) -> Option<&AffineMatrix> {
        match self {
            Self::Affine(matrix) => Some(matrix),
            Self::EightBit(_) => None,
        }
    }

    /// All weights, row by row.
    ///
    /// # Errors
    /// [`Error::Usage`] for an `out` of another length.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<()> {
        match self {
            Self::Affine(matrix) => matrix.dequantize_into(out).map_err(|e| Error::Usage(e.to_string())),
            Self::EightBit(linear) => linear.matrix.dequantize_into(out).map_err(|e| Error::Usage(e.to_string())),
        }
    }

    /// One row.
    ///
    /// # Errors
    /// [`Error::Usage`] for an `out` of another length, or a row that is not there.
    pub fn dequantize_row_into(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let [rows, _] = self.shape();
        match self {
            _ if row >= rows => Err(Error::Usage(format!("row {row} of {rows}"))),
            Self::Affine(matrix) => matrix.dequantize_row_into(row, out).map_err(|e| Error::Usage(e.to_string())),
            Self::EightBit(linear) => {
                linear.matrix.dequantize_row_into(row, out).map_err(|e| Error::Usage(e.to_string()))
            }
        }
    }
}
