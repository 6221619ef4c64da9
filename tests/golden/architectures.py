"""Writes architectures.json and architectures.safetensors: logits of small models with pseudo-random weights, computed by transformers in f32, and
the largest difference that llama.cpp shows on a GGUF file of the same weights. The test `architectures.rs` makes the same weights again.

    python tests/golden/architectures.py        (transformers, torch, safetensors, gguf, llama-cpp-python)
"""
import json, os, sys, tempfile
import numpy as np, torch, transformers, safetensors.numpy
from transformers import AutoConfig, AutoModelForCausalLM

OUT = os.path.dirname(os.path.abspath(__file__))
TOKENS = [(i * i * 7 + i * 3 + 1) % 64 for i in range(96)]
BASE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
            max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False)
CASES = {
    "llama_tied": dict(model_type="llama", tie_word_embeddings=True),
    "llama_biases_linear": dict(model_type="llama", attention_bias=True, mlp_bias=True, rope_scaling=dict(rope_type="linear", factor=4.0)),
    "llama_llama3": dict(model_type="llama", head_dim=16, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama_yarn": dict(model_type="llama", head_dim=16, max_position_embeddings=128, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama_yarn_attention_factor": dict(model_type="llama", head_dim=16, max_position_embeddings=128, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32, attention_factor=1.25, beta_fast=16.0, beta_slow=2.0)),
    "mistral_window": dict(model_type="mistral", sliding_window=16),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True, rope_theta=1000000.0),
    "qwen2_yarn": dict(model_type="qwen2", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)),
    "qwen2_window": dict(model_type="qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=0),
    "qwen3": dict(model_type="qwen3", head_dim=24, rope_theta=1000000.0),
    "qwen3_tied": dict(model_type="qwen3", head_dim=8, num_key_value_heads=4, tie_word_embeddings=True),
}

def values(name, count):
    """24 bits of splitmix64, seeded by FNV-1a of the name, as f32 in -1..1."""
    with np.errstate(over="ignore"):
        seed = np.uint64(0xCBF29CE484222325)
        for b in name.encode(): seed = (seed ^ np.uint64(b)) * np.uint64(0x100000001B3)
        z = seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)

def weight(name, shape):
    v = values(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("norm.weight"): return np.float32(1) + v * np.float32(0.25)
    if name.endswith(".bias"): return v * np.float32(0.5)
    if name == "model.embed_tokens.weight": return v
    return v * np.float32(0.5)

def gguf_of(config, arch, state, path):
    import gguf
    w = gguf.GGUFWriter(path, arch)
    heads, kv, hidden = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
    d = config.get("head_dim", hidden // heads)
    w.add_context_length(config["max_position_embeddings"]); w.add_embedding_length(hidden); w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"]); w.add_head_count(heads); w.add_head_count_kv(kv)
    w.add_key_length(d); w.add_value_length(d); w.add_rope_dimension_count(d)
    w.add_layer_norm_rms_eps(config["rms_norm_eps"]); w.add_rope_freq_base(config["rope_theta"])
    w.add_tokenizer_model("llama"); w.add_token_list([f"<{i}>" for i in range(64)]); w.add_token_scores([0.0] * 64); w.add_token_types([1] * 64)
    rope = config.get("rope_scaling")
    if rope and rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR); w.add_rope_scaling_factor(rope["factor"])
    if rope and rope["rope_type"] == "yarn":
        if "attention_factor" in rope: return False
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN); w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope and rope["rope_type"] == "llama3":
        f, lo, hi, ctx = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        wl = 2 * np.pi * config["rope_theta"] ** (np.arange(0, d, 2) / d)
        s = (ctx / wl - lo) / (hi - lo)
        w.add_tensor("rope_freqs.weight", np.where(wl < ctx / hi, 1, np.where(wl > ctx / lo, f, 1 / ((1 - s) / f + s))).astype(np.float32))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH_NAMES and {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config["num_hidden_layers"])
    for name, v in state.items():
        if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            n = heads if ".q_proj." in name else kv
            v = v.reshape(n, 2, d // 2, *v.shape[1:]).swapaxes(1, 2).reshape(v.shape)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(v))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    return True

def llama_cpp_logits(path):
    import llama_cpp as L
    m = L.Llama(path, n_ctx=256, n_batch=256, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)
    m.eval(TOKENS)
    return np.array(m.scores[:len(TOKENS)], dtype=np.float32)

logits, facts = {}, {}
for case, change in CASES.items():
    config = {**BASE, **change}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager").float().eval()
    state = {}
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]: continue
        state[name] = weight(name, tuple(p.shape))
        p.copy_(torch.from_numpy(state[name]))
    model.tie_weights()
    with torch.no_grad(): out = model(torch.tensor([TOKENS])).logits[0].numpy()
    logits[case] = out
    arch = "llama" if config["model_type"] in ("llama", "mistral") else config["model_type"]
    difference = None
    if "window" not in case:
        with tempfile.TemporaryDirectory() as t:
            path = os.path.join(t, "x.gguf")
            if gguf_of(config, arch, state, path): difference = float(np.abs(llama_cpp_logits(path) - out).max())
    print(case, out.std(), "llama.cpp differs by at most", difference)
    facts[case] = dict(config=config, llama_cpp_largest_difference=difference)

import llama_cpp
rows = [0, 1, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 80, 95]
json.dump(dict(source="transformers %s, torch %s, f32, eager attention; llama-cpp-python %s on a GGUF of the same weights" % (
    transformers.__version__, torch.__version__, llama_cpp.__version__), command="python tests/golden/architectures.py",
    rows=rows, cases=facts), open(os.path.join(OUT, "architectures.json"), "w"), indent=1)
safetensors.numpy.save_file({k: np.ascontiguousarray(v[rows]) for k, v in logits.items()}, os.path.join(OUT, "architectures.safetensors"))
