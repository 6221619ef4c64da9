#!/usr/bin/env python3
"""Quantizing a whole model: `quant gguf` beside llama_cpp.llama_model_quantize, in turns, each in a process of its own.

    pip install llama-cpp-python==0.3.36 gguf==0.19
    quantize_model.py QUANT_BINARY INPUT.gguf [--type Q4_K_M] [--threads 2] [--runs 3] [--dir DIR] [--imatrix FILE.gguf]

For each run: wall time, user and system time, and peak resident memory from the kernel's account of the process (wait4), then whether the
files are equal byte for byte. The input is read once before, so that both find it in the page cache.
llama.cpp does not sync its file to disk, `quant` does before it renames it; the time of both includes what they do.
"""
import argparse
import hashlib
import os
import sys
import time

FILE_TYPES = dict(
    F32=0, F16=1, Q4_0=2, Q4_1=3, Q8_0=7, Q5_0=8, Q5_1=9, Q2_K=10, Q3_K_S=11, Q3_K_M=12, Q3_K_L=13, Q4_K_S=14, Q4_K_M=15, Q5_K_S=16,
    Q5_K_M=17, Q6_K=18, IQ2_XXS=19, IQ2_XS=20, Q2_K_S=21, IQ3_XS=22, IQ3_XXS=23, IQ1_S=24, IQ4_NL=25, IQ3_S=26, IQ3_M=27, IQ2_S=28,
    IQ2_M=29, IQ4_XS=30, IQ1_M=31, BF16=32, TQ1_0=36, TQ2_0=37, MXFP4_MOE=38, Q1_0=40, Q2_0=41,
)
CHILD = """
import ctypes, sys, llama_cpp
keep = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
p = llama_cpp.llama_model_quantize_default_params()
p.nthread, p.ftype, p.allow_requantize = int(sys.argv[3]), int(sys.argv[4]), True
if len(sys.argv) > 5:  # as tools/quantize/quantize.cpp: sum / count, and four keys
    import gguf, numpy as np
    r = gguf.GGUFReader(sys.argv[5])
    t = {x.name: np.asarray(x.data, np.float32).reshape(-1) for x in r.tensors}
    data = {n[:-8]: v / t[n[:-8] + ".counts"][0] for n, v in t.items() if n.endswith(".in_sum2")}
    entries = (llama_cpp.llama_model_imatrix_data * (len(data) + 1))()
    for e, (name, v) in zip(entries, data.items()):
        e.name, e.data, e.size = name.encode(), v.ctypes.data_as(type(e.data)), len(v)
    keys = [("file", sys.argv[5]), ("dataset", r.fields["imatrix.datasets"].contents()[0]), ("entries_count", len(data)),
            ("chunks_count", r.fields["imatrix.chunk_count"].contents())]
    overrides = (llama_cpp.llama_model_kv_override * (len(keys) + 1))()
    for o, (key, v) in zip(overrides, keys):
        o.key = b"quantize.imatrix." + key.encode()
        if isinstance(v, int): o.tag, o.value.val_i64 = 0, v
        else: o.tag, o.value.val_str = 3, v.encode()[:127]
    p.imatrix, p.kv_overrides = ctypes.cast(entries, type(p.imatrix)), ctypes.cast(overrides, type(p.kv_overrides))
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


def run(command):
    start = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"{command[0]} failed with {status}")
    return time.monotonic() - start, usage.ru_utime, usage.ru_stime, usage.ru_maxrss / 1024


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("quant"), a.add_argument("input")
    a.add_argument("--type", default="Q4_K_M"), a.add_argument("--threads", type=int, default=2)
    a.add_argument("--runs", type=int, default=3), a.add_argument("--dir", default=".")
    a.add_argument("--imatrix")
    a = a.parse_args()
    ours, theirs = os.path.join(a.dir, "ours.gguf"), os.path.join(a.dir, "theirs.gguf")
    sides = {
        "quant": [os.path.abspath(a.quant), "--threads", str(a.threads), "gguf", a.input, ours, "--type", a.type],
        "llama.cpp": [sys.executable, "-c", CHILD, a.input, theirs, str(a.threads), str(FILE_TYPES[a.type])],
    }
    if a.imatrix:
        sides["quant"] += ["--imatrix", a.imatrix]
        sides["llama.cpp"].append(a.imatrix)
    sides["quant"].append("--allow-requantize")
    sha256(a.input)
    print(f"{'':10} {'wall s':>8} {'user s':>8} {'sys s':>8} {'peak MiB':>9}   {a.type}, {a.threads} threads, {os.path.getsize(a.input)} bytes in")
    best = {}
    for _ in range(a.runs):
        for name, command in sides.items():
            figures = run(command)
            best[name] = min(best.get(name, figures), figures)
            print(f"{name:10} {figures[0]:8.2f} {figures[1]:8.2f} {figures[2]:8.2f} {figures[3]:9.0f}", flush=True)
    ratio = best["quant"][0] / best["llama.cpp"][0]
    print(f"best wall: {ratio:.2f} of llama.cpp's; files {'equal' if sha256(ours) == sha256(theirs) else 'DIFFER'}")
    os.remove(ours), os.remove(theirs)


if __name__ == "__main__":
    main()
