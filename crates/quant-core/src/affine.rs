//! Weights as integer codes with a scale and a zero point per group: what GPTQ and AWQ quantize to, their checkpoints hold and kernels
//! read.

use half::f16;

/// Bits of a code: 2 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// `None` unless `bits` is 2 to 8.
    pub const fn new(bits: u8) -> Option<Self> {
        if matches!(bits, 2..=8) { Some(Self(bits)) } else { None }
    }

    /// The number of bits.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The largest code, `2^bits − 1`.
    pub const fn max_code(self) -> u8 {
        (u8::MAX) >> (8 - self.0)
    }

    /// The zero point of a symmetric grid, `2^(bits−1)`: codes stand for `−2^(bits−1) .. 2^(bits−1) − 1` steps.
    pub const fn middle(self) -> u8 {
        1 << (self.0 - 1)
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Parts that do not make an [`AffineMatrix`], or a slice of another size than the matrix.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AffineError {
    /// Features or groups that no matrix has.
    #[error(
        "a matrix of {out_features} x {in_features} in groups of {group_size}: none may be zero, nor their product overflow"
    )]
    Shape {
        /// Rows.
        out_features: usize,
        /// Columns.
        in_features: usize,
        /// Columns of a group.
        group_size: usize,
    },
    /// A part is of another length than the shape asks for.
    #[error("`{part}`: {expected} values expected, found {found}")]
    Length {
        /// Which part.
        part: &'static str,
        /// Values the shape asks for.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A code is larger than its bits allow.
    #[error("code {code} at row {row}, column {column} does not fit {bits} bits")]
    Code {
        /// Output feature.
        row: usize,
        /// Input feature.
        column: usize,
        /// The code.
        code: u8,
        /// Bits of the matrix.
        bits: Bits,
    },
    /// A scale is NaN or infinite.
    #[error("scale of row {row}, group {group} is {value}")]
    Scale {
        /// Output feature.
        row: usize,
        /// Group.
        group: usize,
        /// The scale.
        value: f16,
    },
    /// A zero point is above `2^bits`.
    #[error("zero point {zero} of row {row}, group {group} is out of range for {bits} bits")]
    Zero {
        /// Output feature.
        row: usize,
        /// Group.
        group: usize,
        /// The zero point.
        zero: u16,
        /// Bits of the matrix.
        bits: Bits,
    },
    /// An input feature belongs to a group that is not there.
    #[error("`g_idx` puts column {column} in group {group} of {groups}")]
    GroupIndex {
        /// Input feature.
        column: usize,
        /// The group named.
        group: u32,
        /// Groups of the matrix.
        groups: usize,
    },
}

/// The parts of an [`AffineMatrix`]; [`AffineMatrix::from_parts`] checks them.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineParts {
    /// Rows.
    pub out_features: usize,
    /// Columns.
    pub in_features: usize,
    /// Bits of a code.
    pub bits: Bits,
    /// Columns of a group; the last group may have fewer. Files write -1 for `in_features`.
    pub group_size: usize,
    /// `[out_features, in_features]`, row-major, one code a byte.
    pub codes: Vec<u8>,
    /// `[out_features, groups]`, row-major.
    pub scales: Vec<f16>,
    /// `[out_features, groups]`, row-major: the code that stands for 0. `2^bits` is allowed, as files that store the zero point less
    /// one can hold it.
    pub zeros: Vec<u16>,
    /// Group of each column, `[in_features]`; `None` for `column / group_size`.
    pub g_idx: Option<Vec<u32>>,
}

/// A weight matrix `[out_features, in_features]` of integer codes, `w = scale · (code − zero)` with the scale and the zero point of the
/// row and of the column's group.
///
/// Codes, scales and zero points were checked when it was made, so access cannot fail.
///
/// ```
/// use half::f16;
/// use quant_core::affine::{AffineMatrix, AffineParts, Bits};
/// let matrix = AffineMatrix::from_parts(AffineParts {
///     out_features: 1,
///     in_features: 4,
///     bits: Bits::new(4).unwrap(),
///     group_size: 2,
///     codes: vec![0, 15, 8, 9],
///     scales: vec![f16::ONE, f16::from_f32(0.5)],
///     zeros: vec![8, 8],
///     g_idx: None,
/// })?;
/// let mut weights = [0.0; 4];
/// matrix.dequantize_into(&mut weights)?;
/// assert_eq!(weights, [-8.0, 7.0, 0.0, 0.5]);
/// # Ok::<(), quant_core::affine::AffineError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AffineMatrix {
    parts: AffineParts,
    groups: usize,
}

impl AffineMatrix {
    /// Checks the parts against each other. A `g_idx` that says `column / group_size` becomes `None`.
    ///
    /// # Errors
    /// [`AffineError`] names the first part that is wrong.
    pub fn from_parts(mut parts: AffineParts) -> Result<Self, AffineError> {
        let AffineParts { out_features, in_features, bits, group_size, .. } = parts;
        let shape = AffineError::Shape { out_features, in_features, group_size };
        if out_features == 0 || in_features == 0 || group_size == 0 {
            return Err(shape);
        }
        let weights = out_features.checked_mul(in_features).ok_or(shape)?;
        // At most as many groups as columns: the product cannot overflow.
        let groups = in_features.div_ceil(group_size);
        let lengths = [
            ("codes", weights, parts.codes.len()),
            ("scales", out_features * groups, parts.scales.len()),
            ("zeros", out_features * groups, parts.zeros.len()),
            ("g_idx", in_features, parts.g_idx.as_ref().map_or(in_features, Vec::len)),
        ];
        if let Some(&(part, expected, found)) = lengths.iter().find(|(_, expected, found)| expected != found) {
            return Err(AffineError::Length { part, expected, found });
        }
        // The maximum of all is found in vectors, a place is not.
        if parts.codes.iter().fold(0, |most, &code| code.max(most)) > bits.max_code()
            && let Some((at, &code)) = parts.codes.iter().enumerate().find(|(_, code)| **code > bits.max_code())
        {
            return Err(AffineError::Code { row: at / in_features, column: at % in_features, code, bits });
        }
        if let Some((at, &value)) = parts.scales.iter().enumerate().find(|(_, scale)| !scale.is_finite()) {
            return Err(AffineError::Scale { row: at / groups, group: at % groups, value });
        }
        if let Some((at, &zero)) = parts.zeros.iter().enumerate().find(|(_, zero)| **zero > 1 << bits.get()) {
            return Err(AffineError::Zero { row: at / groups, group: at % groups, zero, bits });
        }
        if let Some(g_idx) = &parts.g_idx {
            if let Some((column, &group)) = g_idx.iter().enumerate().find(|(_, group)| **group as usize >= groups) {
                return Err(AffineError::GroupIndex { column, group, groups });
            }
            if g_idx.iter().enumerate().all(|(column, &group)| group as usize == column / group_size) {
                parts.g_idx = None;
            }
        }
        Ok(Self { parts, groups })
    }

    /// The parts again.
    pub fn into_parts(self) -> AffineParts {
        self.parts
    }

    /// Rows.
    pub fn out_features(&self) -> usize {
        self.parts.out_features
    }

    /// Columns.
    pub fn in_features(&self) -> usize {
        self.parts.in_features
    }

    /// Bits of a code.
    pub fn bits(&self) -> Bits {
        self.parts.bits
    }

    /// Columns of a group.
    pub fn group_size(&self) -> usize {
        self.parts.group_size
    }

    /// Groups of a row, `⌈in_features / group_size⌉`.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// `[out_features, in_features]`, row-major, one code a byte.
    pub fn codes(&self) -> &[u8] {
        &self.parts.codes
    }

    /// `[out_features, groups]`, row-major.
    pub fn scales(&self) -> &[f16] {
        &self.parts.scales
    }

    /// `[out_features, groups]`, row-major: the code that stands for 0.
    pub fn zeros(&self) -> &[u16] {
        &self.parts.zeros
    }

    /// Group of each column; `None` for `column / group_size`.
    pub fn g_idx(&self) -> Option<&[u32]> {
        self.parts.g_idx.as_deref()
    }

    /// Group of a column.
    ///
    /// # Panics
    /// If there is a `g_idx` and the column is not below `in_features`.
    pub fn group_of(&self, column: usize) -> usize {
        self.parts.g_idx.as_ref().map_or(column / self.parts.group_size, |g_idx| g_idx[column] as usize)
    }

    /// Whether every zero point is the middle of the grid, as a symmetric quantizer leaves it.
    pub fn is_symmetric(&self) -> bool {
        self.parts.zeros.iter().all(|&zero| zero == u16::from(self.parts.bits.middle()))
    }

    /// Bits that one weight takes in a checkpoint: its code, its share of a 16-bit scale and a zero point of `bits` bits per group, and of
    /// a 32-bit group index per column where there is one.
    pub fn bits_per_weight(&self) -> f64 {
        let bits = f64::from(self.parts.bits.get());
        let index = if self.parts.g_idx.is_some() { 32.0 / self.parts.out_features as f64 } else { 0.0 };
        bits + self.groups as f64 * (16.0 + bits) / self.parts.in_features as f64 + index
    }

    /// `w = scale · (code − zero)`, all rows. Exact: the product of an f16 and an integer of 9 bits fits an f32.
    ///
    /// # Errors
    /// [`AffineError::Length`] unless `out` holds `out_features · in_features` values.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<(), AffineError> {
        self.check_length(self.parts.codes.len(), out)?;
        for (row, out) in out.chunks_exact_mut(self.parts.in_features).enumerate() {
            self.row_into(row, out);
        }
        Ok(())
    }

    /// One row, `[in_features]`.
    ///
    /// # Errors
    /// [`AffineError::Length`] unless `out` holds `in_features` values.
    ///
    /// # Panics
    /// If `row` is not below `out_features`.
    pub fn dequantize_row_into(&self, row: usize, out: &mut [f32]) -> Result<(), AffineError> {
        self.check_length(self.parts.in_features, out)?;
        self.row_into(row, out);
        Ok(())
    }

    fn check_length(&self, expected: usize, out: &[f32]) -> Result<(), AffineError> {
        if out.len() == expected {
            return Ok(());
        }
        Err(AffineError::Length { part: "out", expected, found: out.len() })
    }

    fn row_into(&self, row: usize, out: &mut [f32]) {
        let n = self.parts.in_features;
        let codes = &self.parts.codes[row * n..][..n];
        let scales = &self.parts.scales[row * self.groups..][..self.groups];
        let zeros = &self.parts.zeros[row * self.groups..][..self.groups];
        let value = |code: u8, scale: f32, zero: u16| scale * (f32::from(code) - f32::from(zero));
        match &self.parts.g_idx {
            Some(g_idx) => {
                for ((out, &code), &group) in out.iter_mut().zip(codes).zip(g_idx) {
                    *out = value(code, scales[group as usize].to_f32(), zeros[group as usize]);
                }
            }
            None => {
                let groups = out.chunks_mut(self.parts.group_size).zip(codes.chunks(self.parts.group_size));
                for (((out, codes), scale), &zero) in groups.zip(scales).zip(zeros) {
                    let scale = scale.to_f32();
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = value(code, scale, zero);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> AffineParts {
        AffineParts {
            out_features: 2,
            in_features: 5,
            bits: Bits::new(3).unwrap(),
            group_size: 2,
            codes: vec![0, 1, 2, 3, 4, 5, 6, 7, 0, 1],
            scales: [1.0, 2.0, 4.0, 0.5, 0.25, 0.0].map(f16::from_f32).to_vec(),
            zeros: vec![4, 0, 8, 1, 2, 3],
            g_idx: None,
        }
    }

    fn dequantized(parts: AffineParts) -> Vec<f32> {
        let matrix = AffineMatrix::from_parts(parts).unwrap();
        let mut all = vec![0.0; 10];
        matrix.dequantize_into(&mut all).unwrap();
        let mut row = [0.0; 5];
        matrix.dequantize_row_into(1, &mut row).unwrap();
        assert_eq!(row, all[5..]);
        all
    }

    #[test]
    fn weights_by_hand() {
        let trivial = AffineParts { g_idx: Some(vec![0, 0, 1, 1, 2]), ..parts() };
        assert_eq!(dequantized(parts()), [-4.0, -3.0, 4.0, 6.0, -16.0, 2.0, 2.5, 1.25, -0.5, 0.0]);
        assert_eq!(AffineMatrix::from_parts(trivial).unwrap(), AffineMatrix::from_parts(parts()).unwrap());
        let ordered = AffineParts { g_idx: Some(vec![2, 0, 1, 0, 1]), ..parts() };
        assert_eq!(dequantized(ordered.clone()), [-32.0, -3.0, 4.0, -1.0, 8.0, 0.0, 2.5, 1.25, -0.5, -0.25]);
        let matrix = AffineMatrix::from_parts(ordered).unwrap();
        assert_eq!((0..5).map(|c| matrix.group_of(c)).collect::<Vec<_>>(), [2, 0, 1, 0, 1]);
        assert!(!matrix.is_symmetric());
        assert_eq!(matrix.bits_per_weight(), 3.0 + 3.0 * 19.0 / 5.0 + 16.0);
        assert_eq!(AffineMatrix::from_parts(parts()).unwrap().into_parts(), parts());
    }

    #[test]
    fn parts_are_checked() {
        let p = parts;
        let bits = Bits::new(3).unwrap();
        let cases = [
            (
                AffineParts { group_size: 0, ..p() },
                AffineError::Shape { out_features: 2, in_features: 5, group_size: 0 },
            ),
            (
                AffineParts { out_features: usize::MAX, ..p() },
                AffineError::Shape { out_features: usize::MAX, in_features: 5, group_size: 2 },
            ),
            (AffineParts { group_size: 5, ..p() }, AffineError::Length { part: "scales", expected: 2, found: 6 }),
            (AffineParts { codes: vec![0; 9], ..p() }, AffineError::Length { part: "codes", expected: 10, found: 9 }),
            (
                AffineParts { codes: vec![0, 0, 0, 0, 0, 0, 8, 0, 0, 0], ..p() },
                AffineError::Code { row: 1, column: 1, code: 8, bits },
            ),
            (
                AffineParts { scales: vec![f16::INFINITY; 6], ..p() },
                AffineError::Scale { row: 0, group: 0, value: f16::INFINITY },
            ),
            (
                AffineParts { zeros: vec![0, 0, 0, 0, 9, 0], ..p() },
                AffineError::Zero { row: 1, group: 1, zero: 9, bits },
            ),
            (
                AffineParts { g_idx: Some(vec![0; 4]), ..p() },
                AffineError::Length { part: "g_idx", expected: 5, found: 4 },
            ),
            (
                AffineParts { g_idx: Some(vec![0, 0, 3, 0, 0]), ..p() },
                AffineError::GroupIndex { column: 2, group: 3, groups: 3 },
            ),
        ];
        for (parts, error) in cases {
            assert_eq!(AffineMatrix::from_parts(parts), Err(error));
        }
        let matrix = AffineMatrix::from_parts(parts()).unwrap();
        let short = AffineError::Length { part: "out", expected: 10, found: 9 };
        assert_eq!(matrix.dequantize_into(&mut [0.0; 9]), Err(short));
    }

    #[test]
    fn bits_have_a_range() {
        assert!([0, 1, 9, 255].into_iter().all(|bits| Bits::new(bits).is_none()));
        let codes = (2..=8).map(|bits| Bits::new(bits).unwrap()).map(|b| (b.max_code(), b.middle()));
        assert_eq!(codes.collect::<Vec<_>>(), [(3, 2), (7, 4), (15, 8), (31, 16), (63, 32), (127, 64), (255, 128)]);
    }
}
