"""Damages a small GGUF file at random and compares what `quant verify` says of llama.cpp and gguf-py with what those readers do.

    cargo build --release && pip install gguf==0.19.0 llama-cpp-python==0.3.36
    python benches/side_by_side/verify_readers.py target/release/quant [CASES]

llama.cpp: gguf_init_from_file without data, and the bounds check of its model loader done here. gguf-py: GGUFReader. Then, on tensors of
random bytes of every type, whether it finds numbers that are not finite where ggml_validate_row_data does.
"""

import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

quant, cases = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000
base = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))


class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
silent = LOG(lambda *_: None)
base.ggml_log_set(silent, None)
base.gguf_init_from_file.restype = ctypes.c_void_p
base.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
for name, result, args in [
    ("gguf_free", None, [ctypes.c_void_p]),
    ("gguf_get_n_tensors", ctypes.c_int64, [ctypes.c_void_p]),
    ("gguf_get_data_offset", ctypes.c_size_t, [ctypes.c_void_p]),
    ("gguf_get_tensor_offset", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int64]),
    ("gguf_get_tensor_size", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int64]),
]:
    getattr(base, name).restype, getattr(base, name).argtypes = result, args


base.ggml_validate_row_data.restype = ctypes.c_bool
base.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]


def llama_cpp_reads(path):
    ctx = base.gguf_init_from_file(path.encode(), Params(True, None))
    if not ctx:
        return False
    start, length = base.gguf_get_data_offset(ctx), os.path.getsize(path)
    ends = [start + base.gguf_get_tensor_offset(ctx, i) + base.gguf_get_tensor_size(ctx, i) for i in range(base.gguf_get_n_tensors(ctx))]
    base.gguf_free(ctx)
    return all(end <= length for end in ends)


def gguf_py_reads(path):
    try:
        gguf.GGUFReader(path)
        return True
    except Exception:
        return False


def sample(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("general.alignment", 32)
    writer.add_array("tokens", ["a", "b"])
    writer.add_array("flags", [True, False])
    writer.add_tensor("a", np.arange(8, dtype=np.float32))
    writer.add_tensor("b", np.ones((2, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c", np.ones(3, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


rng = random.Random(1)
np.seterr(all="ignore")
counts = {"llama.cpp": [0, 0], "gguf-py": [0, 0]}
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "x.gguf")
    sample(path)
    with open(path, "rb") as f:
        original = f.read()
    for case in range(cases):
        data = bytearray(original)
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(data) - 160)
            data[at] = rng.choice([rng.randrange(256), rng.randrange(10)])
        if rng.random() < 0.1:
            data = data[: rng.randrange(1, len(data))]
        with open(path, "wb") as f:
            f.write(data)
        report = json.loads(subprocess.run([quant, "verify", path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        rules = {f["rule"] for f in report["findings"]}
        for name, reads in [("llama.cpp", llama_cpp_reads), ("gguf-py", gguf_py_reads)]:
            # gguf-py reads short where the file ends early, and takes sizes modulo 2^64.
            if name == "gguf-py" and rules & {"ends_early", "too_large"}:
                continue
            said, found = report["readers"][name] is None, reads(path)
            counts[name][found] += 1
            if said != found:
                with open("disagreement.gguf", "wb") as f:
                    f.write(data)
                sys.exit(f"case {case}, disagreement.gguf: {name} {'reads' if found else 'refuses'} it; verify: {report['readers'][name]} {rules}")
for name, (refused, read) in counts.items():
    print(f"{name}: {read} read, {refused} refused, as verify says")

with tempfile.TemporaryDirectory() as folder:
    path, data = os.path.join(folder, "x.gguf"), {}
    writer = gguf.GGUFWriter(path, "llama")
    for ty in gguf.GGMLQuantizationType:
        # Q8_1: no type of a file, and gguf-py has another size for it. F64: ggml rounds to f32 first, so that large numbers are infinite to it.
        if ty.name in ("Q8_1", "F64") or ty.name.startswith("I") and not ty.name.startswith("IQ"):
            continue
        size = gguf.GGML_QUANT_SIZES[ty][1]
        for i in range(40):
            bytes_ = np.frombuffer(rng.randbytes(size * 8), dtype=np.uint8).reshape(1, -1)
            data[f"{ty.name}.{i}"] = ty, bytes_.tobytes()
            writer.add_tensor(f"{ty.name}.{i}", bytes_, raw_dtype=ty)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    report = json.loads(subprocess.run([quant, "verify", path, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    bad = 0
    sys.stderr.flush()
    keep, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    verdicts = {name: base.ggml_validate_row_data(int(ty), bytes_, len(bytes_)) for name, (ty, bytes_) in data.items()}
    os.dup2(keep, 2)
    for tensor in report["tensors"]:
        valid = verdicts[tensor["name"]]
        bad += not valid
        if valid != (tensor["non_finite"] is None):
            sys.exit(f"{tensor}: ggml_validate_row_data says {valid}")
print(f"values: {len(data)} tensors of {len({ty for ty, _ in data.values()})} types, {bad} of them not finite, as verify says")
