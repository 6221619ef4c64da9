#!/usr/bin/env python3
"""Prompt and decode speed, time to load and peak memory of llama.cpp and of `quant bench`, in turn, on the same files with the same threads; and, with
--candle, what candle's own packed products alone can reach (no attention, no norms).

    pip install llama-cpp-python==0.3.36 numpy
    cargo build --release && cargo build --release -p quant-benches --example candle_products
    speed.py MODEL.gguf... [-p 512] [-n 64] [-r 3] [--threads 2] [--activations int8|f32] [--no-repack] [--quant target/release/quant]
             [--candle target/release/examples/candle_products]
    speed.py SOURCE.gguf --levels Q4_K_M Q8_0 ... [the same]

With --levels each level is made from the source by `quant gguf`, in a temporary directory, measured and deleted. A directory with safetensors (GPTQ, AWQ)
may stand for a model, too: llama.cpp does not read it, and only ours is measured.

Prints one JSON object a model: medians of each side, ratios ours/theirs (for speed, above 1: ours is faster), the share of the memory bandwidth that our
decoding reaches; then a table. Each side runs in a process of its own; repetitions alternate, so that a slow phase of the machine meets both.
"""
import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
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
    first = load
    memory = lc.llama_get_memory(context)

    def run(tokens):
        array = (lc.llama_token * len(tokens))(*tokens)
        if lc.llama_decode(context, lc.llama_batch_get_one(array, len(tokens))) != 0:
            raise SystemExit("llama_decode failed")
        lc.llama_synchronize(context)

    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(handle))
    tokens = [(i * 7919 + 13) % n_vocab for i in range(prompt)]
    began = time.perf_counter()
    run(tokens[:1])
    first += time.perf_counter() - began
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
    print(json.dumps({"pp": pp, "tg": tg, "load_seconds": load, "first_token_seconds": first, "peak_rss_bytes": rss}))


def ours(a, model):
    command = [a.quant, "bench", model, "-p", str(a.p), "-n", str(a.n), "-r", "1", "--threads", str(a.threads)]
    command += ["--no-repack"] if a.no_repack else []
    out = run_json([*command, "--activations", a.activations, "--json"])
    by_test = {r["test"]: r for r in out["results"]}
    decode = by_test[f"tg{a.n}"]
    return {
        "pp": by_test[f"pp{a.p}"]["tokens_per_second"], "tg": decode["tokens_per_second"],
        "load_seconds": out["load_seconds"], "first_token_seconds": out["first_token_seconds"],
        "repack_seconds": out["repack_seconds"], "peak_rss_bytes": out["peak_rss_bytes"], "share": decode["bandwidth_share"] or 0.0,
    }


def candle(a, model):
    environment = {**os.environ, "RAYON_NUM_THREADS": str(a.threads)}
    return run_json([a.candle, model, str(a.p), "3"], environment)


def run_json(command, environment=None):
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def measure(a, name, model):
    mine, theirs, candles = [], [], []
    for _ in range(a.r):
        if os.path.isfile(model):
            peer_command = [sys.executable, __file__, model, "--peer", "-p", str(a.p), "-n", str(a.n), "--threads", str(a.threads)]
            theirs.append(run_json(peer_command))
            if a.candle:
                candles.append(candle(a, model))
        mine.append(ours(a, model))
    median = lambda rows, key: statistics.median(r[key] for r in rows)
    result = {"model": name, "threads": a.threads, "activations": a.activations}
    for side, rows in (("llama_cpp", theirs), ("quant", mine)):
        if rows:
            more = {"repack_seconds": round(median(rows, "repack_seconds"), 3)} if "repack_seconds" in rows[0] else {}
            result[side] = more | {
                f"pp{a.p}": round(median(rows, "pp"), 2), f"tg{a.n}": round(median(rows, "tg"), 2),
                "load_seconds": round(median(rows, "load_seconds"), 3),
                "first_token_seconds": round(median(rows, "first_token_seconds"), 3), "peak_rss_mb": round(median(rows, "peak_rss_bytes") / 1e6),
            }
    if candles:
        result["candle"] = {f"pp{a.p}": round(median(candles, "pp"), 2), f"tg{a.n}": round(median(candles, "tg"), 2)}
        result["ratio_candle"] = {key: round(result["quant"][key] / value, 3) for key, value in result["candle"].items()}
    if theirs:
        result["ratio"] = {key: round(result["quant"][key] / result["llama_cpp"][key], 3) for key in result["llama_cpp"]}
    result["bandwidth_share"] = round(median(mine, "share"), 3)
    print(json.dumps(result), flush=True)
    return result


def table(a, results):
    pp, tg = f"pp{a.p}", f"tg{a.n}"
    more = [f"{test} candle's products" for test in (pp, tg)] if a.candle else []
    head = [pp + " llama.cpp", pp + " quant", "ratio", tg + " llama.cpp", tg + " quant", "ratio", "of bandwidth", *more]
    print("\n| | " + " | ".join(head) + " |\n" + "|---" * (len(head) + 1) + "|")
    for r in results:
        theirs, ratio = r.get("llama_cpp", {}), r.get("ratio", {})
        cells = [r["model"]]
        for key in (pp, tg):
            cells += [str(theirs.get(key, "")), str(r["quant"][key]), str(ratio.get(key, ""))]
        cells.append(f"{100 * r['bandwidth_share']:.0f} %")
        cells += [str(r.get("candle", {}).get(test, "")) for test in (pp, tg) if a.candle]
        print("| " + " | ".join(cells) + " |")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("models", nargs="+"), a.add_argument("-p", type=int, default=512), a.add_argument("-n", type=int, default=64)
    a.add_argument("-r", type=int, default=3), a.add_argument("--threads", type=int, default=2)
    a.add_argument("--levels", nargs="+", default=[]), a.add_argument("--activations", default="int8")
    a.add_argument("--no-repack", action="store_true", help="ours uses the weights in the file's map")
    a.add_argument("--candle", help="the example candle_products")
    a.add_argument("--quant", default="target/release/quant"), a.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    a = a.parse_args()
    if a.peer:
        return peer(a.models[0], a.p, a.n, a.threads)
    if not a.levels:
        return table(a, [measure(a, os.path.basename(m.rstrip("/")), m) for m in a.models])
    results = []
    for source in a.models:
        for level in a.levels:
            with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(source))) as place:
                made = os.path.join(place, f"{level}.gguf")
                subprocess.run([a.quant, "gguf", source, made, "--type", level, "--threads", str(a.threads)], check=True, capture_output=True)
                results.append(measure(a, level, made))
    table(a, results)


main()
