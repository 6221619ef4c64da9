//! Rotations put into a model: it computes what it did, and large values of single channels are spread over many.
//!
//! | what is rotated | where it is folded in | turned back in |
//! |---|---|---|
//! | the residual stream | embeddings; rows and biases of o and down | columns of q, k, v, gate, up and of the head |
//! | the values of each head | rows and bias of v | columns of o |
//! | what down reads | nowhere: by a transform at run time | columns of down |
//!
//! An RMS norm divides by the length of a row, which a rotation leaves, and multiplies by a weight per channel, which it does not: the weight goes into the
//! columns of the linears behind the norm, and becomes 1. A head that is the embedding matrix becomes one of its own, as it then has the last norm's weight
//! in it and the embeddings have not. Attention mixes the rows of v head by head, linearly, so that o may turn them back. `down` reads a product of two
//! linears, which no rotation goes through. QuaRot: arXiv 2404.00456, section 4.
//!
//! Every rotation is a Walsh-Hadamard transform in blocks, its own inverse: [`quant_core::rotation`].

use crate::ModelConfig;
use quant_core::rotation::Rotation;

/// Channels of a block, at the most. The largest power of two that divides the width is taken where it is smaller.
pub const LARGEST_BLOCK: usize = 128;

/// The rotations of a model. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotations {
    /// Of the residual stream.
    residual: Option<Rotation>,
    /// Of the values of all heads, of what o reads; blocks lie within a head.
    values: Option<(Rotation, Rotation)>,
    /// Of what down reads.
    down: Option<Rotation>,
}

/// What rotations do to a matrix. The weights of a norm come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TensorRotation {
    /// Columns are multiplied by the weight of this norm.
    pub(crate) norm: Option<String>,
    /// Then every row is rotated,
    pub(crate) in_rows: Option<Rotation>,
    /// then every column.
    pub(crate) in_columns: Option<Rotation>,
}

impl Rotations {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those that the weights can hold: of the residual stream and of values.
    pub fn folded(config: &ModelConfig) -> Self {
        let of = |width, largest| Some(Rotation::dividing(width, largest)).filter(|r| !r.is_identity());
        let residual = of(config.hidden_size, LARGEST_BLOCK);
        let head = Rotation::dividing(config.head_dim, LARGEST_BLOCK);
        let values = (!head.is_identity())
            .then(|| (Rotation::new(config.kv_dim(), head.block()), Rotation::new(config.q_dim(), head.block())));
        Self { residual, values, down: None }
    }

    /// Those, and of what down reads, at run time.
    pub fn with_down(config: &ModelConfig) -> Self {
        let down = Some(Rotation::dividing(config.intermediate_size, LARGEST_BLOCK)).filter(|r| !r.is_identity());
        Self { down, ..Self::folded(config) }
    }

    /// Whether nothing is rotated.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The rotation of what down reads: not in the weights of what comes before.
    pub fn down(&self) -> Option<Rotation> {
        self.down
    }

    /// The rotation of the residual stream, which the embeddings have.
    pub fn residual(&self) -> Option<Rotation> {
        self.residual
    }

    /// Whether the head is no longer the embedding matrix.
    pub fn unties(&self) -> bool {
        self.residual.is_some()
    }

    /// Whether a bias or the weight of a norm becomes another, by its GGUF name.
    pub(crate) fn changes_vector(&self, gguf_name: &str) -> bool {
        // Nothing is rotated of no length.
        self.apply_to_vector(gguf_name, &mut [])
    }

    /// What happens to a matrix, by its GGUF name; `None` if nothing does.
    pub(crate) fn of_matrix(&self, gguf_name: &str) -> Option<TensorRotation> {
        let behind = |norm: String| TensorRotation {
            norm: self.residual.map(|_| norm),
            in_rows: self.residual,
            in_columns: None,
        };
        let fold = match gguf_name {
            "token_embd.weight" => TensorRotation { in_rows: self.residual, ..TensorRotation::default() },
            "output.weight" => behind("output_norm.weight".into()),
            _ => {
                let (layer, part) = gguf_name.strip_prefix("blk.")?.split_once('.')?;
                let norm = |part: &str| behind(format!("blk.{layer}.{part}.weight"));
                match part {
                    "attn_q.weight" | "attn_k.weight" => norm("attn_norm"),
                    "attn_v.weight" => TensorRotation { in_columns: self.values.map(|v| v.0), ..norm("attn_norm") },
                    "attn_output.weight" => {
                        TensorRotation { norm: None, in_rows: self.values.map(|v| v.1), in_columns: self.residual }
                    }
                    "ffn_gate.weight" | "ffn_up.weight" => norm("ffn_norm"),
                    "ffn_down.weight" => TensorRotation { norm: None, in_rows: self.down, in_columns: self.residual },
                    _ => return None,
                }
            }
        };
        (fold != TensorRotation::default()).then_some(fold)
    }

    /// Rotates a bias or makes a norm's weight 1, by its GGUF name; whether anything changed.
    pub(crate) fn apply_to_vector(&self, gguf_name: &str, values: &mut [f32]) -> bool {
        let part = gguf_name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(gguf_name, |p| p.1);
        let rotation = match part {
            "attn_norm.weight" | "ffn_norm.weight" | "output_norm.weight" => {
                if self.residual.is_some() {
                    values.fill(1.0);
                }
                return self.residual.is_some();
            }
            "attn_output.bias" | "ffn_down.bias" => self.residual,
            "attn_v.bias" => self.values.map(|v| v.0),
            _ => None,
        };
        if let Some(rotation) = rotation.filter(|r| r.width() == values.len()) {
            rotation.apply(values);
        }
        rotation.is_some()
    }
}

impl TensorRotation {
    /// Applies to a whole matrix of `columns` columns; `norm` is the weight of the norm it names.
    pub(crate) fn apply(&self, columns: usize, norm: Option<&[f32]>, values: &mut [f32]) {
        if let Some(norm) = norm {
            for row in values.chunks_exact_mut(columns.max(1)) {
                row.iter_mut().zip(norm).for_each(|(v, w)| *v *= w);
            }
        }
        if let Some(rotation) = self.in_rows {
            rotation.apply_to_rows(values);
        }
        if let Some(rotation) = self.in_columns {
            rotation.apply_to_columns(values, columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_divide_their_width() {
        let json = serde_json::json!({"model_type": "llama", "hidden_size": 96, "intermediate_size": 7, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 8});
        let mut config = ModelConfig::from_config_json(&json, std::path::Path::new("x")).unwrap();
        let all = Rotations::with_down(&config);
        assert_eq!(all.residual.unwrap().block(), 32);
        let (v, o) = all.values.unwrap();
        assert_eq!((v.block(), v.width(), o.block(), o.width()), (8, 48, 8, 96));
        assert_eq!((all.down(), all.unties()), (None, true));
        config.hidden_size = 95;
        let some = Rotations::folded(&config);
        assert!(!some.unties() && !some.is_none());
        assert_eq!(some.of_matrix("blk.0.attn_q.weight"), None);
        assert_eq!(some.of_matrix("blk.0.attn_v.weight").unwrap().norm, None);
        let mut norm = [2.0; 95];
        assert!(!some.apply_to_vector("blk.0.attn_norm.weight", &mut norm) && norm == [2.0; 95]);
    }
}
