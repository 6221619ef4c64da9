//! How far a model's distributions are from a base's.

use super::percentile;

/// Kullback-Leibler divergence of the base's distribution from the model's, `Σ p_base (ln p_base − ln p)`, in nats, over the scored
/// positions. Percentiles as [`percentile`] defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlSummary {
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub mean_stderr: f64,
    /// Median.
    pub median: f64,
    /// 90 % of the positions are below.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// The worst position.
    pub max: f64,
}

/// A model against a base, over the same positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivergenceReport {
    /// Perplexity of the base.
    pub base_ppl: f64,
    /// Positions compared.
    pub positions: u64,
    /// Divergence.
    pub kl: KlSummary,
    /// Share of positions where both put the same token first, in 0..1.
    pub same_top1: f64,
    /// Standard error of that share.
    pub same_top1_stderr: f64,
    /// Mean of `p(token) − p_base(token)` over the tokens that really follow, in −1..1. Negative: the model is less sure of the text.
    pub delta_p_mean: f64,
    /// Root of the mean square of the same difference.
    pub delta_p_rms: f64,
}

/// The scores of one position, against a base.
#[derive(Clone, Copy, Debug)]
pub(super) struct PositionDivergence {
    pub(super) kl: f64,
    pub(super) same_top1: bool,
    /// `ln p` of the next token by base and model, where there is one.
    pub(super) log_probs: Option<(f64, f64)>,
}

/// Collects positions; 8 bytes a position are kept for the percentiles.
#[derive(Debug, Default)]
pub(super) struct Divergence {
    kl: Vec<f64>,
    same: u64,
    base_nll: f64,
    delta: f64,
    delta_squares: f64,
    predicted: u64,
}

impl Divergence {
    pub(super) fn add(&mut self, p: PositionDivergence) {
        self.kl.push(p.kl);
        self.same += u64::from(p.same_top1);
        if let Some((base, model)) = p.log_probs {
            let delta = model.exp() - base.exp();
            self.base_nll -= base;
            self.delta += delta;
            self.delta_squares += delta * delta;
            self.predicted += 1;
        }
    }

    /// The figures; NaN where there is no position to take them from.
    pub(super) fn finish(mut self) -> DivergenceReport {
        self.kl.sort_by(f64::total_cmp);
        let n = self.kl.len() as f64;
        let mean = self.kl.iter().sum::<f64>() / n;
        let squares = self.kl.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        let same = self.same as f64 / n;
        let predicted = self.predicted as f64;
        DivergenceReport {
            base_ppl: (self.base_nll / predicted).exp(),
            positions: self.kl.len() as u64,
            kl: KlSummary {
                mean,
                mean_stderr: (squares / n / (n - 1.0).max(1.0)).sqrt(),
                median: percentile(&self.kl, 0.5),
                p90: percentile(&self.kl, 0.9),
                p99: percentile(&self.kl, 0.99),
                p99_9: percentile(&self.kl, 0.999),
                max: percentile(&self.kl, 1.0),
            },
            same_top1: same,
            same_top1_stderr: (same * (1.0 - same) / (n - 1.0).max(1.0)).sqrt(),
            delta_p_mean: self.delta / predicted,
            delta_p_rms: (self.delta_squares / predicted).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        let mut d = Divergence::default();
        let half = 0.5f64.ln();
        d.add(PositionDivergence { kl: 0.3, same_top1: true, log_probs: Some((half, 0.25f64.ln())) });
        d.add(PositionDivergence { kl: 0.1, same_top1: false, log_probs: Some((half, 0.75f64.ln())) });
        d.add(PositionDivergence { kl: 0.2, same_top1: true, log_probs: None });
        let r = d.finish();
        assert_eq!(r.positions, 3);
        assert!((r.base_ppl - 2.0).abs() < 1e-12);
        assert!((r.kl.mean - 0.2).abs() < 1e-12 && (r.kl.median - 0.2).abs() < 1e-12 && r.kl.max == 0.3);
        assert!((r.kl.p90 - 0.28).abs() < 1e-12);
        assert!((r.same_top1 - 2.0 / 3.0).abs() < 1e-12);
        assert!(r.delta_p_mean.abs() < 1e-12 && (r.delta_p_rms - 0.25).abs() < 1e-12);
        assert!((r.kl.mean_stderr - (0.02f64 / 3.0 / 2.0).sqrt()).abs() < 1e-12);
    }
}
