//! Scales judged by what a whole block makes of them.
//!
//! The Gram loss is the error of linear outputs. For o and down that is the error that the residual stream gets. q and k are read by a softmax, gate by
//! SiLU: there an error of the same size may do anything or nothing. Here the block is run, rounded, on a few sequences that were kept back.

use super::plan::{Module, awq_options};
use super::scales::failed;
use crate::Result;
use crate::model::{DenseWeights, LayerParts, LayerWalk, LinearSite};

/// A layer in full precision, and the sequences that it is judged on.
pub(super) struct BlockJudge<'a> {
    walk: &'a LayerWalk<'a>,
    parts: LayerParts,
    l: usize,
    /// Hidden state of each sequence where the layer begins.
    samples: &'a [Vec<f32>],
}

impl<'a> BlockJudge<'a> {
    /// `walk` has nothing folded in.
    pub(super) fn new(walk: &'a LayerWalk<'a>, l: usize, samples: &'a [Vec<f32>]) -> Result<Self> {
        Ok(Self { walk, parts: walk.layer(l)?, l, samples })
    }

    /// Whether the block of an input is more than its linears.
    pub(super) fn judges(site: LinearSite) -> bool {
        matches!(site, LinearSite::AttentionInput(_) | LinearSite::FfnInput(_))
    }

    /// Squared errors of the block's output for each of the scales, and before them that of plain rounding. `members` are the linears that read the input,
    /// with their weights.
    pub(super) fn losses(
        &self,
        site: LinearSite,
        members: &[(&Module, &[f32])],
        scales: &[&[f32]],
        options: &awq::Options,
    ) -> Result<Vec<f64>> {
        let attends = matches!(site, LinearSite::AttentionInput(_));
        let columns = members.first().map_or(0, |(module, _)| module.cols);
        let exact = DenseWeights {
            values: members.iter().flat_map(|(_, weights)| weights.iter().copied()).collect(),
            in_features: columns,
        };
        let after =
            self.walk.dense(if attends { LinearSite::AttentionOutput(self.l) } else { LinearSite::FfnDown(self.l) })?;
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let before = match attends {
            true => None,
            false => Some((
                self.walk.dense(LinearSite::AttentionInput(self.l))?,
                self.walk.dense(LinearSite::AttentionOutput(self.l))?,
            )),
        };
        for sample in self.samples {
            let input = match &before {
                None => self.parts.attention_input(sample)?,
                Some((qkv, o)) => {
                    let mut x = sample.clone();
                    let mixed = self.parts.attention(self.walk, qkv, &self.parts.attention_input(&x)?)?;
                    self.parts.add_attention(o, &mixed, &mut x)?;
                    self.parts.ffn_input(&x)?
                }
            };
            outputs.push(self.output(attends, &exact, &after, &input)?);
            inputs.push(input);
        }
        let ones = vec![1.0; columns];
        let all = std::iter::once(ones.as_slice()).chain(scales.iter().copied());
        let loss = |scales: &[f32]| {
            let rounded = round(members, scales, options)?;
            let mut sum = 0.0;
            for (input, exact) in inputs.iter().zip(&outputs) {
                let output = self.output(attends, &rounded, &after, input)?;
                sum += output.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            Ok(sum)
        };
        all.map(loss).collect()
    }

    fn output(&self, attends: bool, weights: &DenseWeights, after: &DenseWeights, input: &[f32]) -> Result<Vec<f32>> {
        let mut output = vec![0.0; input.len()];
        match attends {
            true => self.parts.add_attention(after, &self.parts.attention(self.walk, weights, input)?, &mut output)?,
            false => self.parts.add_ffn(after, &self.parts.gated(weights, input)?, &mut output)?,
        }
        Ok(output)
    }
}

/// The weights as scaling and rounding leave them, for an input that is not scaled.
fn round(members: &[(&Module, &[f32])], scales: &[f32], options: &awq::Options) -> Result<DenseWeights> {
    let mut dense = DenseWeights { values: Vec::new(), in_features: scales.len() };
    for (module, weights) in members {
        let options = module.spec.as_ref().map_or(*options, |spec| awq_options(options, spec));
        let rounded =
            awq::round(weights, module.rows, scales, None, None, &options).map_err(|e| failed(&module.name, e))?;
        let from = dense.values.len();
        super::sequential::push_dequantized(&mut dense.values, &rounded.matrix.into())?;
        for row in dense.values[from..].chunks_exact_mut(scales.len().max(1)) {
            row.iter_mut().zip(scales).for_each(|(v, s)| *v /= s);
        }
    }
    Ok(dense)
}
