//! The quantized modules of a directory as tensors of a GGUF file.

use super::packed_blocks::{block_type, rounding, to_blocks, to_values};
use super::{AsBlocks, ModelSource, Place, RowOrder, SourceTensor};
use crate::checkpoint::{EightBitLinear, ModuleMatrix, PackedModules};
use crate::{Error, Result};
use gguf_format::GgmlType;
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_core::eight_bit::{EightBitCode, EightBitMatrix};
use quant_core::error_metrics::{ErrorAccumulator, ErrorMetrics};
use std::borrow::Cow;

/// A quantized module as the tensor `name`; its matrix is looked at once, to see which blocks hold it.
pub(super) fn tensor(modules: &PackedModules<'_>, module: &str, name: String, order: RowOrder) -> Result<SourceTensor> {
    let matrix = matrix(modules, module)?;
    if modules.input_rotation(module, matrix.shape()[1])?.is_some() {
        let file = modules.config_file().display();
        return Err(Error::Unsupported(format!(
            "{file}: a rotation of what `{module}` reads, which GGUF has no place for"
        )));
    }
    let kept = affine(&matrix).and_then(|affine| Ok((block_type(&affine)?, affine)));
    let (stored, ty, as_blocks) = match kept {
        Ok((ty, affine)) => {
            let cost = match &matrix {
                ModuleMatrix::Affine(_) => rounding(&affine, ty),
                ModuleMatrix::EightBit(exact) => scales_rounding(&exact.matrix, &affine),
            };
            (ty, ty, AsBlocks::Codes(cost))
        }
        Err(why) => (GgmlType::F32, GgmlType::F16, AsBlocks::Values(why)),
    };
    Ok(SourceTensor {
        name,
        shape: matrix.shape().map(|n| n as u64).to_vec(),
        ty,
        stored,
        place: Place::Packed { module: module.to_owned(), order, as_blocks },
        // The blocks are made in GGUF's order.
        order: RowOrder::AsStored,
    })
}

fn matrix(modules: &PackedModules<'_>, module: &str) -> Result<ModuleMatrix> {
    let missing = || Error::malformed(modules.config_file(), format!("module `{module}`"), "its tensors", "nothing");
    modules.matrix(module)?.ok_or_else(missing)
}

/// The matrix that blocks can hold: whole numbers of one byte with their scales rounded to binary16, ties to even.
///
/// # Errors
/// Why there is none.
fn affine(matrix: &ModuleMatrix) -> Result<Cow<'_, AffineMatrix>, String> {
    let EightBitLinear { matrix, .. } = match matrix {
        ModuleMatrix::Affine(matrix) => return Ok(Cow::Borrowed(matrix)),
        ModuleMatrix::EightBit(linear) => linear,
    };
    if matrix.code() == EightBitCode::E4M3 {
        return Err("FP8 codes".to_owned());
    }
    if matrix.zeros().is_some() {
        return Err("zero points of 8 bits".to_owned());
    }
    let scales: Vec<f16> = matrix.scales().iter().map(|&scale| f16::from_f32(scale)).collect();
    let fits = |(half, &scale): (&f16, &f32)| half.is_finite() && (*half != f16::ZERO || scale == 0.0);
    if !scales.iter().zip(matrix.scales()).all(fits) {
        return Err("scales that F16 does not reach".to_owned());
    }
    let (out_features, in_features) = (matrix.out_features(), matrix.in_features());
    let Some(bits) = Bits::new(8) else { return Err("8 bits".to_owned()) };
    let parts = AffineParts {
        out_features,
        in_features,
        bits,
        group_size: in_features,
        codes: matrix.codes().iter().map(|&code| (code as u8) ^ 128).collect(),
        scales,
        zeros: vec![128; out_features],
        g_idx: None,
    };
    AffineMatrix::from_parts(parts).map(Cow::Owned).map_err(|e| e.to_string())
}

/// What rounding the scales cost.
fn scales_rounding(exact: &EightBitMatrix, rounded: &AffineMatrix) -> ErrorMetrics {
    let mut sums = ErrorAccumulator::new();
    let mut rows = [vec![0.0; exact.in_features()], vec![0.0; exact.in_features()]];
    for row in 0..exact.out_features() {
        let [a, b] = &mut rows;
        // Both have these rows.
        if exact.dequantize_row_into(row, a).is_ok() && rounded.dequantize_row_into(row, b).is_ok() {
            let _ = sums.add(a, b);
        }
    }
    sums.finish()
}

/// Makes the bytes of [`Place::Packed`].
pub(crate) struct PackedReader<'a>(Option<PackedModules<'a>>);

impl<'a> PackedReader<'a> {
    /// For the modules of a source, if it has some.
    pub(crate) fn new(source: &'a ModelSource) -> Result<Self> {
        let modules = source.packed.as_ref().map(|dir| dir.packed()).transpose()?;
        Ok(Self(modules.flatten()))
    }

    /// All bytes of a tensor, as `tensor.stored` says.
    pub(crate) fn bytes(&self, tensor: &SourceTensor, module: &str, order: RowOrder) -> Result<Vec<u8>> {
        let Some(modules) = &self.0 else {
            return Err(Error::Usage(format!("tensor `{}`: no directory of packed modules", tensor.name)));
        };
        let matrix = matrix(modules, module)?;
        match tensor.stored {
            GgmlType::F32 => to_values(&matrix, order),
            ty => match affine(&matrix) {
                Ok(affine) if block_type(&affine) == Ok(ty) => Ok(to_blocks(&affine, ty, order)),
                _ => Err(Error::Usage(format!("module `{module}` changed: its codes stand in no block of {ty}"))),
            },
        }
    }
}
