//! How a matrix is searched and rounded.

use crate::AwqError;
use quant_core::affine::Bits;

/// Options of [`search_scales`](crate::search_scales), [`search_clip`](crate::search_clip) and [`round`](crate::round).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Bits of a code.
    pub bits: Bits,
    /// Columns that share a scale; `None` for a whole row (-1 in files). Where it does not divide `in_features`, the last group is shorter;
    /// `AffineMatrix` allows that, most readers of checkpoints do not.
    pub group_size: Option<usize>,
    /// Each group has a zero point (`zero_point` of AWQ's config). Without, every zero point is the middle of the grid, and a scale has the
    /// sign that puts the code without a counterpart on the larger side.
    pub zero_point: bool,
    /// Steps of the ratio from 0 to 1: `grid + 1` ratios with duo scaling, `grid` plain ones, and no scaling at all. AutoAWQ has 20.
    pub grid: usize,
    /// Rows of a matrix that the ratios are compared on, spread evenly; the best are then compared on all rows. 0 for all.
    pub grid_rows: usize,
    /// Passes of the clip search over the groups of a row that count what the errors of the other groups do to the output, too. 0 for one pass in which each
    /// group is alone, as in AutoAWQ.
    pub sweeps: usize,
    /// Added to the Gram matrix's diagonal while clips are searched, as a part of its mean: what the text did not use may be used later.
    pub damp: f64,
    /// The least part of the loss, on the statistics that were kept back, that a scale or a clip has to save to be taken.
    pub margin: f64,
}

impl Options {
    /// With zero points, AutoAWQ's grid of 20, 256 rows, one sweep, damping of 0.01, a margin of 0.02.
    pub fn new(bits: Bits, group_size: Option<usize>) -> Self {
        Self { bits, group_size, zero_point: true, grid: 20, grid_rows: 256, sweeps: 1, damp: 0.01, margin: 0.02 }
    }

    pub(crate) fn check(&self) -> Result<(), AwqError> {
        if self.group_size == Some(0) {
            return Err(AwqError::GroupSize);
        }
        if self.grid == 0 {
            return Err(AwqError::Grid);
        }
        if !(0.0..=1.0).contains(&self.margin) {
            return Err(AwqError::Margin(self.margin));
        }
        if !(self.damp.is_finite() && self.damp >= 0.0) {
            return Err(AwqError::Damp(self.damp));
        }
        Ok(())
    }

    /// Columns of a group of a matrix with `in_features` columns.
    pub(crate) fn group_of(&self, in_features: usize) -> usize {
        self.group_size.unwrap_or(in_features).min(in_features)
    }
}
