//! Tensor names: Hugging Face's and GGUF's, one table, both ways.
//!
//! Facts from gguf-py's `tensor_mapping.py` and transformers' `modeling_{llama,mistral,qwen2,qwen3}.py`.

/// Modules outside the layers: GGUF, Hugging Face.
const MODEL: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Modules of a layer: `blk.N.` + GGUF, `model.layers.N.` + Hugging Face.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The Hugging Face name of a GGUF tensor: `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`. `None` if the table has no such
/// module.
pub fn hf_name(gguf_name: &str) -> Option<String> {
    let (module, suffix) = split_suffix(gguf_name)?;
    if let Some(rest) = module.strip_prefix("blk.") {
        let (layer, part) = split_layer(rest)?;
        let (_, hf) = LAYER.iter().find(|(gguf, _)| *gguf == part)?;
        return Some(format!("model.layers.{layer}.{hf}{suffix}"));
    }
    let (_, hf) = MODEL.iter().find(|(gguf, _)| *gguf == module)?;
    Some(format!("{hf}{suffix}"))
}

/// The GGUF name of a Hugging Face tensor, the inverse of [`hf_name`].
pub fn gguf_name(hf_name: &str) -> Option<String> {
    let (module, suffix) = split_suffix(hf_name)?;
    if let Some(rest) = module.strip_prefix("model.layers.") {
        let (layer, part) = split_layer(rest)?;
        let (gguf, _) = LAYER.iter().find(|(_, hf)| *hf == part)?;
        return Some(format!("blk.{layer}.{gguf}{suffix}"));
    }
    let (gguf, _) = MODEL.iter().find(|(_, hf)| *hf == module)?;
    Some(format!("{gguf}{suffix}"))
}

/// `x.weight` -> (`x`, `.weight`); the same for `.bias`.
fn split_suffix(name: &str) -> Option<(&str, &str)> {
    [".weight", ".bias"].into_iter().find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
}

/// `3.attn_q` -> (3, `attn_q`). Only the plain spelling of a number (`03` and `+3` are other names).
fn split_layer(rest: &str) -> Option<(usize, &str)> {
    let (number, part) = rest.split_once('.')?;
    let layer: usize = number.parse().ok()?;
    (layer.to_string() == number).then_some((layer, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.11.attn_v.bias", "model.layers.11.self_attn.v_proj.bias"),
            ("blk.2.attn_k_norm.weight", "model.layers.2.self_attn.k_norm.weight"),
            ("blk.2.attn_output.weight", "model.layers.2.self_attn.o_proj.weight"),
            ("blk.2.ffn_norm.weight", "model.layers.2.post_attention_layernorm.weight"),
            ("blk.2.attn_norm.weight", "model.layers.2.input_layernorm.weight"),
            ("blk.127.ffn_down.weight", "model.layers.127.mlp.down_proj.weight"),
        ];
        for (gguf, hf) in cases {
            assert_eq!(hf_name(gguf).as_deref(), Some(hf));
            assert_eq!(gguf_name(hf).as_deref(), Some(gguf));
        }
    }

    #[test]
    fn unknown_names() {
        for name in
            ["", "rope_freqs.weight", "blk.attn_q.weight", "blk.01.attn_q.weight", "blk.0.attn_q", "blk.0.x.weight"]
        {
            assert_eq!(hf_name(name), None, "{name}");
        }
        for name in
            ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.+1.mlp.up_proj.weight", "visual.weight"]
        {
            assert_eq!(gguf_name(name), None, "{name}");
        }
    }
}
