#!/usr/bin/env python3
"""Logits of llama.cpp for the chunks that `quant perplexity` scores, in the form its --base takes.

    pip install llama-cpp-python==0.3.36 numpy safetensors
    llama_cpp_logits.py MODEL.gguf TEXT OUT.safetensors [--ctx 256] [--chunks 8] [--threads 2] [--batch N]
                        [--greedy PROMPT] [-n 64]

OUT holds `tokens` [n] i32 and `logits` [n, vocab] f32 for chunks of --ctx tokens, each run with an empty cache; the text is tokenized once and
the first token of every chunk is replaced by BOS where the model adds one, as llama-perplexity does. --batch N runs N tokens of a chunk at a time
instead of all: the same arithmetic by other kernels, which shows how far llama.cpp is from itself. With --greedy the greedy continuation
of PROMPT is printed as well. The K/V cache is f32, so that what differs is the arithmetic of the weights.
"""
import argparse
import ctypes
import json

import llama_cpp as lc
import numpy as np
from safetensors.numpy import save_file

GGML_TYPE_F32 = 0
QUIET = lc.llama_log_callback(lambda *_: None)  # must outlive the library's use of it


def load(path, ctx, threads):
    lc.llama_log_set(QUIET, ctypes.c_void_p(0))
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp refuses {path}")
    p = lc.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = ctx, ctx, ctx
    p.n_threads = p.n_threads_batch = threads
    p.type_k = p.type_v = GGML_TYPE_F32
    return model, lc.llama_init_from_model(model, p)


def tokenize(vocab, text, add_special):
    data = text.encode()
    buf = (lc.llama_token * (len(data) + 8))()
    n = lc.llama_tokenize(vocab, data, len(data), buf, len(buf), add_special, False)
    return list(buf[:n])


def decode(context, tokens, position, all_logits):
    batch = lc.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, t in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = t, position + i, 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = all_logits or i + 1 == len(tokens)
    if lc.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")
    lc.llama_batch_free(batch)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model"), a.add_argument("text"), a.add_argument("out")
    a.add_argument("--ctx", type=int, default=256), a.add_argument("--chunks", type=int, default=8)
    a.add_argument("--threads", type=int, default=2), a.add_argument("--batch", type=int), a.add_argument("--greedy"), a.add_argument("-n", type=int, default=64)
    a = a.parse_args()
    model, context = load(a.model, a.ctx, a.threads)
    vocab = lc.llama_model_get_vocab(model)
    n_vocab = lc.llama_vocab_n_tokens(vocab)
    add_bos = lc.llama_vocab_get_add_bos(vocab)
    tokens = tokenize(vocab, open(a.text, encoding="utf-8").read(), True)
    n = min(a.chunks, len(tokens) // a.ctx) * a.ctx
    tokens, rows, nll = np.array(tokens[:n], np.int32), [], []
    for start in range(0, n, a.ctx):
        chunk = tokens[start : start + a.ctx]
        if add_bos:
            chunk[0] = lc.llama_vocab_bos(vocab)
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        step = a.batch or a.ctx
        parts = []
        for first in range(0, a.ctx, step):
            part = chunk[first : first + step].tolist()
            decode(context, part, first, True)
            parts.append(np.ctypeslib.as_array(lc.llama_get_logits(context), (len(part), n_vocab)).copy())
        logits = np.concatenate(parts)
        rows.append(logits)
        scored = logits[a.ctx // 2 : a.ctx - 1].astype(np.float64)
        scored -= scored.max(1, keepdims=True)
        log_p = scored - np.log(np.exp(scored).sum(1, keepdims=True))
        nll.append(-log_p[np.arange(len(scored)), chunk[a.ctx // 2 + 1 :]])
    save_file({"tokens": tokens, "logits": np.concatenate(rows)}, a.out, {"ctx": str(a.ctx), "source": lc.__version__})
    result = {"ctx": a.ctx, "chunks": n // a.ctx, "ppl": float(np.exp(np.concatenate(nll).mean())), "out": a.out}
    if a.greedy is not None:
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        pending, ids, position = tokenize(vocab, a.greedy, True), [], 0
        for _ in range(a.n):
            decode(context, pending, position, False)
            position += len(pending)
            ids.append(int(np.argmax(np.ctypeslib.as_array(lc.llama_get_logits_ith(context, -1), (n_vocab,)))))
            pending = ids[-1:]
        result["greedy_ids"] = ids
    print(json.dumps(result))


main()
