#!/usr/bin/env python3
"""Does llama.cpp run the GGUF files that `quant convert` makes of packed directories, and does it compute what is in them?

    pip install llama-cpp-python numpy safetensors
    quant convert DIR FILE.gguf; quant perplexity FILE.gguf TEXT --ctx 256 --chunks 8 --save-logits OURS.safetensors
    llama_cpp_runs.py FILE.gguf OURS.safetensors [FILE.gguf OURS.safetensors ...]

The logits that `quant` saved are compared with llama.cpp's for the same sequences of tokens. Printed are the mean KL divergence, the part of positions with the same
most likely token, and the perplexity of both over the positions that are scored. llama.cpp rounds activations to 8 bits for products with Q4 and Q8 weights; `quant
perplexity --activations ggml` does the same, and comes closer.
"""
import sys

import numpy as np
from llama_cpp import Llama
from safetensors import safe_open


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def main():
    for file, saved in zip(sys.argv[1::2], sys.argv[2::2]):
        with safe_open(saved, "np") as f:
            tokens, ours, meta = f.get_tensor("tokens"), f.get_tensor("logits"), f.metadata() or {}
        ctx, first = int(meta.get("ctx", len(tokens))), int(meta.get("scored_from", 0))
        model = Llama(file, n_ctx=ctx, n_batch=ctx, n_ubatch=ctx, logits_all=True, n_threads=2, verbose=False)
        kl, same, nll = [], [], [[], []]
        for start in range(0, len(tokens) - ctx + 1, ctx):
            part = tokens[start : start + ctx].tolist()
            model.reset()
            model.eval(part)
            a, b = log_softmax(ours[start : start + ctx]), log_softmax(np.array(model.scores[:ctx]))
            rows = slice(first, ctx - 1)
            kl.append((np.exp(a[rows]) * (a[rows] - b[rows])).sum(-1))
            same.append(a[rows].argmax(-1) == b[rows].argmax(-1))
            for side, x in zip(nll, (a, b)):
                side.append(-x[np.arange(first, ctx - 1), part[first + 1 :]])
        ppl = [np.exp(np.concatenate(side).mean()) for side in nll]
        print(f"{file}: mean KL {np.concatenate(kl).mean():.2e}, same top {np.concatenate(same).mean():.4f}, perplexity {ppl[0]:.4f}, llama.cpp {ppl[1]:.4f}", flush=True)


main()
