//! What cannot be quantized at all. Numerical trouble with the Hessian is none of it: see [`Fallback`](crate::Fallback).

/// Input that has no quantized form.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GptqError {
    /// No rows, no columns, or a product that overflows.
    #[error("a matrix of {out_features} x {in_features} cannot be quantized")]
    Shape {
        /// Rows.
        out_features: usize,
        /// Columns.
        in_features: usize,
    },
    /// A slice is of another length than the shape asks for.
    #[error("`{name}`: {expected} values expected, found {found}")]
    Length {
        /// Which slice.
        name: &'static str,
        /// Values the shape asks for.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A weight is NaN or infinite.
    #[error("weight at row {row}, column {column} is not finite")]
    NonFiniteWeight {
        /// Output feature.
        row: usize,
        /// Input feature.
        column: usize,
    },
    /// A value of the cross statistic is NaN or infinite.
    #[error("cross statistic at row {row}, column {column} is not finite")]
    NonFiniteCross {
        /// Row.
        row: usize,
        /// Column.
        column: usize,
    },
    /// The weights of a group are too large for an f16 scale.
    #[error("weights of row {row}, group {group} need a scale above the f16 range")]
    ScaleRange {
        /// Output feature.
        row: usize,
        /// Group.
        group: usize,
    },
    /// The statistics were gathered without their Gram matrix.
    #[error("the input statistics hold no Gram matrix")]
    NoGram,
    /// A group has at least one column.
    #[error("a group size of 0")]
    GroupSize,
    /// Damping is a finite number, not negative.
    #[error("damping of {0}: a finite number from 0 is expected")]
    Damp(f64),
    /// Shrinkage is a finite number, not negative.
    #[error("shrinkage of {0}: a finite number from 0 is expected")]
    Shrink(f64),
    /// The factor was made for another column order or group size.
    #[error("the factor was made for another column order or group size than the options ask for")]
    OtherOptions,
}
