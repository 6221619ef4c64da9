//! Weight matrices of one byte a weight with a scale per row: what W8A8 models multiply rounded activations with.

use crate::float8::Float8;

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EightBitCode {
    /// A whole number −128..=127.
    Int8,
    /// An FP8 number of 4 bits of exponent and 3 of mantissa.
    E4M3,
}

/// Parts that do not make an [`EightBitMatrix`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EightBitError {
    /// Features that no matrix has.
    #[error("a matrix of {out_features} x {in_features}: neither may be zero, nor their product overflow")]
    Shape {
        /// Rows.
        out_features: usize,
        /// Columns.
        in_features: usize,
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
    /// A scale is NaN or infinite.
    #[error("scale of row {row} is {value}")]
    Scale {
        /// Output feature.
        row: usize,
        /// The scale.
        value: f32,
    },
    /// An E4M3 code is NaN.
    #[error("code at row {row}, column {column} is NaN")]
    Code {
        /// Output feature.
        row: usize,
        /// Input feature.
        column: usize,
    },
    /// Zero points beside codes that are floats.
    #[error("zero points with E4M3 codes")]
    Zeros,
}

/// The parts of an [`EightBitMatrix`]; [`EightBitMatrix::from_parts`] checks them.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBitParts {
    /// Rows.
    pub out_features: usize,
    /// Columns.
    pub in_features: usize,
    /// What a byte is.
    pub code: EightBitCode,
    /// `[out_features, in_features]`, row-major; E4M3 codes as the same bits.
    pub codes: Vec<i8>,
    /// `[out_features]`.
    pub scales: Vec<f32>,
    /// `[out_features]`: the code that stands for 0; `None` for 0. Of whole numbers only.
    pub zeros: Option<Vec<i8>>,
}

/// A weight matrix `[out_features, in_features]` of one byte a weight, `w = scale · (number − zero)` with the scale and the zero point of the row.
///
/// Codes and scales were checked when it was made, so access cannot fail.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBitMatrix {
    parts: EightBitParts,
}

impl EightBitMatrix {
    /// Checks the parts against each other. Zero points that are all 0 become `None`.
    ///
    /// # Errors
    /// [`EightBitError`] names the first part that is wrong.
    pub fn from_parts(mut parts: EightBitParts) -> Result<Self, EightBitError> {
        let EightBitParts { out_features, in_features, code, .. } = parts;
        let weights = out_features.checked_mul(in_features).filter(|&n| n > 0);
        let weights = weights.ok_or(EightBitError::Shape { out_features, in_features })?;
        let lengths = [
            ("codes", weights, parts.codes.len()),
            ("scales", out_features, parts.scales.len()),
            ("zeros", out_features, parts.zeros.as_ref().map_or(out_features, Vec::len)),
        ];
        if let Some(&(part, expected, found)) = lengths.iter().find(|(_, expected, found)| expected != found) {
            return Err(EightBitError::Length { part, expected, found });
        }
        if let Some((row, &value)) = parts.scales.iter().enumerate().find(|(_, scale)| !scale.is_finite()) {
            return Err(EightBitError::Scale { row, value });
        }
        if code == EightBitCode::E4M3 {
            if let Some(at) = parts.codes.iter().position(|&code| code as u8 & 0x7f == 0x7f) {
                return Err(EightBitError::Code { row: at / in_features, column: at % in_features });
            }
            if parts.zeros.is_some() {
                return Err(EightBitError::Zeros);
            }
        }
        if parts.zeros.as_ref().is_some_and(|zeros| zeros.iter().all(|&zero| zero == 0)) {
            parts.zeros = None;
        }
        Ok(Self { parts })
    }

    /// The parts again.
    pub fn into_parts(self) -> EightBitParts {
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

    /// What a byte is.
    pub fn code(&self) -> EightBitCode {
        self.parts.code
    }

    /// `[out_features, in_features]`, row-major; E4M3 codes as the same bits.
    pub fn codes(&self) -> &[i8] {
        &self.parts.codes
    }

    /// `[out_features]`.
    pub fn scales(&self) -> &[f32] {
        &self.parts.scales
    }

    /// `[out_features]`: the code that stands for 0; `None` for 0.
    pub fn zeros(&self) -> Option<&[i8]> {
        self.parts.zeros.as_deref()
    }

    /// Bits that one weight takes in a checkpoint: its byte, and its share of a scale of 32 bits and of a zero point, where there are such.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 + (if self.parts.zeros.is_some() { 40.0 } else { 32.0 }) / self.parts.in_features as f64
    }

    /// One row, `[in_features]`: `scale · (number − zero)` in f32.
    ///
    /// # Errors
    /// [`EightBitError::Length`] unless `out` holds `in_features` values and the row is one of the matrix.
    pub fn dequantize_row_into(&self, row: usize, out: &mut [f32]) -> Result<(), EightBitError> {
        let n = self.parts.in_features;
        if out.len() != n {
            return Err(EightBitError::Length { part: "out", expected: n, found: out.len() });
        }
        let expected = self.parts.out_features;
        let (Some(&scale), Some(codes)) = (self.parts.scales.get(row), self.parts.codes.get(row * n..(row + 1) * n))
        else {
            return Err(EightBitError::Length { part: "rows", expected, found: row });
        };
        match self.parts.code {
            EightBitCode::Int8 => {
                let zero = self.parts.zeros.as_ref().and_then(|zeros| zeros.get(row)).copied().unwrap_or(0);
                let number = |code: i8| f32::from(i16::from(code) - i16::from(zero));
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = scale * number(code));
            }
            EightBitCode::E4M3 => {
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = scale * Float8::E4M3.decode(code as u8));
            }
        }
        Ok(())
    }

    /// All rows.
    ///
    /// # Errors
    /// [`EightBitError::Length`] unless `out` holds `out_features · in_features` values.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<(), EightBitError> {
        if out.len() != self.parts.codes.len() {
            return Err(EightBitError::Length { part: "out", expected: self.parts.codes.len(), found: out.len() });
        }
        let mut rows = out.chunks_exact_mut(self.parts.in_features).enumerate();
        rows.try_for_each(|(row, out)| self.dequantize_row_into(row, out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> EightBitParts {
        EightBitParts {
            out_features: 2,
            in_features: 3,
            code: EightBitCode::Int8,
            codes: vec![-128, 0, 127, 1, 2, 3],
            scales: vec![0.5, -2.0],
            zeros: Some(vec![127, 2]),
        }
    }

    #[test]
    fn weights_by_hand() {
        let values = |parts: EightBitParts| {
            let matrix = EightBitMatrix::from_parts(parts).unwrap();
            let mut out = [0.0; 6];
            matrix.dequantize_into(&mut out).unwrap();
            out
        };
        assert_eq!(values(parts()), [-127.5, -63.5, 0.0, 2.0, 0.0, -2.0]);
        assert_eq!(values(EightBitParts { zeros: None, ..parts() }), [-64.0, 0.0, 63.5, -2.0, -4.0, -6.0]);
        let codes = [0x7e, 0xfeu8, 0x38, 0x01, 0x80, 0x08].map(|code| code as i8).to_vec();
        let floats = EightBitParts { code: EightBitCode::E4M3, codes, zeros: None, ..parts() };
        assert_eq!(values(floats), [224.0, -224.0, 0.5, -2.0 / 512.0, 0.0, -2.0 / 64.0]);
        let none = EightBitMatrix::from_parts(EightBitParts { zeros: Some(vec![0, 0]), ..parts() }).unwrap();
        assert_eq!((none.zeros(), none.bits_per_weight()), (None, 8.0 + 32.0 / 3.0));
    }

    #[test]
    fn parts_are_checked() {
        let p = parts;
        let floats = EightBitParts { code: EightBitCode::E4M3, zeros: None, codes: vec![0, 0, 0, 0, 127, 0], ..p() };
        for (parts, error) in [
            (EightBitParts { in_features: 0, ..p() }, EightBitError::Shape { out_features: 2, in_features: 0 }),
            (
                EightBitParts { out_features: usize::MAX, ..p() },
                EightBitError::Shape { out_features: usize::MAX, in_features: 3 },
            ),
            (
                EightBitParts { codes: vec![0; 5], ..p() },
                EightBitError::Length { part: "codes", expected: 6, found: 5 },
            ),
            (
                EightBitParts { scales: vec![1.0; 3], ..p() },
                EightBitError::Length { part: "scales", expected: 2, found: 3 },
            ),
            (
                EightBitParts { zeros: Some(vec![]), ..p() },
                EightBitError::Length { part: "zeros", expected: 2, found: 0 },
            ),
            (
                EightBitParts { scales: vec![1.0, f32::INFINITY], ..p() },
                EightBitError::Scale { row: 1, value: f32::INFINITY },
            ),
            (floats.clone(), EightBitError::Code { row: 1, column: 1 }),
            (EightBitParts { codes: vec![0; 6], zeros: Some(vec![1, 1]), ..floats }, EightBitError::Zeros),
        ] {
            assert_eq!(EightBitMatrix::from_parts(parts), Err(error));
        }
        let matrix = EightBitMatrix::from_parts(parts()).unwrap();
        assert!(matrix.dequantize_into(&mut [0.0; 5]).is_err());
        assert!(matrix.dequantize_row_into(2, &mut [0.0; 3]).is_err());
    }
}
