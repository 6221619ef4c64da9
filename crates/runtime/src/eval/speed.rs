//! How fast a model reads a prompt and writes tokens. Tokenization and sampling are left out, as in llama.cpp's `llama-bench`.

use crate::{CacheChoice, Error, LogitRows, Model, Result};
use std::time::Instant;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeedOptions {
    /// Tokens of the prompt test, run in one forward pass; 0 leaves the test out.
    pub prompt: usize,
    /// Tokens of the decode test, one forward pass each; 0 leaves the test out.
    pub generate: usize,
    /// Measurements of each test.
    pub repetitions: usize,
    /// Tokens that the cache holds before each test starts.
    pub depth: usize,
    /// What keys and values are stored as.
    pub cache: CacheChoice,
}

/// The measurements of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeedResult {
    /// `pp512` or `tg64`.
    pub test: String,
    /// Tokens per second, in the order measured.
    pub samples: Vec<f64>,
}

impl SpeedResult {
    /// Median of the samples.
    pub fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        super::percentile(&sorted, 0.5)
    }

    /// Mean of the samples.
    pub fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / self.samples.len() as f64
    }

    /// Standard deviation of the samples (n − 1); zero for one sample.
    pub fn stddev(&self) -> f64 {
        let mean = self.mean();
        let squares = self.samples.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
        (squares / (self.samples.len() as f64 - 1.0).max(1.0)).sqrt()
    }
}

/// Measures prompt and decode speed on pseudo-random tokens, after one unmeasured run of each test.
///
/// # Errors
/// [`Error::Usage`] if nothing is to be measured or the context is too short for it; what the model reports.
pub fn measure_speed(
    model: &Model,
    options: SpeedOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<SpeedResult>> {
    let SpeedOptions { prompt, generate, repetitions, depth, cache } = options;
    if repetitions == 0 || prompt + generate == 0 {
        return Err(Error::Usage(
            "nothing to measure: no repetitions, or neither prompt nor generated tokens".to_owned(),
        ));
    }
    let (context, vocab) = (model.config().max_context, model.config().vocab_size);
    let needed = depth.saturating_add(prompt.max(generate));
    if needed > context {
        return Err(Error::Usage(format!("{needed} tokens (depth and test) do not fit the context of {context}")));
    }
    let mut cache = model.new_cache_of(cache)?;
    let tokens = pseudo_random_tokens(depth + prompt.max(generate), vocab);
    let (before, test) = tokens.split_at(depth);
    if !before.is_empty() {
        model.forward(before, &mut cache, LogitRows::None)?;
    }
    let mut results = Vec::new();
    let mut runs = 0;
    for (name, count, step) in [("pp", prompt, prompt), ("tg", generate, 1)] {
        if count == 0 {
            continue;
        }
        let mut samples = Vec::with_capacity(repetitions);
        for repetition in 0..=repetitions {
            if cache.truncate(depth) < depth {
                model.forward(before, &mut cache, LogitRows::None)?;
            }
            let start = Instant::now();
            for piece in test[..count].chunks(step) {
                model.forward(piece, &mut cache, LogitRows::Last)?;
            }
            let seconds = start.elapsed().as_secs_f64();
            // The first run pays for page faults and growing buffers.
            if repetition > 0 {
                samples.push(count as f64 / seconds.max(1e-9));
            }
            runs += 1;
            progress(runs);
        }
        results.push(SpeedResult { test: format!("{name}{count}"), samples });
    }
    Ok(results)
}

/// Tokens without meaning, the same in every run (xorshift, Marsaglia 2003).
fn pseudo_random_tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % vocab.max(1) as u64) as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_by_hand() {
        let r = SpeedResult { test: "pp4".into(), samples: vec![3.0, 1.0, 2.0, 6.0] };
        assert_eq!((r.median(), r.mean()), (2.5, 3.0));
        assert!((r.stddev() - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(SpeedResult { test: String::new(), samples: vec![1.0] }.stddev(), 0.0);
    }

    #[test]
    fn tokens_are_in_the_vocabulary() {
        let tokens = pseudo_random_tokens(1000, 7);
        assert!(tokens.iter().all(|&t| t < 7));
        assert!((0..7).all(|t| tokens.contains(&t)));
    }
}
