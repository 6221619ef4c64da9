//! Scales put between two layers, folded into the weights on both sides: the model computes what it did, and rounds better.
//!
//! What a linear reads is divided by a positive scale per channel, and its columns are multiplied by it. The division is folded into what produces
//! the input:
//!
//! | input of | divided | multiplied |
//! |---|---|---|
//! | q, k, v | the attention norm | columns of q, k, v |
//! | o | rows and bias of v | columns of o |
//! | gate, up | the feed-forward norm | columns of gate, up |
//! | down | rows and bias of up | columns of down |
//!
//! Attention mixes the rows of v linearly, channel by channel, so o's input may be scaled as long as all query heads that read one key/value head share
//! its scales. `down` reads `silu(gate) · up`, linear in up. q and k norms (Qwen3) stand behind q and k, whose outputs do not change. This is AWQ's
//! transform (arXiv 2306.00978, section 3.2) and SmoothQuant's (arXiv 2211.10438, section 4), the one place that knows what feeds what.

//!
//! Rotations are the other map: [`Rotations`]. Where both are used, the scales are those of the rotated model.

mod exact;
mod file;
mod rotation;
mod tensors;

pub(crate) use exact::divide_stored;
pub(crate) use rotation::TensorRotation;
pub use rotation::{LARGEST_BLOCK, Rotations};
pub use tensors::TensorFold;

use crate::model::LinearSite;
use crate::{Error, ModelConfig, Result};
use std::collections::BTreeMap;

/// The scales of a model's inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folds {
    scales: BTreeMap<LinearSite, Vec<f32>>,
    /// Query heads per key/value head, channels of a head.
    heads: Option<(usize, usize)>,
}

impl Folds {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to fold.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Sets the scales of an input: what is read there is divided by them.
    ///
    /// # Errors
    /// [`Error::Usage`] for the head's input (its norm feeds a tied embedding too), another number of scales than the input has channels, a scale that
    /// is not positive and finite, or scales of o's input that differ between heads that share their values.
    pub fn insert(&mut self, config: &ModelConfig, site: LinearSite, scales: Vec<f32>) -> Result<()> {
        let wrong = |what: String| Err(Error::Usage(format!("scales of {site:?}: {what}")));
        let expected = match site {
            LinearSite::AttentionInput(_) | LinearSite::FfnInput(_) => config.hidden_size,
            LinearSite::AttentionOutput(_) => config.num_heads * config.head_dim,
            LinearSite::FfnDown(_) => config.intermediate_size,
            LinearSite::Output => return wrong("the head takes none".into()),
        };
        if scales.len() != expected {
            return wrong(format!("{expected} expected, found {}", scales.len()));
        }
        // The inverse has to be finite too.
        if let Some(c) = scales.iter().position(|s| !(s.is_normal() && *s > 0.0 && s.recip().is_finite())) {
            return wrong(format!("{} for channel {c}", scales[c]));
        }
        let heads = (config.num_heads / config.num_kv_heads.max(1), config.head_dim);
        if matches!(site, LinearSite::AttentionOutput(_)) {
            let (of_kv_head, head_dim) = ((heads.0 * heads.1).max(1), heads.1.max(1));
            let first = |c: usize| c / of_kv_head * of_kv_head + c % head_dim;
            if let Some(c) = (0..scales.len()).find(|&c| scales[c].to_bits() != scales[first(c)].to_bits()) {
                return wrong(format!("channel {c} differs from channel {}, which has the same values", first(c)));
            }
        }
        self.heads = Some(heads);
        self.scales.insert(site, scales);
        Ok(())
    }

    /// The scales of an input.
    pub fn scales(&self, site: LinearSite) -> Option<&[f32]> {
        self.scales.get(&site).map(Vec::as_slice)
    }

    /// Adds the scales of other inputs of the same model.
    pub(crate) fn extend(&mut self, other: Self) {
        self.heads = self.heads.or(other.heads);
        self.scales.extend(other.scales);
    }

    /// The scales of one layer's inputs.
    pub(crate) fn of_layer(&self, l: usize) -> Self {
        let scales = self.scales.iter().filter(|(site, _)| site.layer() == Some(l));
        Self { scales: scales.map(|(site, scales)| (*site, scales.clone())).collect(), heads: self.heads }
    }

    /// The inputs that have scales.
    pub fn sites(&self) -> impl Iterator<Item = LinearSite> {
        self.scales.keys().copied()
    }
}
