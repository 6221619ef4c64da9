//! The quantized modules of a directory as tensors of a GGUF file.

use super::packed_blocks::{block_type, rounding, to_blocks, to_values};
use super::{AsBlocks, ModelSource, Place, RowOrder, SourceTensor};
use crate::checkpoint::PackedModules;
use crate::{Error, Result};
use gguf_format::GgmlType;
use quant_core::affine::AffineMatrix;

/// A quantized module as the tensor `name`; its matrix is looked at once, to see which blocks hold it.
pub(super) fn tensor(modules: &PackedModules<'_>, module: &str, name: String, order: RowOrder) -> Result<SourceTensor> {
    let matrix = matrix(modules, module)?;
    let (stored, ty, as_blocks) = match block_type(&matrix) {
        Ok(ty) => (ty, ty, AsBlocks::Codes(rounding(&matrix, ty))),
        Err(why) => (GgmlType::F32, GgmlType::F16, AsBlocks::Values(why)),
    };
    Ok(SourceTensor {
        name,
        shape: vec![matrix.out_features() as u64, matrix.in_features() as u64],
        ty,
        stored,
        place: Place::Packed { module: module.to_owned(), order, as_blocks },
        // The blocks are made in GGUF's order.
        order: RowOrder::AsStored,
    })
}

fn matrix(modules: &PackedModules<'_>, module: &str) -> Result<AffineMatrix> {
    let missing = || Error::malformed(modules.config_file(), format!("module `{module}`"), "its tensors", "nothing");
    modules.matrix(module)?.ok_or_else(missing)
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
            ty if block_type(&matrix) == Ok(ty) => Ok(to_blocks(&matrix, ty, order)),
            ty => Err(Error::Usage(format!("module `{module}` changed: its codes stand in no block of {ty}"))),
        }
    }
}
