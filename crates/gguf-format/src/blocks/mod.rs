//! Codecs of the ggml block types.

use crate::{GgmlType, Result};

/// Quantizes rows of `row_len` values to `ty`, as ggml's `ggml_quantize_chunk` does, byte for byte.
///
/// `src` holds whole rows, row-major; `dst` exactly their bytes. `importance`, if given, holds one weight per column (`row_len`).
pub fn quantize(ty: GgmlType, src: &[f32], row_len: usize, importance: Option<&[f32]>, dst: &mut [u8]) -> Result<()> {
    let _ = (ty, src, row_len, importance, dst);
    todo!()
}

/// Dequantizes whole blocks to f32, as ggml's `dequantize_row_*` does, bit for bit.
pub fn dequantize(ty: GgmlType, src: &[u8], dst: &mut [f32]) -> Result<()> {
    let _ = (ty, src, dst);
    todo!()
}
