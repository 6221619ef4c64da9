#!/usr/bin/env python3
"""Writes low_bit_levels.json: what llama-quantize makes of pocket-6m at the levels that are for importance weights.

    pip install llama-cpp-python==0.3.36 gguf==0.19
    low_bit_levels.py INPUT.gguf KEYS.gguf OUT.json

INPUT.gguf is our F32 conversion of the model (`quant gguf MODEL INPUT.gguf --type F32`), KEYS.gguf the reference's Q8_0 file. From them the
reference's F32 file is rebuilt (quantize_golden.rs does the same and checks its SHA-256), then quantized by llama_model_quantize to each level
with the importance f32(|sin(i + 1)| + 0.01) for column i of every matrix of a block.
"""
import ctypes
import hashlib
import json
import re
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

LEVELS = dict(
    IQ2_XXS=19, IQ2_XS=20, Q2_K_S=21, IQ3_XS=22, IQ3_XXS=23, IQ1_S=24, IQ4_NL=25, IQ3_S=26, IQ3_M=27, IQ2_S=28, IQ2_M=29, IQ4_XS=30,
    IQ1_M=31, TQ1_0=36, TQ2_0=37, MXFP4_MOE=38, Q1_0=40, Q2_0=41,
)


def hf_name(name):
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight", "output_norm.weight": "model.norm.weight"}
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    return f"model.layers.{block[1]}.{parts[block[2]]}.weight" if block else whole[name]


def rebuild(converted, keys, out):
    keys = gguf.GGUFReader(keys)
    writer = gguf.GGUFWriter(out, "llama")
    for name, field in keys.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.quantization_version", "general.file_type"):
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub)
        if name == "llama.vocab_size":
            writer.add_uint32("general.file_type", 0)
    for tensor in sorted(gguf.GGUFReader(converted).tensors, key=lambda t: hf_name(t.name)):
        writer.add_tensor(tensor.name, np.asarray(tensor.data, np.float32).reshape([int(n) for n in reversed(tensor.shape)]))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


def main():
    converted, keys, out = sys.argv[1:]
    keep = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    facts = {"tool": "llama-cpp-python 0.3.36, llama_model_quantize", "importance": "f32(|sin(i + 1)| + 0.01), i = column", "levels": {}}
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/input.gguf", f"{folder}/output.gguf"
        rebuild(converted, keys, source)
        facts["input_sha256"] = hashlib.sha256(open(source, "rb").read()).hexdigest()
        shapes = {t.name: int(t.shape[0]) for t in gguf.GGUFReader(source).tensors if t.name.startswith("blk.") and len(t.shape) == 2}
        data = {n: (np.abs(np.sin(np.arange(1, k + 1, dtype=np.float64))) + 0.01).astype(np.float32) for n, k in sorted(shapes.items())}
        entries = (llama_cpp.llama_model_imatrix_data * (len(data) + 1))()
        for e, (name, v) in zip(entries, data.items()):
            e.name, e.data, e.size = name.encode(), v.ctypes.data_as(type(e.data)), len(v)
        values = [("file", "sines.gguf"), ("dataset", "sines.txt"), ("entries_count", len(data)), ("chunks_count", 7)]
        overrides = (llama_cpp.llama_model_kv_override * (len(values) + 1))()
        for o, (key, v) in zip(overrides, values):
            o.key = b"quantize.imatrix." + key.encode()
            if isinstance(v, int):
                o.tag, o.value.val_i64 = 0, v
            else:
                o.tag, o.value.val_str = 3, v.encode()
        for name, number in LEVELS.items():
            p = llama_cpp.llama_model_quantize_default_params()
            p.nthread, p.ftype = 2, number
            p.imatrix, p.kv_overrides = ctypes.cast(entries, type(p.imatrix)), ctypes.cast(overrides, type(p.kv_overrides))
            if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(p)) != 0:
                raise SystemExit(f"{name} failed")
            file = open(target, "rb").read()
            facts["levels"][name] = {"bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    json.dump(facts, open(out, "w"), indent=1)


main()
