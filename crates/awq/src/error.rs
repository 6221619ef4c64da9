//! What cannot be searched or rounded at all. Statistics that say nothing are none of it: see [`Declined`](crate::Declined).

/// Input that has no quantized form.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AwqError {
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
    /// A group of linears without a member.
    #[error("a scale group needs at least one matrix")]
    NoMembers,
    /// A weight is NaN or infinite.
    #[error("weight at row {row}, column {column} of matrix {member} is not finite")]
    NonFiniteWeight {
        /// Place of the matrix in its group; 0 for a matrix alone.
        member: usize,
        /// Output feature.
        row: usize,
        /// Input feature.
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
    /// A channel's scale is not a finite number above 0.
    #[error("scale of channel {channel} is {value}: a finite number above 0 is expected")]
    ChannelScale {
        /// Input feature.
        channel: usize,
        /// The scale.
        value: f32,
    },
    /// A channel shares a scale with a number that is not below the number of channels.
    #[error("channel {channel} is tied to {tie} of {channels}")]
    Tie {
        /// Input feature.
        channel: usize,
        /// The number of its shared scale.
        tie: u32,
        /// Channels.
        channels: usize,
    },
    /// The clip was searched for a matrix of other rows or groups.
    #[error("clip of {found_rows} x {found_groups} groups, the matrix has {rows} x {groups}")]
    Clip {
        /// Rows of the matrix.
        rows: usize,
        /// Groups of a row.
        groups: usize,
        /// Rows of the clip.
        found_rows: usize,
        /// Groups of a row of the clip.
        found_groups: usize,
    },
    /// The statistics were gathered without their Gram matrix.
    #[error("the input statistics hold no Gram matrix")]
    NoGram,
    /// A group has at least one column.
    #[error("a group size of 0")]
    GroupSize,
    /// The ratio grid has at least one step.
    #[error("a ratio grid of 0 steps")]
    Grid,
    /// Damping is a finite number, not negative.
    #[error("damping of {0}: a finite number from 0 is expected")]
    Damp(f64),
    /// A margin is a share from 0 to 1.
    #[error("a margin of {0}: a number from 0 to 1 is expected")]
    Margin(f64),
}
