//! What the search knows of a layer's input: once for all matrices that read it.

use crate::AwqError;
use crate::loss::Gram;
use crate::scale_search::Declined;
use quant_core::input_stats::InputStats;

/// The statistics of one input, ready for searching: once for q/k/v, once for gate/up.
///
/// Two squares of `n` columns in f32: 8 n² bytes.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub(crate) fit: Gram,
    pub(crate) check: Option<Gram>,
    /// `mean |x|` of the rows to fit to.
    pub(crate) abs_mean: Vec<f64>,
}

impl Inputs {
    /// `fit` is what scales and clips are fitted to; `check` is another share of the calibration text, which must confirm them. Without
    /// it the fit is believed.
    ///
    /// # Errors
    /// [`AwqError::NoGram`]; [`AwqError::Shape`] for no columns; [`AwqError::Length`] if the two are of different widths.
    pub fn new(fit: &InputStats, check: Option<&InputStats>) -> Result<Self, AwqError> {
        let n = fit.columns();
        if n == 0 || n.checked_mul(n).is_none() {
            return Err(AwqError::Shape { out_features: 0, in_features: n });
        }
        if let Some(check) = check.filter(|check| check.columns() != n) {
            return Err(AwqError::Length { name: "check", expected: n, found: check.columns() });
        }
        let count = fit.count().max(1) as f64;
        Ok(Self {
            fit: Gram::new(fit)?,
            check: check.map(Gram::new).transpose()?,
            abs_mean: fit.abs_sum().iter().map(|sum| sum / count).collect(),
        })
    }

    /// Why nothing can be searched, if so.
    pub(crate) fn unusable(&self) -> Option<Declined> {
        if self.abs_mean.iter().all(|&a| a == 0.0) {
            return Some(Declined::NoInput);
        }
        let finite = self.fit.is_finite() && self.check.as_ref().is_none_or(Gram::is_finite);
        (!finite).then_some(Declined::NonFinite)
    }

    /// The kept-back share, if it holds anything.
    pub(crate) fn kept_back(&self) -> Option<&Gram> {
        self.check.as_ref().filter(|check| check.count > 0)
    }

    /// Columns of the matrices that read this input.
    pub fn in_features(&self) -> usize {
        self.fit.dim()
    }
}
