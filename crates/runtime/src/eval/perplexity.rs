//! Scores a plan: perplexity, and divergence from a base in lockstep.

use super::divergence::{Divergence, DivergenceReport, PositionDivergence};
use super::row_scores::Row;
use super::{EvalPlan, EvalSequence, LogitSource, LogitsWriter};
use crate::{Error, Result};
use rayon::prelude::*;

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalReport {
    /// Tokens of a sequence.
    pub ctx: usize,
    /// Sequences run.
    pub chunks: usize,
    /// Tokens whose probability went into the perplexity.
    pub tokens_scored: u64,
    /// `exp(mean −ln p(token))`.
    pub ppl: f64,
    /// Its standard error by the field's formula, `ppl · √((E[x²] − E[x]²) / (n − 1))` with `x = −ln p`.
    pub ppl_stderr: f64,
    /// Against the base, if there was one.
    pub base: Option<DivergenceReport>,
    /// Bytes of a token in the key/value cache, if the source has one.
    pub cache_bytes_per_token: Option<usize>,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalProgress {
    /// Sequences done.
    pub done: usize,
    /// Sequences in all.
    pub total: usize,
    /// Perplexity so far.
    pub ppl: f64,
}

/// Runs `model`, and `base` beside it, over the sequences of `plan`, and scores them.
///
/// With `save`, all logits of `model` go to that file (which the caller finishes); the scores are the same.
/// Memory: the logits of one sequence of each source, and eight bytes per scored position.
///
/// # Errors
/// What a source reports; [`Error::Usage`] if the vocabularies differ in size, or a logit is not finite.
pub fn evaluate(
    plan: &EvalPlan,
    model: &mut dyn LogitSource,
    mut base: Option<&mut dyn LogitSource>,
    mut save: Option<&mut LogitsWriter>,
    progress: &mut dyn FnMut(EvalProgress),
) -> Result<EvalReport> {
    let vocab = model.vocab_size();
    if let Some(base) = &base
        && base.vocab_size() != vocab
    {
        return Err(Error::Usage(format!(
            "the base has {} tokens in its vocabulary, the model {vocab}: they cannot be compared",
            base.vocab_size()
        )));
    }
    let mut nll = NllSums::default();
    let mut divergence = base.is_some().then(Divergence::default);
    let total = plan.sequences().len();
    for (index, sequence) in plan.sequences().iter().enumerate() {
        let rows = if save.is_some() { 0..sequence.tokens.len() } else { sequence.scored.clone() };
        let skipped = sequence.scored.start - rows.start;
        let logits = model.logits(index, &sequence.tokens, rows)?;
        let base_logits = match &mut base {
            Some(base) => Some(base.logits(index, &sequence.tokens, sequence.scored.clone())?),
            None => None,
        };
        let scores = logits.with_values(|values| {
            if let Some(writer) = &mut save {
                writer.write(values)?;
            }
            let values = values.get(skipped * vocab..).unwrap_or(&[]);
            match &base_logits {
                None => score_rows(index, sequence, vocab, values, None),
                Some(base) => base.with_values(|b| score_rows(index, sequence, vocab, values, Some(b))),
            }
        })?;
        for score in scores {
            if let Some(log_prob) = score.log_prob {
                nll.add(-log_prob);
            }
            if let (Some(divergence), Some(d)) = (&mut divergence, score.divergence) {
                divergence.add(d);
            }
        }
        progress(EvalProgress { done: index + 1, total, ppl: nll.ppl() });
    }
    Ok(EvalReport {
        ctx: plan.ctx(),
        chunks: total,
        tokens_scored: nll.count,
        ppl: nll.ppl(),
        ppl_stderr: nll.ppl_stderr(),
        base: divergence.map(Divergence::finish),
        cache_bytes_per_token: model.cache_bytes_per_token(),
    })
}

/// Sums of `−ln p`.
#[derive(Debug, Default)]
struct NllSums {
    count: u64,
    sum: f64,
    squares: f64,
}

impl NllSums {
    fn add(&mut self, nll: f64) {
        self.count += 1;
        self.sum += nll;
        self.squares += nll * nll;
    }

    fn ppl(&self) -> f64 {
        (self.sum / self.count as f64).exp()
    }

    fn ppl_stderr(&self) -> f64 {
        let n = self.count as f64;
        let mean = self.sum / n;
        self.ppl() * ((self.squares / n - mean * mean).max(0.0) / (n - 1.0).max(1.0)).sqrt()
    }
}

/// The scores of one position.
struct PositionScore {
    log_prob: Option<f64>,
    divergence: Option<PositionDivergence>,
}

/// Scores the rows of one sequence on all threads; the order of the result is that of the rows.
fn score_rows(
    index: usize,
    sequence: &EvalSequence,
    vocab: usize,
    logits: &[f32],
    base: Option<&[f32]>,
) -> Result<Vec<PositionScore>> {
    let rows = sequence.scored.len();
    for values in [Some(logits), base].into_iter().flatten() {
        if vocab == 0 || values.len() < rows * vocab {
            return Err(Error::Usage(format!("sequence {index}: {} logits for {rows} rows of {vocab}", values.len())));
        }
    }
    (0..rows)
        .into_par_iter()
        .map(|i| {
            let position = sequence.scored.start + i;
            let row = |values| row_at(values, vocab, i, index, position);
            let model = row(("the model's", logits))?;
            let next = sequence.tokens.get(position + 1).copied();
            let log_prob = next.and_then(|t| model.log_prob(t));
            let divergence = match base {
                None => None,
                Some(base) => {
                    let base = row(("the base's", base))?;
                    Some(PositionDivergence {
                        kl: base.kl_to(&model),
                        same_top1: base.top == model.top,
                        log_probs: next.and_then(|t| Some((base.log_prob(t)?, log_prob?))),
                    })
                }
            };
            Ok(PositionScore { log_prob, divergence })
        })
        .collect()
}

fn row_at<'a>(
    (whose, values): (&str, &'a [f32]),
    vocab: usize,
    i: usize,
    index: usize,
    position: usize,
) -> Result<Row<'a>> {
    Row::new(&values[i * vocab..(i + 1) * vocab])
        .ok_or_else(|| Error::NotFinite(format!("{whose} logits after position {position} of sequence {index}")))
}

#[cfg(test)]
mod tests {
    use super::super::{Logits, LogitsFile, MemoryLogits};
    use super::*;
    use std::ops::Range;

    /// A model of five tokens whose logits depend on the token and on `noise`; it records what it was asked for.
    struct Fake {
        noise: f32,
        asked: Vec<Range<usize>>,
    }

    impl Fake {
        fn new(noise: f32) -> Self {
            Self { noise, asked: Vec::new() }
        }
    }

    impl LogitSource for Fake {
        fn vocab_size(&self) -> usize {
            5
        }
        fn logits(&mut self, _: usize, tokens: &[u32], rows: Range<usize>) -> Result<Logits> {
            self.asked.push(rows.clone());
            let noise = self.noise;
            let row = |&t: &u32| (0..5).map(move |i| ((t as f32 + 1.0) * i as f32).sin() + noise * (i as f32).cos());
            Ok(Logits::Values(tokens[rows].iter().flat_map(row).collect()))
        }
    }

    fn plan() -> EvalPlan {
        let tokens: Vec<u32> = (0..33).map(|i| i * 7 % 5).collect();
        EvalPlan::chunks(&tokens, Some(0), 8, None).unwrap()
    }

    #[test]
    fn perplexity_equals_the_definition() {
        let plan = plan();
        let mut fake = Fake::new(0.0);
        let mut steps = Vec::new();
        let report = evaluate(&plan, &mut fake, None, None, &mut |p| steps.push((p.done, p.total))).unwrap();
        let mut x = Vec::new();
        for s in plan.sequences() {
            for i in 4..=6 {
                let logits: Vec<f64> =
                    (0..5).map(|k| f64::from(((s.tokens[i] as f32 + 1.0) * k as f32).sin())).collect();
                let sum: f64 = logits.iter().map(|v| v.exp()).sum();
                x.push(sum.ln() - logits[s.tokens[i + 1] as usize]);
            }
        }
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let square = x.iter().map(|v| v * v).sum::<f64>() / n;
        assert_eq!((report.tokens_scored, report.chunks, report.ctx), (12, 4, 8));
        assert!((report.ppl - mean.exp()).abs() < 1e-9);
        assert!((report.ppl_stderr - mean.exp() * ((square - mean * mean) / (n - 1.0)).sqrt()).abs() < 1e-9);
        assert_eq!(fake.asked, vec![4..7; 4]);
        assert_eq!(steps, [(1, 4), (2, 4), (3, 4), (4, 4)]);
    }

    #[test]
    fn base_in_lockstep_in_memory_and_in_a_file_agree() {
        let plan = plan();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.safetensors");
        let mut quiet = |_| {};
        let mut writer = LogitsWriter::create(&path, &plan, 5).unwrap();
        let saved = evaluate(&plan, &mut Fake::new(0.0), None, Some(&mut writer), &mut quiet).unwrap();
        let len = writer.file_len();
        assert_eq!(writer.finish().unwrap(), len);
        assert_eq!(saved, evaluate(&plan, &mut Fake::new(0.0), None, None, &mut quiet).unwrap());

        let lockstep = evaluate(&plan, &mut Fake::new(0.2), Some(&mut Fake::new(0.0)), None, &mut quiet).unwrap();
        let mut memory = MemoryLogits::collect(&plan, &mut Fake::new(0.0)).unwrap();
        assert_eq!(lockstep, evaluate(&plan, &mut Fake::new(0.2), Some(&mut memory), None, &mut quiet).unwrap());
        let mut file = LogitsFile::open(&path).unwrap();
        let from_file = EvalPlan::from_logits(&mut file, None, None).unwrap();
        assert_eq!(from_file, plan);
        assert_eq!(lockstep, evaluate(&from_file, &mut Fake::new(0.2), Some(&mut file), None, &mut quiet).unwrap());

        let base = lockstep.base.unwrap();
        assert!((base.base_ppl - saved.ppl).abs() < 1e-12);
        assert!(base.kl.mean > 0.0 && base.kl.max >= base.kl.p99 && base.positions == 12);
        assert!(matches!(EvalPlan::from_logits(&mut file, Some(4), None), Err(Error::Usage(_))));
    }

    #[test]
    fn a_file_of_another_program_scores_every_position() {
        use crate::safetensors_io::{Dtype, SafetensorsWriter, TensorSpec};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.safetensors");
        let specs = [TensorSpec::new("logits", Dtype::F32, [6, 5]), TensorSpec::new("tokens", Dtype::I64, [6])];
        let tokens = [0, 1, 2, 3, 4, 0];
        let logits = Fake::new(0.0).logits(0, &tokens, 0..6).unwrap();
        let mut w = SafetensorsWriter::create(&path, &specs, &[]).unwrap();
        logits.with_values(|v| w.write_f32(v)).unwrap();
        w.write_i64(&tokens.map(i64::from)).unwrap();
        w.finish().unwrap();
        for (ctx, chunks, scored) in [(None, 1, 5), (Some(99), 1, 5), (Some(4), 2, 4)] {
            let mut file = LogitsFile::open(&path).unwrap();
            let plan = EvalPlan::from_logits(&mut file, ctx, None).unwrap();
            let r = evaluate(&plan, &mut Fake::new(0.0), Some(&mut file), None, &mut |_| {}).unwrap();
            let base = r.base.unwrap();
            assert_eq!((r.chunks, r.tokens_scored, base.positions), (chunks, scored, 6), "{ctx:?}");
            assert_eq!((base.kl.max, base.same_top1), (0.0, 1.0));
            assert!((base.base_ppl - r.ppl).abs() < 1e-12);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let plan = plan();
        let mut nan = Fake::new(f32::NAN);
        let error = evaluate(&plan, &mut nan, None, None, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("the model's logits after position 4 of sequence 0"), "{error}");
        let mut small = MemoryLogits::collect(&plan, &mut Fake::new(0.0)).unwrap();
        small.shrink_vocab();
        let error = evaluate(&plan, &mut Fake::new(0.0), Some(&mut small), None, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("4 tokens in its vocabulary"), "{error}");
    }
}
