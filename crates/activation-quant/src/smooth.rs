//! SmoothQuant's scales (arXiv 2211.10438, section 4): a channel with large activations and small weights gives of the one to the other.
//!
//! `s_j = max|X_j|^a / max|W_j|^(1 − a)`, `W` all matrices that read the input. The paper has one strength `a` for a whole model, chosen by hand; here every
//! group has its own, found by rounding: the weights by output channel, the inputs by token, each to 8 bits, on rows of calibration text.

use crate::SmoothError;
use crate::loss::{Judge, check_finite};
use crate::{SampleRows, Scheme};

/// A weight matrix of a group.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// `[out_features, in_features]`, row-major.
    pub weights: &'a [f32],
    /// Rows.
    pub out_features: usize,
}

/// The matrices that read one input: q, k and v; o; gate and up; down. They share the scales.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The matrices, all of as many columns as the input.
    pub members: &'a [Member<'a>],
    /// For each channel the number of the scale it shares; `None` for one each. Of o under grouped-query attention: all query heads that read one value
    /// head share its scales.
    pub ties: Option<&'a [u32]>,
}

/// What the linears of a group read.
#[derive(Clone, Debug)]
pub struct Inputs {
    fit: SampleRows,
    check: Option<SampleRows>,
    /// `max |x|` by channel.
    abs_max: Vec<f32>,
}

impl Inputs {
    /// Scales are fitted to `fit`, and `check`, other rows, must confirm them. Without those the fit is believed.
    ///
    /// # Errors
    /// [`SmoothError::Length`] if the two are of different widths.
    pub fn new(fit: SampleRows, check: Option<SampleRows>) -> Result<Self, SmoothError> {
        let columns = fit.columns();
        if let Some(found) = check.as_ref().map(SampleRows::columns).filter(|n| *n != columns) {
            return Err(SmoothError::Length { name: "check", expected: columns, found });
        }
        let mut abs_max = vec![0.0f32; columns];
        for row in fit.values().chunks_exact(columns) {
            abs_max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
        }
        Ok(Self { fit, check, abs_max })
    }

    /// Raises the maxima by channel to these, which are of more rows than are held here.
    ///
    /// # Errors
    /// [`SmoothError::Length`].
    pub fn with_abs_max(mut self, abs_max: &[f32]) -> Result<Self, SmoothError> {
        let (expected, found) = (self.abs_max.len(), abs_max.len());
        if expected != found {
            return Err(SmoothError::Length { name: "abs_max", expected, found });
        }
        self.abs_max.iter_mut().zip(abs_max).for_each(|(a, &b)| *a = if b.is_finite() { a.max(b) } else { *a });
        Ok(self)
    }

    /// The rows that were kept back, if there are any, else those that were fitted to.
    pub fn kept_back(&self) -> &SampleRows {
        self.check.as_ref().unwrap_or(&self.fit)
    }

    /// The rows that are fitted to.
    pub fn fit(&self) -> &SampleRows {
        &self.fit
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.fit.columns()
    }
}

/// How scales are searched.
#[derive(Clone, Debug, PartialEq)]
pub struct SmoothOptions {
    /// The strengths to try, 0 to 1; no scales at all are always tried. One alone, with `margin` negative infinity, is taken as it is.
    pub strengths: Vec<f64>,
    /// The part of the loss that scales have to save on the rows that were kept back.
    pub margin: f64,
    /// Rows of a matrix that strengths are compared on.
    pub weight_rows: usize,
}

impl Default for SmoothOptions {
    fn default() -> Self {
        Self { strengths: (4..=20).map(|i| f64::from(i) * 0.05).collect(), margin: 0.02, weight_rows: 512 }
    }
}

impl SmoothOptions {
    /// This strength everywhere, believed without a check, as the paper does.
    pub fn fixed(strength: f64) -> Self {
        Self { strengths: vec![strength], margin: f64::NEG_INFINITY, ..Self::default() }
    }
}

/// Why there are no scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// No strength saves the margin.
    NoGain,
    /// What was saved on the rows fitted to was not saved on those kept back.
    NotConfirmed,
    /// All rows are zero.
    NoInput,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Smoothing {
    /// By channel; the geometric mean is about 1. Ones if declined.
    pub values: Vec<f32>,
    /// The strength; 0 if declined.
    pub strength: f64,
    /// The loss with the scales beside that without, on the rows fitted to: the mean over the matrices of the quotients.
    pub loss: f64,
    /// The same without scales: 1.
    pub plain_loss: f64,
    /// The quotient on the rows kept back.
    pub check_loss: Option<f64>,
    /// Why there are none.
    pub declined: Option<Declined>,
}

/// The scales of a group.
///
/// The loss of a matrix is the squared error of its outputs. Outputs of q may have hundreds of times the loss of those of v, and a softmax takes most of it:
/// each matrix counts by what becomes of its own loss, and the mean of these quotients decides.
///
/// # Errors
/// Any of [`SmoothError`] but `Rows`.
pub fn smooth(inputs: &Inputs, group: &Group<'_>, options: &SmoothOptions) -> Result<Smoothing, SmoothError> {
    let columns = inputs.columns();
    group.check(columns)?;
    if let Some(&bad) = options.strengths.iter().find(|a| !(0.0..=1.0).contains(*a)) {
        return Err(SmoothError::Strength(bad));
    }
    let none = |declined, check_loss| Smoothing {
        values: vec![1.0; columns],
        strength: 0.0,
        loss: 1.0,
        plain_loss: 1.0,
        check_loss,
        declined: Some(declined),
    };
    if inputs.abs_max.iter().all(|&m| m == 0.0) {
        return Ok(none(Declined::NoInput, None));
    }
    let maxima = Maxima::new(inputs, group);
    let fit = Quotients::new(&inputs.fit, group, options.weight_rows);
    let candidates = options.strengths.iter().map(|&a| {
        let scales = maxima.scales(a);
        (fit.mean(&scales), a, scales)
    });
    let Some((loss, strength, values)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else {
        return Ok(none(Declined::NoGain, None));
    };
    let enough = 1.0 - options.margin;
    if loss.is_nan() || loss >= enough {
        return Ok(none(Declined::NoGain, None));
    }
    let check_loss = inputs.check.as_ref().map(|rows| Quotients::new(rows, group, options.weight_rows).mean(&values));
    if check_loss.is_some_and(|loss| loss.is_nan() || loss >= enough) {
        return Ok(none(Declined::NotConfirmed, check_loss));
    }
    Ok(Smoothing { values, strength, loss, plain_loss: 1.0, check_loss, declined: None })
}

impl Group<'_> {
    pub(crate) fn check(&self, columns: usize) -> Result<(), SmoothError> {
        if self.members.is_empty() {
            return Err(SmoothError::NoMembers);
        }
        for (index, member) in self.members.iter().enumerate() {
            let (expected, found) = (member.out_features.saturating_mul(columns), member.weights.len());
            if expected != found || expected == 0 {
                return Err(SmoothError::Length { name: "weights", expected, found });
            }
            check_finite(&format!("weights {index}"), member.weights, columns)?;
        }
        let Some(ties) = self.ties else { return Ok(()) };
        if ties.len() != columns {
            return Err(SmoothError::Length { name: "ties", expected: columns, found: ties.len() });
        }
        match ties.iter().position(|&tie| tie as usize >= columns) {
            Some(channel) => Err(SmoothError::Tie { channel, tie: ties[channel], channels: columns }),
            None => Ok(()),
        }
    }
}

/// The largest activation and weight of each channel.
struct Maxima {
    x: Vec<f64>,
    w: Vec<f64>,
}

impl Maxima {
    fn new(inputs: &Inputs, group: &Group<'_>) -> Self {
        let columns = inputs.columns();
        let mut w = vec![0.0f32; columns];
        for row in group.members.iter().flat_map(|m| m.weights.chunks_exact(columns)) {
            w.iter_mut().zip(row).for_each(|(max, v)| *max = max.max(v.abs()));
        }
        let tied = |values: &[f32]| -> Vec<f64> {
            let mut values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            if let Some(ties) = group.ties {
                let mut shared = vec![0.0f64; values.len()];
                ties.iter().zip(&values).for_each(|(&t, v)| shared[t as usize] = shared[t as usize].max(*v));
                values.iter_mut().zip(ties).for_each(|(v, &t)| *v = shared[t as usize]);
            }
            // A channel that is never used, or of no weight, is as the least of the others.
            let least = values.iter().copied().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
            let least = if least.is_finite() { least } else { 1.0 };
            values.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { least });
            values
        };
        Self { x: tied(&inputs.abs_max), w: tied(&w) }
    }

    /// `x^a / w^(1 − a)`, of geometric mean 1, from 1/1024 to 1024.
    fn scales(&self, strength: f64) -> Vec<f32> {
        let logs: Vec<f64> =
            self.x.iter().zip(&self.w).map(|(x, w)| strength * x.ln() - (1.0 - strength) * w.ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
        logs.iter().map(|log| (log - mean).exp().clamp(1.0 / 1024.0, 1024.0) as f32).collect()
    }
}

/// The mean over the matrices of each one's loss beside its loss without scales.
struct Quotients<'a> {
    judge: Judge<'a>,
    plain: Vec<f64>,
}

impl<'a> Quotients<'a> {
    fn new(rows: &'a SampleRows, group: &Group<'_>, weight_rows: usize) -> Self {
        let judge = Judge::new(rows, group, weight_rows);
        let plain = judge.losses(Scheme::INT8, None);
        Self { judge, plain }
    }

    fn mean(&self, scales: &[f32]) -> f64 {
        let losses = self.judge.losses(Scheme::INT8, Some(scales));
        let of = |(loss, &plain): (f64, &f64)| if plain > 0.0 { loss / plain } else { 1.0 + loss };
        losses.into_iter().zip(&self.plain).map(of).sum::<f64>() / self.plain.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: usize = 48;

    /// About normal, but for some channels that are multiplied.
    fn rows(count: usize, seed: u64, factors: &[(usize, f32)]) -> SampleRows {
        let values = (0..count * COLUMNS).map(|i| {
            let uniform = |j: u64| {
                let mut z = (i as u64 * 12 + j).wrapping_add(seed << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
            };
            let normal = (0..12).map(uniform).sum::<f32>() - 6.0;
            factors.iter().find(|f| f.0 == i % COLUMNS).map_or(normal, |f| normal * f.1)
        });
        SampleRows::new(values.collect(), COLUMNS, None).unwrap()
    }

    fn weights(outs: usize, seed: u64) -> Vec<f32> {
        rows(outs, seed, &[]).values().to_vec()
    }

    #[test]
    fn large_channels_are_divided() {
        let (a, b) = (weights(32, 3), weights(16, 4));
        let members = [Member { weights: &a, out_features: 32 }, Member { weights: &b, out_features: 16 }];
        let group = Group { members: &members, ties: None };
        let outliers = [(5, 60.0), (17, 25.0)];
        let inputs = Inputs::new(rows(64, 1, &outliers), Some(rows(32, 2, &outliers))).unwrap();
        let found = smooth(&inputs, &group, &SmoothOptions::default()).unwrap();
        assert_eq!(found.declined, None);
        assert!(found.loss < 0.2 && found.check_loss.unwrap() < 0.2 && found.strength >= 0.4, "{found:?}");
        assert!(found.values[5] > 3.0 && found.values[17] > 2.0 && found.values[0] < 1.5, "{:?}", found.values);
        let mean: f32 = found.values.iter().map(|v| v.ln()).sum::<f32>() / COLUMNS as f32;
        assert!(mean.abs() < 1e-4);
        // What is saved where scales were searched is saved by another's account too.
        let plain = crate::output_error(inputs.kept_back(), &group, Scheme::INT8, None, 64).unwrap();
        let scaled = crate::output_error(inputs.kept_back(), &group, Scheme::INT8, Some(&found.values), 64).unwrap();
        assert!(scaled < 0.2 * plain, "{scaled} {plain}");
    }

    #[test]
    fn what_does_not_help_is_declined() {
        let w = weights(32, 3);
        let members = [Member { weights: &w, out_features: 32 }];
        let group = Group { members: &members, ties: None };
        let options = SmoothOptions::default();
        let even = Inputs::new(rows(64, 1, &[]), Some(rows(32, 2, &[]))).unwrap();
        // Channels that happen to be a little larger than others still give some.
        let found = smooth(&even, &group, &SmoothOptions { margin: 0.3, ..options.clone() }).unwrap();
        assert_eq!((found.declined, found.strength), (Some(Declined::NoGain), 0.0));
        assert_eq!(found.values, [1.0; COLUMNS]);
        // Other channels are large on the rows that were kept back.
        let other = Inputs::new(rows(64, 1, &[(5, 60.0)]), Some(rows(32, 2, &[(6, 60.0)]))).unwrap();
        let found = smooth(&other, &group, &options).unwrap();
        assert_eq!(found.declined, Some(Declined::NotConfirmed));
        assert!(found.check_loss.unwrap() > 0.9, "{found:?}");
        let zeros = SampleRows::new(vec![0.0; 2 * COLUMNS], COLUMNS, None).unwrap();
        let found = smooth(&Inputs::new(zeros, None).unwrap(), &group, &options).unwrap();
        assert_eq!(found.declined, Some(Declined::NoInput));
    }

    #[test]
    fn a_strength_by_hand() {
        // max |x| 4, 1; max |w| 1, 4; s before the mean: 4^a / 1, 1 / 4^(1 − a).
        let rows = SampleRows::new(vec![4.0, 0.5, -2.0, 1.0], 2, None).unwrap();
        let inputs = Inputs::new(rows, None).unwrap();
        let members = [Member { weights: &[1.0, -4.0, 0.5, 2.0], out_features: 2 }];
        let group = Group { members: &members, ties: None };
        for (strength, first) in [(0.5, 2.0f32), (0.0, 2.0), (1.0, 2.0)] {
            let found = smooth(&inputs, &group, &SmoothOptions::fixed(strength)).unwrap();
            assert_eq!((found.strength, found.declined), (strength, None));
            assert!((found.values[0] - first).abs() < 1e-6 && (found.values[1] - 1.0 / first).abs() < 1e-6);
        }
        let tied = Group { ties: Some(&[1, 1]), ..group };
        assert_eq!(smooth(&inputs, &tied, &SmoothOptions::fixed(0.7)).unwrap().values, [1.0, 1.0]);
        let more = inputs.with_abs_max(&[64.0, 0.0]).unwrap();
        let found = smooth(&more, &group, &SmoothOptions::fixed(1.0)).unwrap();
        assert!((found.values[0] - 8.0).abs() < 1e-5, "{:?}", found.values);
    }

    #[test]
    fn odd_input_is_named() {
        let rows = |values: &[f32]| SampleRows::new(values.to_vec(), 2, None);
        assert_eq!(rows(&[]).unwrap_err(), SmoothError::Rows { values: 0, columns: 2 });
        assert_eq!(rows(&[1.0; 3]).unwrap_err(), SmoothError::Rows { values: 3, columns: 2 });
        let nan = rows(&[1.0, 1.0, f32::INFINITY, 1.0]).unwrap_err();
        assert_eq!(nan.to_string(), "rows: inf in row 1, column 0");
        assert!(matches!(SampleRows::new(vec![1.0; 4], 2, Some(vec![1.0])), Err(SmoothError::Length { .. })));
        let inputs = Inputs::new(rows(&[1.0, 2.0]).unwrap(), None).unwrap();
        let wide = SampleRows::new(vec![1.0; 3], 3, None).unwrap();
        assert!(Inputs::new(rows(&[1.0, 2.0]).unwrap(), Some(wide)).is_err());
        let of = |weights: &[f32], out_features, ties: Option<&[u32]>, options: &SmoothOptions| {
            let members = [Member { weights, out_features }];
            smooth(&inputs, &Group { members: &members, ties }, options).unwrap_err().to_string()
        };
        let options = SmoothOptions::default();
        let cases = [
            (of(&[1.0; 3], 2, None, &options), "weights: 4 values expected, found 3"),
            (of(&[], 0, None, &options), "weights: 0 values expected, found 0"),
            (of(&[1.0, 1.0, 1.0, f32::NAN], 2, None, &options), "weights 0: NaN in row 1, column 1"),
            (of(&[1.0; 2], 1, Some(&[0]), &options), "ties: 2 values expected, found 1"),
            (of(&[1.0; 2], 1, Some(&[0, 2]), &options), "channel 1 shares the scale of 2, of 2 channels"),
            (of(&[1.0; 2], 1, None, &SmoothOptions::fixed(1.5)), "a strength of 1.5: 0 to 1"),
            (of(&[1.0; 2], 1, None, &SmoothOptions::fixed(f64::NAN)), "a strength of NaN: 0 to 1"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
        let none = smooth(&inputs, &Group { members: &[], ties: None }, &options).unwrap_err();
        assert_eq!(none, SmoothError::NoMembers);
    }
}
