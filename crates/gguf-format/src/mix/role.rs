//! What a tensor is, read from its name; whether it may be quantized at all; where it stands in the file.

use super::TensorDesc;

/// The broad kind of a weight: the rows of the rule's table are by kind, not by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// `token_embd.weight`, `per_layer_token_embd.weight`.
    TokenEmbedding,
    /// `output.weight`.
    Output,
    /// `attn_q`.
    AttentionQ,
    /// `attn_k`.
    AttentionK,
    /// `attn_v`, the fused `attn_qkv`, and `attn_kv_b`: the part of attention that suffers most from few bits.
    AttentionV,
    /// `attn_output`.
    AttentionOutput,
    /// `ffn_up`, experts included.
    FfnUp,
    /// `ffn_gate`, experts included.
    FfnGate,
    /// `ffn_down`, experts included.
    FfnDown,
    /// Anything else.
    Other,
}

/// First match wins; a name need only contain the text.
const BY_CONTENT: &[(&str, Role)] = &[
    ("attn_qkv.weight", Role::AttentionV),
    ("attn_kv_b.weight", Role::AttentionV),
    ("attn_v.weight", Role::AttentionV),
    ("attn_k.weight", Role::AttentionK),
    ("attn_q.weight", Role::AttentionQ),
    ("attn_output.weight", Role::AttentionOutput),
    ("ffn_up", Role::FfnUp),
    ("ffn_gate", Role::FfnGate),
    ("ffn_down", Role::FfnDown),
];

impl Role {
    /// The role of the tensor of this name (`tensor_get_category` in src/llama-quant.cpp).
    pub fn of(name: &str) -> Self {
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::TokenEmbedding,
            _ => BY_CONTENT.iter().find(|(text, _)| name.contains(text)).map_or(Self::Other, |&(_, role)| role),
        }
    }
}

/// Names that are never quantized: norms, routers, and tables too small or too delicate to gain from it.
const NEVER: &[&str] = &[
    "_norm.weight",
    // which expert a token goes to
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    // tiny, or small beside the rest
    "altup",
    "laurel",
    "per_layer_model_proj",
    // convolutions and indexers
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    // RWKV's small two-dimensional weights
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    // relative positions, pictures, sound
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Whole names that are never quantized.
const NEVER_NAMED: &[&str] = &["position_embd.weight", "token_types.weight"];

/// More of them in `glm5-next`.
const NEVER_IN_GLM5_NEXT: &[&str] = &[
    "hc_",
    "indexer.attn_q_b",
    "indexer.attn_k",
    "indexer.proj",
    "indexer_compressor_gate",
    "indexer_compressor_ape",
    "ssm_f_a.weight",
    "ssm_f_b.weight",
    "ssm_g_a.weight",
    "ssm_g_b.weight",
    "ssm_beta.weight",
    "attn_kv_a_mqa.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
];

/// Whether the rule may touch the tensor (`tensor_allows_quantization` in src/llama-quant.cpp): two or more dimensions, a name that
/// ends in `weight`, and not one of the names above.
pub(super) fn may_quantize(tensor: &TensorDesc<'_>, architecture: &str) -> bool {
    let has = |list: &[&str]| list.iter().any(|text| tensor.name.contains(text));
    dimensions(tensor.shape) >= 2
        && tensor.name.ends_with("weight")
        && !has(NEVER)
        && !NEVER_NAMED.contains(&tensor.name)
        && !(architecture == "glm5-next" && has(NEVER_IN_GLM5_NEXT))
}

/// Dimensions as ggml counts them: leading (slowest) dimensions of length 1 do not count.
fn dimensions(shape: &[u64]) -> usize {
    shape.len() - shape.iter().take_while(|&&n| n == 1).count().min(shape.len().saturating_sub(1))
}

/// The number in `blk.N.`; `None` where the name has none.
pub fn layer_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("blk.")?;
    let (digits, _) = rest.split_once('.')?;
    digits.parse().ok()
}

/// The order in which llama-quantize visits and writes tensors: those outside the layers, then layer by layer, by name within each.
pub fn file_order(a: &str, b: &str) -> std::cmp::Ordering {
    layer_of(a).cmp(&layer_of(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GgmlType;

    #[test]
    fn roles() {
        for (name, role) in [
            ("output.weight", Role::Output),
            ("token_embd.weight", Role::TokenEmbedding),
            ("blk.3.attn_qkv.weight", Role::AttentionV),
            ("blk.3.attn_kv_b.weight", Role::AttentionV),
            ("blk.3.attn_q_a.weight", Role::Other),
            ("blk.3.ffn_down_exps.weight", Role::FfnDown),
            ("blk.3.ffn_gate_shexp.weight", Role::FfnGate),
            ("blk.3.attn_output.weight", Role::AttentionOutput),
            ("enc.blk.3.attn_v.weight", Role::AttentionV),
        ] {
            assert_eq!(Role::of(name), role, "{name}");
        }
    }

    #[test]
    fn eligibility() {
        let case = |name, shape| may_quantize(&TensorDesc { name, shape, ty: GgmlType::F16 }, "llama");
        assert!(case("blk.0.attn_q.weight", &[64, 64]));
        assert!(case("blk.0.attn_q.weight", &[64, 1]));
        assert!(!case("blk.0.attn_q.weight", &[1, 64]));
        assert!(!case("blk.0.attn_norm.weight", &[64]));
        assert!(!case("blk.0.ffn_gate_inp.weight", &[8, 64]));
        assert!(!case("blk.0.attn_q.bias", &[64]));
        assert!(!case("position_embd.weight", &[1024, 64]));
    }

    #[test]
    fn order_is_by_layer_then_name() {
        let mut names = ["blk.10.a", "token_embd.weight", "blk.2.b", "output.weight", "blk.2.a", "output_norm.weight"];
        names.sort_by(|a, b| file_order(a, b));
        assert_eq!(
            names,
            ["output.weight", "output_norm.weight", "token_embd.weight", "blk.2.a", "blk.2.b", "blk.10.a"]
        );
    }
}
