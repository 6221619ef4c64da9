//! What the search does not take.

/// Input that no scales can be searched on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SmoothError {
    /// A group without matrices.
    #[error("no weight matrices")]
    NoMembers,
    /// A slice of another length than its shape says.
    #[error("{name}: {expected} values expected, found {found}")]
    Length {
        /// What it holds.
        name: &'static str,
        /// Values that it should have.
        expected: usize,
        /// Values that it has.
        found: usize,
    },
    /// No input features, or rows that are not whole.
    #[error("{values} values are not whole rows of {columns}")]
    Rows {
        /// Values given.
        values: usize,
        /// Of a row.
        columns: usize,
    },
    /// A number of a tie beyond the channels.
    #[error("channel {channel} shares the scale of {tie}, of {channels} channels")]
    Tie {
        /// The channel.
        channel: usize,
        /// Its number.
        tie: u32,
        /// How many there are.
        channels: usize,
    },
    /// A value is NaN or infinite.
    #[error("{name}: {value} in row {row}, column {column}")]
    NotFinite {
        /// Weights of which member, or `rows`.
        name: String,
        /// The value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A strength outside 0 to 1.
    #[error("a strength of {0}: 0 to 1")]
    Strength(f64),
}
