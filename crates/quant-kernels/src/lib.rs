//! CPU matrix products over packed weights: one dispatch point, a scalar twin as the oracle.

use gguf_format::GgmlType;

/// A packed weight matrix, `[rows, cols]` = [out_features, in_features], borrowed from wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Type of the blocks.
    pub ty: GgmlType,
    /// Out features.
    pub rows: usize,
    /// In features.
    pub cols: usize,
    /// The bytes, row-major.
    pub data: &'a [u8],
}
