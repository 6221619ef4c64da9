#!/usr/bin/env python3
"""Do transformers and compressed-tensors load the W8A8 directories that `quant w8a8` writes, and do they compute what `quant` computes?

    pip install torch transformers safetensors numpy compressed-tensors
    quant w8a8 models/pocket-6m OUT --scheme int8 --calibration TEXT
    quant perplexity OUT TEXT --ctx 256 --chunks 4 --save-logits OUT.logits
    w8a8_transformers.py OUT OUT.logits [OUT2 OUT2.logits ...]

Printed are mean KL divergences over all positions of the sequences in the logits file, in f32 on the CPU: of our logits from transformers', and of transformers with eager
attention, and (of small models) in f64, from transformers as it is: arithmetic in another order moves values over ties between codes, and the next layers' after them, so that
no two programs agree better than that. Beside them, for one linear layer of each kind, the largest difference of its output from what plain numpy makes of the files' bytes and of the rounded input, in parts of the largest
output: there nothing has added up yet.
"""
import glob
import json
import struct
import sys

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM


def tensors(directory):
    out = {}
    for file in sorted(glob.glob(f"{directory}/*.safetensors")):
        with safe_open(file, "pt") as f:
            out.update((k, f.get_tensor(k)) for k in f.keys())
    return out


def e4m3(x):
    """To the nearest number of 4 bits of exponent and 3 of mantissa, ties to even."""
    x = np.clip(x, -448, 448)
    step = 2.0 ** (np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 1e-30))), -6) - 3)
    return np.round(x / step) * step


def linear(group, stored, module, x):
    """The product of rounded input and weights by the config, in f64, and how it rounds: numpy alone."""
    args = group["input_activations"]
    weight = stored[f"{module}.weight"].double().numpy() * stored[f"{module}.weight_scale"].double().numpy()
    x = x.astype(np.float32)
    integer = args["type"] == "int"
    if args["dynamic"]:
        low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
        if args["symmetric"]:
            scale, zero = np.maximum(-low, high) / np.float32(127.5 if integer else 448), np.float32(0)
        else:
            scale = (high - low) / np.float32(255)
            zero = np.round(np.clip(np.float32(-128) - low / scale, -128, 127))
    else:
        scale = stored[f"{module}.input_scale"].float().numpy()
        zero = stored[f"{module}.input_zero_point"].float().numpy() if f"{module}.input_zero_point" in stored else np.float32(0)
    numbers = np.round(np.clip(x / scale + zero, -128, 127)) - zero if integer else e4m3((x / scale).astype(np.float32))
    return (numbers.astype(np.float64) * scale) @ weight.T


def run(model, rows):
    with torch.no_grad():
        return [torch.log_softmax(model(input_ids=row[None]).logits[0].double(), -1) for row in rows]


def kl(base, other):
    return torch.cat([(b.exp() * (b - o)).sum(-1) for b, o in zip(base, other)]).mean().item()


def main():
    arguments = sys.argv[1:]
    for directory, file in zip(arguments[::2], arguments[1::2]):
        with open(file, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        ctx = int(header["__metadata__"]["ctx"])
        with safe_open(file, "pt") as f:
            rows = f.get_tensor("tokens").long().split(ctx)
            ours = [torch.log_softmax(logits.double(), -1) for logits in f.get_tensor("logits").split(ctx)]
        load = lambda attention, dtype=torch.float32: AutoModelForCausalLM.from_pretrained(
            directory, device_map="cpu", dtype=dtype, attn_implementation=attention
        ).eval()
        model, seen = load("sdpa"), {}
        small = sum(p.numel() for p in model.parameters()) < 5e7
        see = lambda name: lambda _, inputs, output: seen.setdefault(name, (inputs[0][0], output[0])) and None
        kinds = ("layers.1.self_attn.o_proj", "layers.1.mlp.up_proj", "layers.1.mlp.down_proj")
        for name, module in model.named_modules():
            if name.endswith(kinds):
                module.register_forward_hook(see(name))
        theirs = run(model, rows)
        stored = tensors(directory)
        group = json.load(open(f"{directory}/config.json"))["quantization_config"]["config_groups"]["group_0"]
        worst = 0
        for name, (x, y) in seen.items():
            expected = linear(group, stored, name, x.numpy())
            expected += stored[f"{name}.bias"].double().numpy() if f"{name}.bias" in stored else 0
            worst = max(worst, np.abs(expected - y.double().numpy()).max() / np.abs(expected).max())
        assert len(seen) == len(kinds)
        del model
        again = f"eager {kl(theirs, run(load('eager'), rows)):.2e}"
        if small:
            again += f", f64 {kl(theirs, run(load('eager', torch.float64), rows)):.2e}"
        print(f"{directory}: ours {kl(theirs, ours):.2e}, {again}, linears by numpy {worst:.1e}", flush=True)


main()
