//! How a matrix is quantized.

use quant_core::affine::Bits;

/// In which order columns are quantized. The earlier a column, the more others can make good its error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// As they stand.
    Natural,
    /// Within each group by falling activation, and the groups by that of their first: nearly all that `DescAct` gains, while groups
    /// stay runs of neighbours, so that no reader needs a `g_idx`.
    #[default]
    ActGroupAware,
    /// All by falling activation (`desc_act` of checkpoints).
    DescAct {
        /// Groups are runs of neighbours and their scales are fixed beforehand, from the weights as they are (no `g_idx`). Otherwise a
        /// group is what stands together in the new order, and the checkpoint needs a `g_idx`.
        static_groups: bool,
    },
}

/// How the scale of a group is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScaleSearch {
    /// The grid spans the smallest to the largest weight.
    MinMax,
    /// Least squared error of the group's weights.
    Mse,
    /// Least loss that is left after later columns made good what they can: squared errors weighted by the pivots of the
    /// factor, and the best few scales tried with error feedback through the group.
    #[default]
    Hessian,
}

/// From which weights a group's scale is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FitFrom {
    /// As they stand when the group's turn comes, with the errors of all columns before it made good.
    #[default]
    Updated,
    /// Without the errors of the same block of 128 columns, as in the authors' code. Only for comparison with it.
    BlockStart,
}

/// How the solver goes over the columns, for any codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Passes {
    /// From which weights parameters are found.
    pub fit_from: FitFrom,
    /// Sweeps after the first pass in which every code and scale may still change; 0 for GPTQ as published.
    pub refine: usize,
    /// Multiplies each row's scales, at the end, by what makes its output as large as it was.
    pub keep_gain: bool,
}

/// Options of [`quantize`](crate::quantize).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Bits of a code.
    pub bits: Bits,
    /// Columns that share a scale; `None` for a whole row (-1 in files). Where it does not divide `in_features`, the last group is
    /// shorter; `AffineMatrix` allows that, most readers of checkpoints do not.
    pub group_size: Option<usize>,
    /// Every zero point is the middle of the grid. Scales may then be negative: of both signs the better is taken, so that the code
    /// that has no counterpart is used for the larger side.
    pub symmetric: bool,
    /// Order of the columns.
    pub order: Order,
    /// Added to the Hessian's diagonal, as a part of its mean (`percdamp` of the paper's code).
    pub damp: f64,
    /// How little the correlations of few rows are believed: of the Hessian's other elements the part `c n / (c n + rows)` is taken away, for `n` columns
    /// and `c` this number; 0 for GPTQ as published. What a few thousand rows say of thousands of columns is partly chance, and what is fitted to chance
    /// costs on other text. It is the shrinkage of a covariance matrix towards its diagonal (Schäfer and Strimmer 2005, target D; Ledoit and Wolf 2004), with
    /// its intensity by rule instead of by estimate.
    pub shrink: f64,
    /// How scales are found.
    pub search: ScaleSearch,
    /// Sweeps after the first pass in which every code and scale may still change, each to what is best while all others stay; 0 for GPTQ as
    /// published. A sweep takes about as long as the first pass.
    pub refine: usize,
    /// Multiplies each row's scales, at the end, by what makes its output as large as it was (`w G wᵀ / q G wᵀ`, `G = Σ x xᵀ`). What is fitted by least squares, as searched
    /// scales and refined codes are, is a little too small, and in a row of layers that adds up as rounding noise does not. Not in GPTQ as published. At 2 bits it
    /// is a fifth of the divergence; at 4 there is next to nothing to be given back.
    pub keep_gain: bool,
}

impl Options {
    /// Asymmetric, act-group-aware order, damping 0.01, shrinkage 1, scales by the Hessian, one refining sweep, gain kept at 2 and 3 bits.
    pub fn new(bits: Bits, group_size: Option<usize>) -> Self {
        Self {
            bits,
            group_size,
            symmetric: false,
            order: Order::default(),
            damp: 0.01,
            shrink: 1.0,
            search: ScaleSearch::default(),
            refine: 1,
            keep_gain: bits.get() <= 3,
        }
    }
}
