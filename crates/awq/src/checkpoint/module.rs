//! One linear layer between its stored tensors and an affine matrix.

use super::gemm::{pack_row, pack_transposed, row_columns, row_words, unpack_row, unpack_transposed};
use super::gemv::{ROWS, SPAN, unpack_fast, unpack_rows, unscaled};
use super::{CheckpointError, DType, Layout, ModuleSpec, PackedTensor, Result, StoredTensor};
use half::f16;
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_core::checkpoint::{expect_shape as expect, transposed};

/// The types of scales: F16; BF16 and F32 are taken where every value is one of F16.
const SCALES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// The tensors of one module, borrowed from a file; the shapes are those of its layout.
#[derive(Clone, Copy, Debug)]
pub struct StoredModule<'a> {
    /// Codes.
    pub qweight: StoredTensor<'a>,
    /// Zero points (`scaled_zeros` in llm-awq's files).
    pub qzeros: StoredTensor<'a>,
    /// Scales.
    pub scales: StoredTensor<'a>,
}

/// The sizes of a module, checked against its tensors.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    in_features: usize,
    out_features: usize,
    group_size: usize,
    groups: usize,
}

impl StoredModule<'_> {
    /// `[out_features, in_features]` as the tensors say.
    ///
    /// # Errors
    /// [`CheckpointError::Tensor`] for a type, shape or length that does not fit the others, or `spec`.
    pub fn shape(&self, spec: &ModuleSpec) -> Result<[usize; 2]> {
        self.sizes(spec).map(|s| [s.out_features, s.in_features])
    }

    fn sizes(&self, spec: &ModuleSpec) -> Result<Sizes> {
        let word = if spec.layout == Layout::GemvFast { DType::I16 } else { DType::I32 };
        let [rows, cols] = self.qweight.matrix("qweight", &[word])?;
        let scales = self.scales.matrix("scales", &SCALES)?;
        let (out_features, in_features) = match spec.layout {
            // The columns fill whole words, unless the scales say less (widths of GPTQModel).
            Layout::Gemm => (scales[1].min(row_columns(cols, spec.bits)), rows),
            Layout::Gemv => (rows, cols.saturating_mul(8)),
            Layout::GemvFast => (rows.saturating_mul(ROWS), cols),
        };
        if in_features == 0 || out_features == 0 {
            let found = format!("{:?}", self.qweight.shape);
            return Err(CheckpointError::Tensor { tensor: "qweight", expected: "no dimension of 0".into(), found });
        }
        if spec.group_size == Some(0) {
            return Err(CheckpointError::NotStorable { why: "groups of 0 features".into() });
        }
        let group_size = spec.group_size.unwrap_or(in_features);
        let groups = in_features.div_ceil(group_size);
        match spec.layout {
            Layout::Gemm => {
                expect("scales", [groups, out_features], scales)?;
                let words = row_words(out_features, spec.bits).unwrap_or(0);
                expect("qweight", [in_features, words], [rows, cols])?;
                expect("qzeros", [groups, words], self.qzeros.matrix("qzeros", &[DType::I32])?)?;
            }
            Layout::Gemv => {
                let zeros = self.qzeros.matrix("qzeros", &[DType::I32])?;
                let width = padded(zeros[1], groups, "qzeros")?;
                expect("qzeros", [out_features, zeros[1]], zeros)?;
                expect("scales", [out_features, width], scales)?;
            }
            Layout::GemvFast => {
                if !in_features.is_multiple_of(SPAN) {
                    let (expected, found) = (format!("columns in multiples of {SPAN}"), in_features.to_string());
                    return Err(CheckpointError::Tensor { tensor: "qweight", expected, found });
                }
                let width = padded(scales[0] / 8, groups, "scales")?;
                expect("scales", [width, out_features], scales)?;
                expect("qzeros", scales, self.qzeros.matrix("qzeros", &SCALES)?)?;
            }
        }
        Ok(Sizes { in_features, out_features, group_size, groups })
    }

    /// The matrix.
    ///
    /// # Errors
    /// As [`StoredModule::shape`]; [`CheckpointError::Tensor`] for a scale that F16 does not have, or a scaled zero point that is none;
    /// [`CheckpointError::Affine`] for a scale that is not finite.
    pub fn unpack(&self, spec: &ModuleSpec) -> Result<AffineMatrix> {
        let Sizes { in_features, out_features, group_size, groups } = self.sizes(spec)?;
        let bits = spec.bits;
        let scales = self.scales.exact_halves("scales")?;
        let (codes, scales, zeros) = match spec.layout {
            Layout::Gemm => {
                let codes = unpack_transposed(self.qweight.data, out_features, in_features, bits)?;
                let zeros = self.gemm_zeros(groups, out_features, bits)?;
                (codes, transposed(&scales, groups, out_features), transposed(&zeros, groups, out_features))
            }
            Layout::Gemv => {
                let mut codes = vec![0u8; self.codes(out_features, in_features)?];
                unpack_rows(&self.qweight.words(), in_features, &mut codes)?;
                let width = scales.len() / out_features;
                let mut zeros = vec![0u8; scales.len()];
                unpack_rows(&self.qzeros.words(), width, &mut zeros)?;
                let zeros: Vec<u16> = zeros.into_iter().map(u16::from).collect();
                (codes, first(&scales, width, groups), first(&zeros, width, groups))
            }
            Layout::GemvFast => {
                let mut codes = vec![0u8; self.codes(out_features, in_features)?];
                unpack_fast(self.qweight.data, in_features, &mut codes);
                let used = groups * out_features;
                let scaled = self.qzeros.exact_halves("qzeros")?;
                let pairs = scaled.iter().zip(&scales).take(used).enumerate();
                let zeros: Vec<u16> =
                    pairs.map(|(at, (&zero, &scale))| unscaled(zero, scale, "qzeros", at)).collect::<Result<_>>()?;
                let scales: Vec<f16> = scales.into_iter().take(used).collect();
                (codes, transposed(&scales, groups, out_features), transposed(&zeros, groups, out_features))
            }
        };
        let parts = AffineParts { out_features, in_features, bits, group_size, codes, scales, zeros, g_idx: None };
        Ok(AffineMatrix::from_parts(parts)?)
    }

    /// `[groups, out]`.
    fn gemm_zeros(&self, groups: usize, out_features: usize, bits: Bits) -> Result<Vec<u16>> {
        let words = self.qzeros.words();
        let mut fields = vec![0u8; groups * out_features];
        for (words, fields) in words.chunks_exact(words.len() / groups).zip(fields.chunks_exact_mut(out_features)) {
            unpack_row(words, bits, fields)?;
        }
        Ok(fields.into_iter().map(u16::from).collect())
    }

    /// Codes of the module: as many as there are nibbles in `qweight`, so that they fit this machine.
    fn codes(&self, out_features: usize, in_features: usize) -> Result<usize> {
        out_features.checked_mul(in_features).ok_or_else(|| CheckpointError::Tensor {
            tensor: "qweight",
            expected: "a product of features that fits this machine".into(),
            found: format!("{in_features} x {out_features}"),
        })
    }
}

/// Scales of a row for `words` words of zero points, which must be enough for the groups.
fn padded(words: usize, groups: usize, tensor: &'static str) -> Result<usize> {
    match words.checked_mul(8).filter(|width| *width >= groups) {
        Some(width) => Ok(width),
        None => {
            let (expected, found) = (format!("room for {groups} groups"), format!("for 8 x {words}"));
            Err(CheckpointError::Tensor { tensor, expected, found })
        }
    }
}

/// The first `groups` of each row of `width` values.
fn first<T: Copy>(values: &[T], width: usize, groups: usize) -> Vec<T> {
    values.chunks_exact(width).flat_map(|row| row[..groups].iter().copied()).collect()
}

/// A module's tensors in layout `gemm`, owned, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedModule {
    in_features: usize,
    out_features: usize,
    groups: usize,
    qweight: Vec<u32>,
    qzeros: Vec<u32>,
    scales: Vec<f16>,
}

impl PackedModule {
    /// Packs a matrix. The codes are stored as they are, bit for bit.
    ///
    /// # Errors
    /// [`CheckpointError::NotStorable`] for groups in another order than the columns, output features that fill no whole words, and a zero point of
    /// `2^bits`, which no field stands for.
    pub fn pack(matrix: &AffineMatrix) -> Result<Self> {
        let (bits, groups) = (matrix.bits(), matrix.groups());
        let (in_features, out_features) = (matrix.in_features(), matrix.out_features());
        let no = |why: String| Err(CheckpointError::NotStorable { why });
        if matrix.g_idx().is_some() {
            return no("groups in another order than the columns, which AWQ's layout does not have".into());
        }
        let Some(row) = row_words(out_features, bits) else {
            return no(format!("{out_features} output features (multiples of 8 can be)"));
        };
        let qweight = pack_transposed(matrix.codes(), in_features, bits, row)?;
        let mut fields = Vec::with_capacity(groups * out_features);
        for (at, zero) in transposed(matrix.zeros(), out_features, groups).into_iter().enumerate() {
            match u8::try_from(zero).ok().filter(|zero| *zero <= bits.max_code()) {
                Some(zero) => fields.push(zero),
                None => {
                    let (group, row) = (at / out_features, at % out_features);
                    return no(format!("zero point {zero} of row {row}, group {group}, with codes of {bits} bits"));
                }
            }
        }
        let mut qzeros = vec![0u32; groups * row];
        for (fields, words) in fields.chunks_exact(out_features).zip(qzeros.chunks_exact_mut(row)) {
            pack_row(fields, bits, words)?;
        }
        let scales = transposed(matrix.scales(), out_features, groups);
        Ok(Self { in_features, out_features, groups, qweight, qzeros, scales })
    }

    /// The three tensors as bytes: `qweight`, `qzeros`, `scales`.
    pub fn into_tensors(self) -> [PackedTensor; 3] {
        let row = self.qweight.len() / self.in_features;
        [
            PackedTensor::words("qweight", vec![self.in_features, row], &self.qweight),
            PackedTensor::words("qzeros", vec![self.groups, row], &self.qzeros),
            PackedTensor::halves("scales", vec![self.groups, self.out_features], &self.scales),
        ]
    }
}
