"""What gguf-py reads in GGUF files, key by key and tensor by tensor, as hashes.

    pip install gguf==0.19.0; python gguf_py.py FILE... > gguf_py.json

A key: [name, type, element type or null, number of elements, first 16 hex digits of the SHA-256 of its elements]; an element is its bytes,
little endian, and in front of a string's stands its length as u64. A tensor: [name, type, shape (rows first), offset, bytes, hash of them].
"""
import hashlib, json, os, struct, sys
import gguf
from importlib.metadata import version

def digest(parts):
    h = hashlib.sha256()
    for p in parts:
        h.update(p)
    return h.hexdigest()[:16]

def facts(path):
    reader = gguf.GGUFReader(path)
    keys, tensors = [], []
    for f in reader.fields.values():
        if f.name.startswith("GGUF."):
            continue
        strings = f.types[-1] == gguf.GGUFValueType.STRING
        parts = [f.parts[i].tobytes() for i in f.data]
        if strings:
            parts = [struct.pack("<Q", len(p)) + p for p in parts]
        array = f.types[0] == gguf.GGUFValueType.ARRAY
        keys.append([f.name, int(f.types[0]), int(f.types[-1]) if array else None, len(f.data), digest(parts)])
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        tensors.append([t.name, int(t.tensor_type), shape, int(t.data_offset), int(t.n_bytes), digest([t.data.tobytes()])])
    return {"keys": keys, "tensors": tensors}

print(json.dumps({"source": "gguf-py " + version("gguf") + ", gguf_py.py",
                  "files": {os.path.basename(p): facts(p) for p in sys.argv[1:]}}, separators=(",", ":")).replace("],[", "],\n["))
