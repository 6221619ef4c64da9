//! Weights of one byte with a scale per row, as the kernels take them.

use crate::Result;
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_core::eight_bit::{EightBitCode, EightBitMatrix, EightBitParts};
use quant_kernels::{AffineWeights, Encoding, Int8Weights, Matrix};

/// Numbers whose products are multiplied by the scale of their row afterwards.
#[derive(Clone, Debug)]
pub(super) struct ScaledRows {
    numbers: Numbers,
    pub(super) scales: Vec<f32>,
}

#[derive(Clone, Debug)]
enum Numbers {
    /// Whole numbers, less their zero points.
    Whole(AffineWeights),
    E4M3 {
        codes: Vec<u8>,
        rows: usize,
        cols: usize,
    },
}

/// The two forms in memory.
#[derive(Clone, Debug)]
pub(super) enum EightBitWeights {
    /// For integer products.
    Int8(Int8Weights),
    /// For products in f32.
    Scaled(ScaledRows),
}

impl EightBitWeights {
    /// `integers` says that the input is rounded to int8. Integer products take no zero points of weights.
    pub(super) fn new(matrix: EightBitMatrix, integers: bool) -> Result<Self> {
        let EightBitParts { out_features, in_features, code, codes, scales, zeros } = matrix.into_parts();
        let numbers = match code {
            EightBitCode::E4M3 => {
                let codes = codes.into_iter().map(|code| code as u8).collect();
                Numbers::E4M3 { codes, rows: out_features, cols: in_features }
            }
            EightBitCode::Int8 if integers && zeros.is_none() => {
                return Ok(Self::Int8(Int8Weights::pack(out_features, in_features, &codes, &scales)?));
            }
            EightBitCode::Int8 => {
                // Moved up by 128, so that codes and zero points are those of an affine matrix; its scales are 1.
                let moved = |code: &i8| (*code as u8) ^ 128;
                let zeros = match &zeros {
                    Some(zeros) => zeros.iter().map(|zero| u16::from(moved(zero))).collect(),
                    None => vec![128; out_features],
                };
                let parts = AffineParts {
                    out_features,
                    in_features,
                    bits: BITS,
                    group_size: in_features,
                    codes: codes.iter().map(moved).collect(),
                    scales: vec![f16::ONE; out_features],
                    zeros,
                    g_idx: None,
                };
                let matrix = AffineMatrix::from_parts(parts).map_err(|e| crate::Error::Usage(e.to_string()))?;
                Numbers::Whole(AffineWeights::pack(&matrix)?)
            }
        };
        Ok(Self::Scaled(ScaledRows { numbers, scales }))
    }
}

const BITS: Bits = match Bits::new(8) {
    Some(bits) => bits,
    None => unreachable!(),
};

impl ScaledRows {
    /// The numbers without their scales. The columns of whole numbers are those that `gather` lists.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        match &self.numbers {
            Numbers::Whole(weights) => weights.matrix(),
            Numbers::E4M3 { codes, rows, cols } => Matrix { ty: Encoding::E4M3, rows: *rows, cols: *cols, data: codes },
        }
    }

    pub(super) fn gather(&self) -> Option<&[u32]> {
        match &self.numbers {
            Numbers::Whole(weights) => weights.gather(),
            Numbers::E4M3 { .. } => None,
        }
    }

    /// One row, with its scale.
    pub(super) fn row(&self, row: usize, dst: &mut [f32]) -> Result<()> {
        match &self.numbers {
            Numbers::Whole(weights) => weights.row(row, dst)?,
            Numbers::E4M3 { .. } => self.matrix().row(row, dst)?,
        }
        let scale = self.scales.get(row).copied().unwrap_or(f32::NAN);
        dst.iter_mut().for_each(|v| *v *= scale);
        Ok(())
    }
}
