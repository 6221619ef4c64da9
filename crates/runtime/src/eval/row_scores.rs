//! One row of logits: log-softmax in f64, and the divergence of two rows.

/// A row of logits as a distribution: `log p_i = logits_i - log_sum`.
pub(super) struct Row<'a> {
    logits: &'a [f32],
    /// `ln Σ exp(logit)`.
    log_sum: f64,
    /// Index of the largest logit; the first of equals.
    pub(super) top: usize,
}

impl<'a> Row<'a> {
    /// `None` if the row is empty or a logit is not finite.
    pub(super) fn new(logits: &'a [f32]) -> Option<Self> {
        let (mut top, mut max, mut finite) = (0, f32::NEG_INFINITY, true);
        for (i, &v) in logits.iter().enumerate() {
            finite &= v.is_finite();
            if v > max {
                (top, max) = (i, v);
            }
        }
        if !finite || logits.is_empty() {
            return None;
        }
        let max = f64::from(max);
        let sum: f64 = logits.iter().map(|&v| (f64::from(v) - max).exp()).sum();
        Some(Self { logits, log_sum: max + sum.ln(), top })
    }

    /// `ln p` of one token, `None` outside the vocabulary.
    pub(super) fn log_prob(&self, token: u32) -> Option<f64> {
        self.logits.get(token as usize).map(|&v| f64::from(v) - self.log_sum)
    }

    /// `KL(self ‖ other) = Σ p (ln p − ln q)` in nats, of rows of equal length. Never below zero: a rounding error of the sum
    /// (about 1e-15) that would make it negative is cut.
    pub(super) fn kl_to(&self, other: &Row<'_>) -> f64 {
        let shift = other.log_sum - self.log_sum;
        let sum: f64 = self
            .logits
            .iter()
            .zip(other.logits)
            .map(|(&p, &q)| {
                let p = f64::from(p);
                (p - self.log_sum).exp() * (p - f64::from(q) + shift)
            })
            .sum();
        sum.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_by_hand() {
        // p = (1/4, 3/4), q = (1/2, 1/2)
        let (p, q) = ([0.0, 3.0f32.ln()], [5.0f32, 5.0]);
        let (p, q) = (Row::new(&p).unwrap(), Row::new(&q).unwrap());
        assert!((p.log_prob(1).unwrap() - 0.75f64.ln()).abs() < 1e-7);
        assert!((p.kl_to(&q) - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-7);
        assert_eq!((p.top, q.top), (1, 0));
        assert_eq!(p.kl_to(&p), 0.0);
        assert_eq!(p.log_prob(2), None);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let row = [1e30f32, -1e30, 0.0];
        let row = Row::new(&row).unwrap();
        assert_eq!(row.log_prob(0), Some(0.0));
        assert!(row.log_prob(1).unwrap() < -1e30);
    }

    #[test]
    fn rows_that_are_no_distribution() {
        for row in [&[][..], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY]] {
            assert!(Row::new(row).is_none(), "{row:?}");
        }
    }
}
