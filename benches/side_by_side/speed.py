#!/usr/bin/env python3
"""Prompt and decode speed and peak memory of llama.cpp and of `quant bench`, in turn, on the same file with the same threads.

    pip install llama-cpp-python==0.3.36 numpy
    cargo build --release && speed.py MODEL.gguf [-p 512] [-n 64] [-r 3] [--threads 2] [--quant target/release/quant]

Prints one JSON object: medians of each, ratios ours/theirs (above 1: ours is faster), peak resident memory of either process. Each side runs in a
process of its own; repetitions alternate, so that a slow phase of the machine meets both.
"""
import argparse
import ctypes
import json
import resource
import statistics
import subprocess
import sys
import time


def peer(model, prompt, generate, threads):
    import llama_cpp as lc

    quiet = lc.llama_log_callback(lambda *_: None)
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    lc.llama_backend_init()
    began = time.perf_counter()
    handle = lc.llama_model_load_from_file(model.encode(), lc.llama_model_default_params())
    p = lc.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = prompt + generate + 8, 512, 512
    p.n_threads = p.n_threads_batch = threads
    context = lc.llama_init_from_model(handle, p)
    load = time.perf_counter() - began
    memory = lc.llama_get_memory(context)

    def run(tokens):
        array = (lc.llama_token * len(tokens))(*tokens)
        if lc.llama_decode(context, lc.llama_batch_get_one(array, len(tokens))) != 0:
            raise SystemExit("llama_decode failed")
        lc.llama_synchronize(context)

    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(handle))
    tokens = [(i * 7919 + 13) % n_vocab for i in range(prompt)]
    run(tokens[:8]), run(tokens[:1]), lc.llama_memory_clear(memory, True)
    began = time.perf_counter()
    for i in range(0, prompt, 512):
        run(tokens[i : i + 512])
    pp = prompt / (time.perf_counter() - began)
    lc.llama_memory_clear(memory, True)
    began = time.perf_counter()
    for i in range(generate):
        run([tokens[i % prompt]])
    tg = generate / (time.perf_counter() - began)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"pp": pp, "tg": tg, "load_seconds": load, "peak_rss_bytes": rss}))


def ours(quant, model, prompt, generate, threads):
    command = [quant, "bench", model, "-p", str(prompt), "-n", str(generate), "-r", "1", "--threads", str(threads), "--json"]
    out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    by_test = {r["test"]: r["tokens_per_second"] for r in out["results"]}
    return {"pp": by_test[f"pp{prompt}"], "tg": by_test[f"tg{generate}"], "peak_rss_bytes": out["peak_rss_bytes"]}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model"), a.add_argument("-p", type=int, default=512), a.add_argument("-n", type=int, default=64)
    a.add_argument("-r", type=int, default=3), a.add_argument("--threads", type=int, default=2)
    a.add_argument("--quant", default="target/release/quant"), a.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.peer:
        return peer(a.model, a.p, a.n, a.threads)
    mine, theirs = [], []
    for _ in range(a.r):
        command = [sys.executable, __file__, a.model, "--peer", "-p", str(a.p), "-n", str(a.n), "--threads", str(a.threads)]
        theirs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        mine.append(ours(a.quant, a.model, a.p, a.n, a.threads))
    median = lambda rows, key: statistics.median(r[key] for r in rows)
    result = {"model": a.model, "threads": a.threads}
    for name, rows in (("llama_cpp", theirs), ("quant", mine)):
        result[name] = {f"pp{a.p}": round(median(rows, "pp"), 2), f"tg{a.n}": round(median(rows, "tg"), 2), "peak_rss_mb": round(median(rows, "peak_rss_bytes") / 1e6)}
    result["ratio"] = {key: round(result["quant"][key] / result["llama_cpp"][key], 3) for key in result["quant"]}
    print(json.dumps(result, indent=1))


main()
