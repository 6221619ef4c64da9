"""Makes little.gguf and big.gguf: the same content, the second turned by gguf-py's own converter.

    pip install gguf==0.19.0; python byte_order.py OUT_DIR
"""
import os, shutil, subprocess, sys
import numpy as np
import gguf

out = sys.argv[1]
little, big = os.path.join(out, "little.gguf"), os.path.join(out, "big.gguf")
rng = np.random.default_rng(7)
writer = gguf.GGUFWriter(little, "llama")
writer.add_uint8("u8", 200); writer.add_int8("i8", -3); writer.add_uint16("u16", 40000); writer.add_int16("i16", -300)
writer.add_uint32("u32", 4000000000); writer.add_int32("i32", -70000); writer.add_uint64("u64", 2**63 + 5); writer.add_int64("i64", -2**40)
writer.add_float32("f32", 1.5e-7); writer.add_float64("f64", -1 / 3); writer.add_bool("bool", True); writer.add_string("string", "naïve")
writer.add_array("strings", ["a", "", "żółw"]); writer.add_array("ints", [1, -2, 70000]); writer.add_array("floats", [0.5, -2.0])
writer.add_array("bools", [True, False, True])
T = gguf.GGMLQuantizationType
for ty in [T.F32, T.F16, T.BF16, T.Q4_0, T.Q8_0, T.Q4_K, T.Q6_K, T.MXFP4, T.NVFP4]:
    block, size = gguf.GGML_QUANT_SIZES[ty]
    row = 256 // block * size
    if ty in (T.F32, T.F16):
        data = rng.standard_normal((2, 256)).astype(np.float32 if ty == T.F32 else np.float16)
        writer.add_tensor(ty.name.lower(), data)
    else:
        writer.add_tensor(ty.name.lower(), rng.integers(0, 256, (2, row), dtype=np.uint8), raw_dtype=ty)
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
shutil.copy(little, big)
subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_convert_endian", big, "big"], input=b"YES\n", check=True, stdout=subprocess.DEVNULL)
