//! The matrices that share a scale, and what can be wrong with them.

use crate::AwqError;
use rayon::prelude::*;

/// A weight matrix of a group.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// `[out_features, in_features]`, row-major.
    pub weights: &'a [f32],
    /// Rows.
    pub out_features: usize,
}

/// The matrices that read one input: q, k and v; o; gate and up; down. They take the same scale.
#[derive(Clone, Copy, Debug)]
pub struct ScaleGroup<'a> {
    /// The matrices, all of as many columns as the input.
    pub members: &'a [Member<'a>],
    /// For each channel the number of the scale it shares; `None` for one each. Channels that are the same output of the operation before
    /// must share: with grouped-query attention channel `head · head_dim + i` of `o_proj` has number
    /// `head / (heads / kv_heads) · head_dim + i`, the row of `v_proj` that it comes from ([`grouped_query_ties`]).
    pub ties: Option<&'a [u32]>,
}

/// [`ScaleGroup::ties`] of `o_proj` under grouped-query attention, `heads · head_dim` long. `kv_heads` divides `heads`; if not, the last
/// heads share the last key/value head.
pub fn grouped_query_ties(heads: usize, kv_heads: usize, head_dim: usize) -> Vec<u32> {
    let (kv_heads, shared) = (kv_heads.max(1), (heads / kv_heads.max(1)).max(1));
    let tie = |head: usize, i: usize| ((head / shared).min(kv_heads - 1) * head_dim + i) as u32;
    (0..heads).flat_map(|head| (0..head_dim).map(move |i| tie(head, i))).collect()
}

/// Checks length and values of a matrix that is number `member` of its group.
pub(crate) fn check_matrix(
    weights: &[f32],
    out_features: usize,
    in_features: usize,
    member: usize,
) -> Result<(), AwqError> {
    let shape = AwqError::Shape { out_features, in_features };
    let expected = out_features.checked_mul(in_features).filter(|&n| n > 0).ok_or(shape)?;
    if weights.len() != expected {
        return Err(AwqError::Length { name: "weights", expected, found: weights.len() });
    }
    let bad_row = |row: &[f32]| !row.iter().all(|w| w.is_finite());
    if let Some(row) = weights.par_chunks(in_features).position_first(bad_row) {
        let column = weights[row * in_features..].iter().position(|w| !w.is_finite()).unwrap_or(0);
        return Err(AwqError::NonFiniteWeight { member, row, column });
    }
    Ok(())
}

impl ScaleGroup<'_> {
    pub(crate) fn check(&self, in_features: usize) -> Result<(), AwqError> {
        if self.members.is_empty() {
            return Err(AwqError::NoMembers);
        }
        for (index, member) in self.members.iter().enumerate() {
            check_matrix(member.weights, member.out_features, in_features, index)?;
        }
        let Some(ties) = self.ties else { return Ok(()) };
        if ties.len() != in_features {
            return Err(AwqError::Length { name: "ties", expected: in_features, found: ties.len() });
        }
        if let Some(channel) = ties.iter().position(|&tie| tie as usize >= in_features) {
            return Err(AwqError::Tie { channel, tie: ties[channel], channels: in_features });
        }
        Ok(())
    }

    /// `mean |w| / max |w of the group|` of each channel over all rows of all members: how large a channel's weights are beside those that share
    /// its grid. From 0 to 1.
    pub(crate) fn weight_mean(&self, in_features: usize, group_size: usize) -> Vec<f64> {
        /// Rows that one task sums.
        const ROWS: usize = 64;
        let of_rows = |rows: &[f32]| {
            let mut sums = vec![0.0f64; in_features];
            for row in rows.chunks_exact(in_features) {
                for (sums, group) in sums.chunks_mut(group_size).zip(row.chunks(group_size)) {
                    let max = group.iter().fold(0.0f32, |max, w| max.max(w.abs()));
                    let inverse = if max > 0.0 { 1.0 / f64::from(max) } else { 0.0 };
                    sums.iter_mut().zip(group).for_each(|(sum, w)| *sum += f64::from(w.abs()) * inverse);
                }
            }
            sums
        };
        let chunks: Vec<&[f32]> = self.members.iter().flat_map(|m| m.weights.chunks(ROWS * in_features)).collect();
        let parts: Vec<Vec<f64>> = chunks.into_par_iter().map(of_rows).collect();
        let rows: usize = self.members.iter().map(|m| m.out_features).sum();
        let mut mean = vec![0.0; in_features];
        for part in &parts {
            mean.iter_mut().zip(part).for_each(|(mean, sum)| *mean += sum / rows as f64);
        }
        mean
    }

    /// The mean over the channels of each tie, for each of them.
    pub(crate) fn tied_mean(&self, mut values: Vec<f64>) -> Vec<f64> {
        let Some(ties) = self.ties else { return values };
        let mut sums = vec![(0.0, 0usize); values.len()];
        for (&tie, value) in ties.iter().zip(&values) {
            let (sum, count) = &mut sums[tie as usize];
            *sum += value;
            *count += 1;
        }
        for (&tie, value) in ties.iter().zip(&mut values) {
            let (sum, count) = sums[tie as usize];
            *value = sum / count as f64;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_of_grouped_queries() {
        assert_eq!(grouped_query_ties(4, 2, 3), [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(grouped_query_ties(2, 2, 2), [0, 1, 2, 3]);
        assert_eq!(grouped_query_ties(3, 1, 1), [0, 0, 0]);
        assert_eq!(grouped_query_ties(0, 0, 1), Vec::<u32>::new());
    }

    #[test]
    fn means_by_hand() {
        let members = [
            Member { weights: &[1.0, -2.0, 0.0, 4.0], out_features: 1 },
            Member { weights: &[3.0, 3.0, 0.0, 0.0], out_features: 1 },
        ];
        let mut group = ScaleGroup { members: &members, ties: None };
        assert_eq!(group.weight_mean(4, 2), [0.75, 1.0, 0.0, 0.5]);
        assert_eq!(group.tied_mean(vec![1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
        group.ties = Some(&[2, 0, 2, 2]);
        assert_eq!(group.tied_mean(vec![1.0, 2.0, 3.0, 5.0]), [3.0, 2.0, 3.0, 3.0]);
    }
}
