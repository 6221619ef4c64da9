"""Edits, splits, merges and turns GGUF files with `quant`, and reads the results with gguf-py and llama.cpp.

    cargo build --release && pip install gguf==0.19.0 llama-cpp-python==0.3.36
    python benches/side_by_side/edited_files.py target/release/quant FILE.gguf ...

For every file: (1) an edit without a change is the same bytes; (2) an edit of keys, seen by gguf-py as the keys it says and the others as
they were, and by llama.cpp's gguf reader; (3) alignment 64; (4) big endian, equal to what gguf-py's converter makes, where that knows
the types; (5) split, read by gguf-py part by part and by llama.cpp as one model, merged to the same bytes. A file with tensors and a
vocabulary is loaded by llama.cpp as a model: the original, the edited one and the first part must give the same logits to the bit.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
from gguf import GGUFReader

base = ctypes.CDLL(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))


class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


base.gguf_init_from_file.restype = ctypes.c_void_p
base.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
base.gguf_free.argtypes = [ctypes.c_void_p]
for name in ("gguf_get_n_kv", "gguf_get_n_tensors"):
    getattr(base, name).restype = ctypes.c_int64
    getattr(base, name).argtypes = [ctypes.c_void_p]


def ggml_counts(path):
    """Keys and tensors as ggml's reader counts them, its strict checks passed."""
    ctx = base.gguf_init_from_file(path.encode(), Params(True, None))
    assert ctx, f"ggml refuses {path}"
    counts = base.gguf_get_n_kv(ctx), base.gguf_get_n_tensors(ctx)
    base.gguf_free(ctx)
    return counts


def content(path):
    """Keys with their types and contents, tensors with type, shape and bytes, as gguf-py reads them."""
    reader = GGUFReader(path)
    keys = {k: (tuple(f.types), f.contents()) for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    tensors = {t.name: (t.tensor_type, tuple(t.shape.tolist()), t.data.tobytes()) for t in reader.tensors}
    return keys, tensors


def same(a, b):
    return a == b or (isinstance(a, float) and a != a and b != b)


@contextlib.contextmanager
def quiet():
    """llama.cpp writes to the file descriptor itself."""
    sink, err = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(err, 2)
        os.close(sink)
        os.close(err)


def logits(path):
    with quiet():
        model = llama_cpp.Llama(path, n_ctx=64, n_threads=2, logits_all=True, verbose=False)
        model.eval(list(range(1, 17)))
        return np.array(model.scores[:16])


def check(quant, path, folder):
    def run(*args):
        subprocess.run([quant, *args], check=True, stdout=subprocess.DEVNULL)

    def bytes_of(p):
        with open(p, "rb") as f:
            return f.read()

    out = os.path.join(folder, "out.gguf")
    original = bytes_of(path)
    keys, tensors = content(path)
    run("edit", path, out)
    assert bytes_of(out) == original, "an edit without a change"

    # Keys: one set anew, one changed in type and value, one renamed, one removed.
    run("edit", path, out, "--set", "test.list=array[string]:[\"a, b\",\"ü\"]", "--set", "general.name=string:edited",
        "--set", "test.number=f64:0.1", "--rename", "general.architecture=test.architecture", "--alignment", "64")
    found, found_tensors = content(out)
    expected = dict(keys)
    expected["test.architecture"] = expected.pop("general.architecture")
    T = gguf.GGUFValueType
    expected["test.list"] = ((T.ARRAY, T.STRING), ["a, b", "ü"])
    expected["general.name"] = ((T.STRING,), "edited")
    expected["test.number"] = ((T.FLOAT64,), 0.1)
    expected["general.alignment"] = ((T.UINT32,), 64)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert all(f[0] == expected[k][0] and same(f[1], expected[k][1]) for k, f in found.items())
    assert found_tensors == tensors
    assert ggml_counts(out) == (len(expected), len(tensors))
    run("edit", out, out, "--rename", "test.architecture=general.architecture", "--remove", "test.list", "--remove", "test.number")
    edited = os.path.join(folder, "edited.gguf")
    shutil.copy(out, edited)

    # Big endian, beside gguf-py's converter.
    run("edit", path, out, "--byte-order", "big")
    turned = os.path.join(folder, "turned.gguf")
    shutil.copy(path, turned)
    converter = [sys.executable, "-m", "gguf.scripts.gguf_convert_endian", turned, "big"]
    by_gguf_py = subprocess.run(converter, input=b"YES\n", capture_output=True).returncode == 0
    if by_gguf_py:
        assert bytes_of(out) == bytes_of(turned), "big endian"
    run("edit", out, out, "--byte-order", "little")
    assert bytes_of(out) == original, "back to little endian"

    # Parts.
    prefix = os.path.join(folder, "part")
    count = max(1, (len(tensors) + 2) // 3)
    run("split", path, prefix, "--max-tensors", str(count))
    parts = sorted(os.path.join(folder, f) for f in os.listdir(folder) if f.startswith("part-"))
    seen = {}
    for part in parts:
        part_keys, part_tensors = content(part)
        assert ggml_counts(part) == (len(part_keys), len(part_tensors))
        seen |= part_tensors
    assert seen == tensors
    assert {k for k in content(parts[0])[0] if not k.startswith("split.")} == keys.keys()
    run("merge", parts[0], out)
    assert bytes_of(out) == original, "split and merged"

    runs = "no tensors"
    if tensors:
        before = logits(path)
        assert np.array_equal(before, logits(edited)), "logits of the edited file"
        assert np.array_equal(before, logits(parts[0])), "logits of the parts"
        runs = "same logits in llama.cpp"
    order = "big endian equal to gguf-py's" if by_gguf_py else "gguf-py turns no file of these types"
    print(f"{os.path.basename(path)}: {len(keys)} keys, {len(tensors)} tensors, {len(parts)} parts, {order}, {runs}")


for path in sys.argv[2:]:
    with tempfile.TemporaryDirectory() as folder:
        check(sys.argv[1], path, folder)
print(f"{len(sys.argv) - 2} files, no difference")
