#!/usr/bin/env python3
"""Do GPTQModel and transformers load the directories that `quant` writes (GPTQ, AWQ, compressed-tensors), and do they compute what is in them?

    pip install torch transformers safetensors numpy setuptools compressed-tensors
    BUILD_CUDA_EXT=0 pip install --no-build-isolation gptqmodel optimum
    quant gptq models/pocket-6m OUT --calibration TEXT ...
    cargo run --release -p quant-runtime --example repack -- models/pocket-6m OUT OUT-AWQ awq
    GPTQMODEL_CPU_WORKERS=2 gptqmodel_loads.py models/pocket-6m OUT [OUT-AWQ ...]

Each directory is loaded by GPTQModel (not compressed-tensors, which it does not read) and by transformers. Beside them stands the original architecture in f32 with
weights that plain numpy unpacks from the files. The readers compute in f16, as their kernels ask for. Printed is the mean KL divergence of each reader's logits from
these, over 256 fixed tokens.
"""
import glob
import json
import os
import re
import sys

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM


def unpack(words, bits, axis, n):
    """A stream of bits along an axis of 32-bit words, least significant first."""
    words = np.moveaxis(words, axis, -1).astype(np.int64) & 0xFFFFFFFF
    stream = ((words[..., None] >> np.arange(32)) & 1).reshape(*words.shape[:-1], -1)[..., : n * bits]
    return np.moveaxis((stream.reshape(*words.shape[:-1], n, bits) << np.arange(bits)).sum(-1), -1, axis)


def unpack_awq(words):
    """Eight codes of 4 bits a word, those of columns 0, 2, 4, 6, 1, 3, 5, 7."""
    words = words.astype(np.int64) & 0xFFFFFFFF
    out = np.empty((*words.shape, 8), np.int64)
    out[..., [0, 2, 4, 6, 1, 3, 5, 7]] = (words[..., None] >> (4 * np.arange(8))) & 15
    return out.reshape(*words.shape[:-1], -1)


def weight(config, module, tensors):
    """The weight of a module, [out, in]."""
    part = lambda suffix: tensors[f"{module}.{suffix}"]
    method = config["quant_method"]
    if method == "compressed-tensors":
        groups = config["config_groups"].values()
        named = lambda target: re.match(target[3:], module) if target.startswith("re:") else target == module
        args = next((g for g in groups if any(map(named, g["targets"]))), None) or next(g for g in groups if "Linear" in g["targets"])
        args = args["weights"]
        bits, scales, (rows, columns) = args["num_bits"], part("weight_scale").float().numpy(), part("weight_shape").tolist()
        codes, zeros = unpack(part("weight_packed").numpy(), bits, 1, columns), 2 ** (bits - 1)
        if not args["symmetric"]:
            zeros = np.repeat(unpack(part("weight_zero_point").numpy(), bits, 0, rows), columns // scales.shape[1], 1)
        return np.repeat(scales, columns // scales.shape[1], 1) * (codes - zeros)
    scales = part("scales").float().numpy()
    if method == "awq":
        codes, zeros = unpack_awq(part("qweight").numpy()), unpack_awq(part("qzeros").numpy())
        groups = np.arange(len(codes)) // (len(codes) // len(scales))
        return (scales[groups] * (codes - zeros[groups])).T
    g_idx = part("g_idx").numpy()
    bits = part("qweight").shape[0] * 32 // len(g_idx)
    codes, offset = unpack(part("qweight").numpy(), bits, 0, len(g_idx)), 0 if config["checkpoint_format"] == "gptq_v2" else 1
    zeros = (unpack(part("qzeros").numpy(), bits, 1, scales.shape[1]) + offset) % 2**bits
    return (scales[g_idx] * (codes - zeros[g_idx])).T


def dense(directory):
    tensors = {}
    for file in sorted(glob.glob(f"{directory}/*.safetensors")):
        with safe_open(file, "pt") as f:
            tensors.update((k, f.get_tensor(k)) for k in f.keys())
    config = json.load(open(f"{directory}/config.json"))["quantization_config"]
    out = {}
    for name, tensor in tensors.items():
        module, _, suffix = name.rpartition(".")
        if suffix in ("qweight", "weight_packed"):
            out[f"{module}.weight"] = torch.from_numpy(weight(config, module, tensors).astype(np.float32).copy())
        elif suffix not in ("qzeros", "scales", "g_idx", "weight_scale", "weight_shape", "weight_zero_point"):
            out[name] = tensor.float()
    return out


def log_p(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)


def main():
    source, *directories = sys.argv[1:]
    ids = torch.tensor([[(37 * i * i + 11 * i + 5) % 2000 for i in range(256)]])
    for directory in directories:
        config = AutoConfig.from_pretrained(source)
        reference = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        missing, unexpected = reference.load_state_dict(dense(directory), strict=False)
        assert not unexpected and all("rotary" in m or (m == "lm_head.weight" and config.tie_word_embeddings) for m in missing), (missing, unexpected)
        reference.tie_weights()
        base = log_p(reference, ids)
        kl = lambda model: (base.exp() * (base - log_p(model, ids))).sum(-1).mean().item()
        method = json.load(open(f"{directory}/config.json"))["quantization_config"]["quant_method"]
        if method != "compressed-tensors":
            from gptqmodel import BACKEND, GPTQModel

            backend = BACKEND.AWQ_TORCH if method == "awq" else BACKEND.TORCH
            theirs = GPTQModel.load(directory, device="cpu", backend=backend, dtype=torch.float16)
            print(f"{directory}: GPTQModel, {kl(theirs.model):.3e}", flush=True)
        theirs = AutoModelForCausalLM.from_pretrained(directory, device_map="cpu", dtype=torch.float16)
        print(f"{directory}: transformers, {kl(theirs):.3e}", flush=True)


main()
