#!/usr/bin/env python3
"""Time to open a GGUF file and list its tensors: gguf-format, candle and gguf-py on the same file.

    pip install gguf==0.19.0
    cargo build --release --workspace --example open_gguf
    python benches/side_by_side/open_gguf.py target/release/examples/open_gguf [FILE]

Without FILE, one like Llama 3 8B's is made: 128,256 tokens, 280,147 merges, token types, 291 tensors (with little data). Prints one JSON object:
medians in milliseconds, and how many times longer the others take than gguf-format.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import gguf
import numpy as np


def make(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 32)
    rng = np.random.default_rng(1)
    word = lambda: "".join(map(chr, rng.integers(97, 123, rng.integers(2, 12))))
    words = [word() for _ in range(4096)]
    pick = lambda: words[int(rng.integers(4096))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([pick() + str(i) for i in range(128_256)])
    writer.add_token_types([1] * 128_256)
    writer.add_token_merges([pick() + " " + pick() for _ in range(280_147)])
    for i in range(291):
        writer.add_tensor(f"blk.{i // 9}.tensor_{i % 9}.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_py(path):
    began = time.perf_counter()
    reader = gguf.GGUFReader(path)
    sum(len(f"{t.name} {t.shape} {t.tensor_type.name}") for t in reader.tensors)
    return (time.perf_counter() - began) * 1e3


def main():
    example, path = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = os.path.join(folder, "llama3.gguf")
            make(path)
        ours = json.loads(subprocess.run([example, path], check=True, capture_output=True, text=True).stdout)
        theirs = statistics.median(gguf_py(path) for _ in range(3))
    times = ours | {"gguf_py": round(theirs, 1)}
    ratios = {name: round(times[name] / times["map"], 1) for name in ("candle_buffered", "candle", "gguf_py")}
    print(json.dumps({"file": os.path.basename(path), "milliseconds": times, "times_ours": ratios}))


main()
