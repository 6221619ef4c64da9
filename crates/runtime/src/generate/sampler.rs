//! From logits to a token.
//!
//! The chain, in this order (llama.cpp's default):
//! 1. repetition penalty: the logit of every token among the last `repeat_last_n` is divided by the penalty if positive, else multiplied
//!    (Keskar et al., CTRL, arXiv 1909.05858);
//! 2. temperature 0 ends here: the largest logit, of equals the lowest id;
//! 3. top-k: the `k` largest logits stay;
//! 4. top-p: the fewest most likely tokens whose probabilities sum up to `p` stay (Holtzman et al., arXiv 1904.09751);
//! 5. min-p: tokens at least `min_p` times as likely as the likeliest stay (arXiv 2407.01082);
//! 6. temperature: logits divided by it, softmax, one draw.
//!
//! Probabilities of 4 and 5 are those at temperature 1, among what the steps before left. At least one token always stays.

use super::rng::SplitMix64;
use crate::{Error, Result};

/// How tokens are chosen. The default is llama.cpp's: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0: always the most likely token. Above: how flat the distribution is made.
    pub temperature: f32,
    /// Tokens that stay; 0: all.
    pub top_k: usize,
    /// Probability that stays; 1: all.
    pub top_p: f32,
    /// Least probability relative to the largest; 0: all stay.
    pub min_p: f32,
    /// Above 1: tokens seen become less likely; 1: nothing happens.
    pub repeat_penalty: f32,
    /// How far back tokens are seen, prompt included.
    pub repeat_last_n: usize,
    /// Equal seeds and logits give equal tokens.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, repeat_last_n: 64, seed: 0 }
    }
}

impl SamplingOptions {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// # Errors
    /// [`Error::Usage`] that names the option and its range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, (0.0..=1000.0).contains(&self.temperature), "0 to 1000"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min-p", self.min_p, (0.0..1.0).contains(&self.min_p), "0 to below 1"),
            (
                "repeat-penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0,
                "above 0, at most 100",
            ),
        ];
        for (name, value, good, range) in checks {
            if !good {
                return Err(Error::Usage(format!("{name} is {value}; it must be {range}")));
            }
        }
        Ok(())
    }
}

/// A candidate: its id and logit.
type Candidate = (u32, f32);

/// Chooses tokens; keeps the state of the random numbers.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: SplitMix64,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// # Errors
    /// [`Error::Usage`]: an option is out of range.
    pub fn new(options: SamplingOptions) -> Result<Self> {
        options.validate()?;
        let rng = SplitMix64::new(options.seed);
        Ok(Self { options, rng, candidates: Vec::new() })
    }

    /// The next token. `logits` has one per id; `seen` are the tokens so far, prompt included.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if a logit is NaN or none is finite: the weights are broken, and any token would be a lie.
    pub fn sample(&mut self, logits: &[f32], seen: &[u32]) -> Result<u32> {
        self.candidates.clear();
        self.candidates.extend((0u32..).zip(logits.iter().copied()));
        if let Some(id) = logits.iter().position(|l| l.is_nan()) {
            return Err(Error::Unsupported(format!("sampling from these weights: the logit of token {id} is NaN")));
        }
        self.penalize(seen);
        let Some(&best) = self.candidates.iter().min_by(|a, b| likelier(a, b)).filter(|best| best.1.is_finite()) else {
            return Err(Error::Unsupported("sampling from these weights: no logit is finite".to_owned()));
        };
        if self.options.temperature == 0.0 {
            return Ok(best.0);
        }
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p(best.1);
        Ok(self.draw(best))
    }

    fn penalize(&mut self, seen: &[u32]) {
        let penalty = self.options.repeat_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = &seen[seen.len().saturating_sub(self.options.repeat_last_n)..];
        let mut recent = recent.to_vec();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            if let Some((_, logit)) = self.candidates.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.options.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier);
            self.candidates.truncate(k);
        }
    }

    fn keep_top_p(&mut self) {
        let p = f64::from(self.options.top_p);
        self.candidates.sort_unstable_by(likelier);
        if p >= 1.0 {
            return;
        }
        let weights = weights(&self.candidates, 1.0);
        let enough = p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let kept = weights.iter().take_while(|&&weight| {
            let more = sum < enough;
            sum += weight;
            more
        });
        let kept = kept.count().max(1);
        self.candidates.truncate(kept);
    }

    fn keep_min_p(&mut self, best: f32) {
        if self.options.min_p > 0.0 {
            let least = best + self.options.min_p.ln();
            self.candidates.retain(|&(_, logit)| logit >= least);
        }
    }

    fn draw(&mut self, best: Candidate) -> u32 {
        let weights = weights(&self.candidates, f64::from(self.options.temperature));
        let mut point = self.rng.next_f64() * weights.iter().sum::<f64>();
        for (&(id, _), weight) in self.candidates.iter().zip(weights) {
            if point < weight {
                return id;
            }
            point -= weight;
        }
        // Rounding can carry the point past the last weight.
        self.candidates.last().unwrap_or(&best).0
    }
}

/// The larger logit first, of equals the lower id: a total order, so that results do not depend on the sort.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// exp((logit - largest) / temperature).
fn weights(candidates: &[Candidate], temperature: f64) -> Vec<f64> {
    let largest = candidates.iter().map(|c| c.1).fold(f32::NEG_INFINITY, f32::max);
    candidates.iter().map(|&(_, logit)| (f64::from(logit - largest) / temperature).exp()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off() -> SamplingOptions {
        SamplingOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingOptions::default() }
    }

    /// How often each token comes in 20,000 draws.
    fn shares(options: SamplingOptions, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut sampler = Sampler::new(options).expect("good options");
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.sample(logits, seen).expect("samples") as usize] += 1;
        }
        counts.into_iter().map(|n| f64::from(n) / 20_000.0).collect()
    }

    // Logits are logarithms of 0.5, 0.25, 0.15, 0.1, so every expected share is a fraction worked out by hand.
    #[test]
    fn distributions() {
        let logits: Vec<f32> = [0.25f32, 0.5, 0.1, 0.15].iter().map(|p| p.ln()).collect();
        let cases: &[(&str, SamplingOptions, [f64; 4])] = &[
            ("all", off(), [0.25, 0.5, 0.1, 0.15]),
            ("top-k 2", SamplingOptions { top_k: 2, ..off() }, [1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0]),
            ("top-k 1", SamplingOptions { top_k: 1, ..off() }, [0.0, 1.0, 0.0, 0.0]),
            // 0.5 + 0.25 reach 0.7; the third would not be needed.
            ("top-p 0.7", SamplingOptions { top_p: 0.7, ..off() }, [1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0]),
            ("top-p 0.01", SamplingOptions { top_p: 0.01, ..off() }, [0.0, 1.0, 0.0, 0.0]),
            // 0.25 * 0.5 = 0.125: 0.1 goes.
            ("min-p 0.25", SamplingOptions { min_p: 0.25, ..off() }, [0.25 / 0.9, 0.5 / 0.9, 0.0, 0.15 / 0.9]),
            // Temperature 0.5 squares: 0.0625, 0.25, 0.01, 0.0225, sum 0.345.
            (
                "temperature 0.5",
                SamplingOptions { temperature: 0.5, ..off() },
                [0.0625 / 0.345, 0.25 / 0.345, 0.01 / 0.345, 0.0225 / 0.345],
            ),
            // The cut comes before the temperature: with 100 in front, all four would pass min-p 0.25.
            (
                "min-p, hot",
                SamplingOptions { min_p: 0.25, temperature: 1000.0, ..off() },
                [1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0],
            ),
            // top-p among what top-k left: 0.5 of 0.75 is 0.67.
            ("top-k 2, top-p 0.6", SamplingOptions { top_k: 2, top_p: 0.6, ..off() }, [0.0, 1.0, 0.0, 0.0]),
        ];
        for (name, options, expected) in cases {
            let found = shares(options.clone(), &logits, &[]);
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 0.015 && (*e > 0.0 || *f == 0.0), "{name}: {found:?}, expected {expected:?}");
            }
        }
    }

    #[test]
    fn greedy_and_penalty() {
        let greedy = |penalty: f32, last_n: usize, logits: &[f32], seen: &[u32]| {
            let options =
                SamplingOptions { repeat_penalty: penalty, repeat_last_n: last_n, ..SamplingOptions::greedy() };
            Sampler::new(options).expect("good").sample(logits, seen).expect("samples")
        };
        let logits = [1.0, 4.0, 3.0, -1.0];
        assert_eq!(greedy(1.0, 64, &logits, &[1]), 1);
        assert_eq!(greedy(2.0, 64, &logits, &[1, 1, 1]), 2, "4/2 once, not three times");
        assert_eq!(greedy(2.0, 64, &logits, &[1, 2]), 1, "2 against 1.5");
        assert_eq!(greedy(2.0, 1, &logits, &[1, 2]), 1, "only the last is seen");
        assert_eq!(greedy(2.0, 0, &logits, &[1, 2]), 1);
        assert_eq!(greedy(3.0, 64, &[-1.0, -2.0], &[0]), 1, "a negative logit is multiplied");
        assert_eq!(greedy(1.0, 64, &[2.0, 5.0, 5.0], &[]), 1, "of equals the lowest id");
        assert_eq!(greedy(2.0, 64, &logits, &[99]), 1, "an id that has no logit");
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let tokens = |seed| {
            let mut sampler = Sampler::new(SamplingOptions { seed, ..SamplingOptions::default() }).expect("good");
            (0..12).map(|_| sampler.sample(&logits, &[]).expect("samples")).collect::<Vec<u32>>()
        };
        assert_eq!(tokens(1), tokens(1));
        assert_ne!(tokens(1), tokens(2));
    }

    #[test]
    fn bad_input_is_an_error() {
        let mut sampler = Sampler::new(SamplingOptions::default()).expect("good");
        for logits in [&[][..], &[f32::NAN, 1.0], &[f32::NEG_INFINITY; 2], &[f32::INFINITY, 0.0]] {
            assert!(sampler.sample(logits, &[]).is_err(), "{logits:?}");
        }
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, 0.0], &[]).expect("one is finite"), 1);
        let bad = [
            SamplingOptions { temperature: -1.0, ..off() },
            SamplingOptions { temperature: f32::NAN, ..off() },
            SamplingOptions { top_p: 0.0, ..off() },
            SamplingOptions { min_p: 1.0, ..off() },
            SamplingOptions { repeat_penalty: 0.0, ..off() },
        ];
        for options in bad {
            assert!(matches!(Sampler::new(options.clone()), Err(Error::Usage(_))), "{options:?}");
        }
    }
}
