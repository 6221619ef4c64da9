#!/usr/bin/env python3
"""Our block codecs beside ggml_quantize_chunk: one thread, the same input, bytes compared.

    cargo build --release -p gguf-format --example quantize_chunk
    python benches/side_by_side/quantize_chunk.py target/release/examples/quantize_chunk [TYPE ...]

Needs numpy and llama-cpp-python (its libggml-base is called through ctypes). Times are the least of a pass, the two sides
taking turns of a third of a second, in nanoseconds per weight; "bytes" says whether the two outputs are identical.
"""

import ctypes
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

IDS = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
       "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29,
       "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "Q1_0": 41, "Q2_0": 42}
# What ggml aborts without importance weights for.
NEED_IMPORTANCE = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}
ROWS, ROW_LEN = 32, 1024


def load_ggml():
    import importlib.util
    where = importlib.util.find_spec("llama_cpp").submodule_search_locations[0]
    ggml = ctypes.CDLL(str(pathlib.Path(where) / "lib" / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_void_p]
    ggml.ggml_row_size.restype = ctypes.c_size_t
    ggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    return ggml


def main():
    binary, *names = sys.argv[1:]
    ggml = load_ggml()
    rng = np.random.default_rng(1)
    # Weights as layers have them: Gaussian with a few columns larger than the rest.
    values = (rng.standard_normal((ROWS, ROW_LEN)) * 0.02 * (1 + 4 * (rng.random(ROW_LEN) > 0.98))).astype(np.float32)
    importance = (rng.random(ROW_LEN) ** 4 + 1e-3).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / name for name in ("values", "importance", "out")]
        values.tofile(paths[0])
        importance.tofile(paths[1])
        print("| type | weights | ggml ns/weight | ours ns/weight | ours / ggml | bytes |\n|---|---|---|---|---|---|")
        for name in names or IDS:
            for kind in ("importance",) if name in NEED_IMPORTANCE else ("plain", "importance"):
                out = np.zeros(ROWS * ggml.ggml_row_size(IDS[name], ROW_LEN), np.uint8)
                pointer = importance.ctypes.data if kind == "importance" else None
                theirs = ours = float("inf")
                for _ in range(3):
                    begin = time.perf_counter()
                    while (start := time.perf_counter()) < begin + 0.33:
                        ggml.ggml_quantize_chunk(IDS[name], values.ctypes.data, out.ctypes.data, 0, ROWS, ROW_LEN, pointer)
                        theirs = min(theirs, time.perf_counter() - start)
                    command = [binary, name, str(ROW_LEN), paths[0], paths[2]] + ([paths[1]] if pointer else [])
                    ours = min(ours, float(subprocess.run(command, check=True, capture_output=True).stdout.split()[0]))
                same = np.array_equal(np.fromfile(paths[2], np.uint8), out)
                scale = 1e9 / values.size
                print(f"| {name} | {kind} | {theirs * scale:.2f} | {ours * scale:.2f} | {ours / theirs:.2f} | "
                      f"{'identical' if same else 'DIFFERENT'} |", flush=True)


main()
