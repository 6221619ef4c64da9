#!/usr/bin/env python3
"""Our dequantization beside ggml's to_float: one thread, the same blocks, values compared bit for bit.

    cargo build --release -p gguf-format --example dequantize
    python benches/side_by_side/dequantize.py target/release/examples/dequantize [TYPE ...]

Needs numpy and llama-cpp-python; ggml_get_type_traits(type)->to_float of its libggml-base is called through ctypes. The blocks are a row of
4096 Gaussian values that ggml quantized, so that everything stays in the nearest cache; the values begin where a cache line does. Times are the least of a pass, the two sides taking
turns of a fifth of a second, in nanoseconds per value; what an empty call through ctypes takes is subtracted from theirs.
"""

import ctypes
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

IDS = {"F16": 1, "BF16": 30, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13,
       "Q6_K": 14, "IQ1_S": 19, "IQ1_M": 29, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ2_S": 22, "IQ3_XXS": 18, "IQ3_S": 21, "IQ4_NL": 20,
       "IQ4_XS": 23, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "Q1_0": 41, "Q2_0": 42}
VALUES = 4096


class Traits(ctypes.Structure):  # struct ggml_type_traits of ggml.h
    _fields_ = [("name", ctypes.c_char_p), ("block_len", ctypes.c_int64), ("interleave", ctypes.c_int64), ("size", ctypes.c_size_t),
                ("quantized", ctypes.c_bool), ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]


def load_ggml():
    where = importlib.util.find_spec("llama_cpp").submodule_search_locations[0]
    ggml = ctypes.CDLL(str(pathlib.Path(where) / "lib" / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_void_p]
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    return ggml


def aligned(values):
    """Room for so many f32 that begins where a cache line does."""
    room = np.zeros(values + 16, np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first:first + values]


def least(call, *args):
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() < begin + 0.2:
        for _ in range(64):
            start = time.perf_counter()
            call(*args)
            best = min(best, time.perf_counter() - start)
    return best


def main():
    binary, *names = sys.argv[1:]
    ggml = load_ggml()
    rng = np.random.default_rng(1)
    values = (rng.standard_normal(VALUES) * 0.02).astype(np.float32)
    importance = np.ones(VALUES, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        blocks, found = pathlib.Path(folder) / "blocks", pathlib.Path(folder) / "values"
        print("| type | ggml ns/value | ours ns/value | ggml / ours | values |\n|---|---|---|---|---|")
        for name in names or IDS:
            data, out = np.zeros(VALUES * 4, np.uint8), aligned(VALUES)
            size = ggml.ggml_quantize_chunk(IDS[name], values.ctypes.data, data.ctypes.data, 0, 1, VALUES, importance.ctypes.data)
            data[:size].tofile(blocks)
            to_float = ggml.ggml_get_type_traits(IDS[name]).contents.to_float
            source, target = data.ctypes.data, out.ctypes.data
            theirs = ours = float("inf")
            for _ in range(3):
                empty = least(to_float, source, target, 0)
                theirs = min(theirs, least(to_float, source, target, VALUES) - empty)
                command = [binary, name, blocks, found]
                ours = min(ours, float(subprocess.run(command, check=True, capture_output=True).stdout))
            same = np.array_equal(np.fromfile(found, np.uint32), out.view(np.uint32))
            scale = 1e9 / VALUES
            print(f"| {name} | {theirs * scale:.3f} | {ours * scale:.3f} | {theirs / ours:.2f} | "
                  f"{'identical' if same else 'DIFFERENT'} |", flush=True)


main()
