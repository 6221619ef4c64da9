//! What the solver rounds to: any format in which a group of a row's weights shares parameters.

/// Rows that the solver handles side by side, one in each lane.
pub const LANES: usize = 64;

/// A format of groups: parameters per row and group, a code per weight.
///
/// The affine integer grid ([`AffineGrid`](crate::AffineGrid)) is one; a block type with a scale inside, such as ggml's, is another: its
/// block is the group, its scales are the parameters.
///
/// A *slot* is the place of a weight within its group, from 0. Implementations should be `#[inline(always)]`, as they are compiled
/// for the widest vectors of the machine only where they are inlined.
pub trait GroupCodec: Sync {
    /// What a group's weights share.
    type Params: Copy + Default + Send + Sync;

    /// Parameters for one row's group: `weights` and their `importance` (the loss of a unit error, squared), by slot. Both are finite,
    /// importance is positive.
    fn fit(&self, weights: &[f32], importance: &[f32]) -> Self::Params;

    /// How many neighbours of fitted parameters are worth a trial.
    fn variants(&self) -> usize {
        0
    }

    /// The neighbour `index < variants()`.
    fn variant(&self, fitted: &Self::Params, index: usize) -> Self::Params {
        let _ = index;
        *fitted
    }

    /// The code nearest to a weight, and the value it stands for.
    fn round(&self, params: &Self::Params, slot: usize, weight: f32) -> (u8, f32);

    /// The value that a code stands for.
    fn value(&self, params: &Self::Params, slot: usize, code: u8) -> f32;

    /// Parameters with which every code stands for about `factor` times as much, where there are such; all values must move by the same
    /// factor.
    fn rescaled(&self, params: &Self::Params, factor: f32) -> Self::Params {
        let _ = factor;
        *params
    }
}
