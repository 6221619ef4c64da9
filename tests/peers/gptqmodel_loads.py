#!/usr/bin/env python3
"""Do GPTQModel and transformers load the directories that `quant gptq` writes, and do they compute what is in them?

    pip install torch transformers safetensors numpy setuptools
    BUILD_CUDA_EXT=0 pip install --no-build-isolation gptqmodel optimum
    quant gptq models/pocket-6m OUT --calibration TEXT ...
    GPTQMODEL_CPU_WORKERS=2 gptqmodel_loads.py models/pocket-6m OUT [OUT ...]

Each directory is loaded by GPTQModel and by transformers. Beside them stands the original architecture in f32 with weights that plain numpy
unpacks from the files. The readers compute in f16, as their kernels ask for. Printed is the mean KL divergence of each reader's logits from these, over 256 fixed tokens.
"""
import glob
import json
import os
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


def dense(directory):
    tensors = {}
    for file in sorted(glob.glob(f"{directory}/*.safetensors")):
        with safe_open(file, "pt") as f:
            tensors.update((k, f.get_tensor(k)) for k in f.keys())
    config = json.load(open(f"{directory}/config.json"))["quantization_config"]
    offset = 0 if config["checkpoint_format"] == "gptq_v2" else 1
    out = {}
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            module = name.removesuffix(".qweight")
            g_idx, scales = tensors[f"{module}.g_idx"].numpy(), tensors[f"{module}.scales"].float().numpy()
            bits = tensor.shape[0] * 32 // len(g_idx)
            codes = unpack(tensor.numpy(), bits, 0, len(g_idx))
            zeros = (unpack(tensors[f"{module}.qzeros"].numpy(), bits, 1, scales.shape[1]) + offset) % 2**bits
            out[f"{module}.weight"] = torch.from_numpy((scales[g_idx] * (codes - zeros[g_idx])).T.astype(np.float32).copy())
        elif not name.endswith((".qzeros", ".scales", ".g_idx")):
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
        from gptqmodel import BACKEND, GPTQModel

        theirs = GPTQModel.load(directory, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)
        print(f"{directory}: GPTQModel, {kl(theirs.model):.3e}", flush=True)
        theirs = AutoModelForCausalLM.from_pretrained(directory, device_map="cpu", dtype=torch.float16)
        print(f"{directory}: transformers, {kl(theirs):.3e}", flush=True)


main()
