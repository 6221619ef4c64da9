//! What the scales do to one tensor.

use super::Folds;
use crate::model::LinearSite;

/// Factors of a tensor's rows and columns. A vector is a matrix of one column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFold {
    /// Rows are divided by these.
    pub rows: Option<Vec<f32>>,
    /// Columns are multiplied by these.
    pub columns: Option<Vec<f32>>,
}

impl TensorFold {
    /// Applies to the rows from `first_row` on, of `row_len` values each.
    pub fn apply(&self, first_row: usize, row_len: usize, values: &mut [f32]) {
        for (row, values) in values.chunks_exact_mut(row_len.max(1)).enumerate() {
            if let Some(columns) = &self.columns {
                values.iter_mut().zip(columns).for_each(|(v, s)| *v *= s);
            }
            if let Some(&s) = self.rows.as_ref().and_then(|rows| rows.get(first_row + row)) {
                values.iter_mut().for_each(|v| *v /= s);
            }
        }
    }
}

impl Folds {
    /// What happens to a tensor, by its GGUF name; `None` if nothing does.
    pub fn of_tensor(&self, gguf_name: &str) -> Option<TensorFold> {
        let (layer, part) = gguf_name.strip_prefix("blk.")?.split_once('.')?;
        let l: usize = layer.parse().ok()?;
        let scales = |site| self.scales.get(&site).cloned();
        let values = || {
            let (group, head_dim) = self.heads?;
            let of_heads = self.scales.get(&LinearSite::AttentionOutput(l))?;
            let first = of_heads.chunks_exact((group * head_dim).max(1)).flat_map(|heads| &heads[..head_dim]);
            Some(first.copied().collect::<Vec<f32>>())
        };
        let fold = match part {
            "attn_norm.weight" => TensorFold { rows: scales(LinearSite::AttentionInput(l)), columns: None },
            "attn_q.weight" | "attn_k.weight" => {
                TensorFold { rows: None, columns: scales(LinearSite::AttentionInput(l)) }
            }
            "attn_v.weight" => TensorFold { rows: values(), columns: scales(LinearSite::AttentionInput(l)) },
            "attn_v.bias" => TensorFold { rows: values(), columns: None },
            "attn_output.weight" => TensorFold { rows: None, columns: scales(LinearSite::AttentionOutput(l)) },
            "ffn_norm.weight" => TensorFold { rows: scales(LinearSite::FfnInput(l)), columns: None },
            "ffn_gate.weight" => TensorFold { rows: None, columns: scales(LinearSite::FfnInput(l)) },
            "ffn_up.weight" => {
                TensorFold { rows: scales(LinearSite::FfnDown(l)), columns: scales(LinearSite::FfnInput(l)) }
            }
            "ffn_up.bias" => TensorFold { rows: scales(LinearSite::FfnDown(l)), columns: None },
            "ffn_down.weight" => TensorFold { rows: None, columns: scales(LinearSite::FfnDown(l)) },
            _ => return None,
        };
        (fold != TensorFold::default()).then_some(fold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_divided_and_columns_multiplied() {
        let fold = TensorFold { rows: Some(vec![1.0, 2.0, 4.0]), columns: Some(vec![1.0, 8.0]) };
        let mut values = [1.0, 1.0, 1.0, 1.0];
        fold.apply(1, 2, &mut values);
        assert_eq!(values, [0.5, 4.0, 0.25, 2.0]);
        let mut norm = [3.0, 3.0];
        TensorFold { rows: Some(vec![1.0, 2.0]), columns: None }.apply(0, 1, &mut norm);
        assert_eq!(norm, [3.0, 1.5]);
    }
}
