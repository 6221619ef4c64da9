//! What can go wrong, by whose fault.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. After one, a cache holds what it held before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A length or a count that does not fit the others.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// What fits.
        expected: String,
        /// What was given.
        found: usize,
    },
    /// A name that is no codec and no preset, or a codec that cannot be used so.
    #[error("{what}: {why}")]
    Unsupported {
        /// The codec, preset or option.
        what: String,
        /// Why not.
        why: String,
    },
    /// A key or value that is infinite or not a number.
    #[error("{side} of token {token}, head {head}, channel {channel}: {value}")]
    NonFinite {
        /// `key` or `value`.
        side: &'static str,
        /// Index in the rows given.
        token: usize,
        /// Key/value head.
        head: usize,
        /// Channel in the head.
        channel: usize,
        /// What was found.
        value: f32,
    },
    /// A key or value too large for the half-precision numbers of a block.
    #[error("{side} of token {token}, head {head}: {value:e} is beyond half precision")]
    Overflow {
        /// `key` or `value`.
        side: &'static str,
        /// Index in the rows given.
        token: usize,
        /// Key/value head.
        head: usize,
        /// The largest magnitude of the row, centred and rotated.
        value: f32,
    },
    /// The pool has no room for the blocks that the tokens need.
    #[error("the pool of {limit} bytes has {free} left, {needed} are needed")]
    PoolFull {
        /// Bytes the pool may hold.
        limit: usize,
        /// Bytes left.
        free: usize,
        /// Bytes asked for.
        needed: usize,
    },
    /// Exported bytes that are damaged, or of another cache.
    #[error("exported cache, byte {offset}: {what}: expected {expected}, found {found}")]
    Malformed {
        /// Where.
        offset: usize,
        /// The field.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
}

pub(crate) fn shape<T>(what: &'static str, expected: impl Into<String>, found: usize) -> Result<T> {
    Err(Error::Shape { what, expected: expected.into(), found })
}

pub(crate) fn unsupported<T>(what: impl Into<String>, why: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { what: what.into(), why: why.into() })
}
