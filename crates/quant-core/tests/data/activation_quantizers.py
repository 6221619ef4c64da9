"""Golden facts of activation quantizers: what compressed-tensors rounds activations to.

    python activation_quantizers.py > activation_quantizers.json
"""
import json
import numpy as np
import torch
import compressed_tensors
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams, compute_dynamic_scales_and_zp

rng = np.random.default_rng(8)
x = rng.standard_normal((6, 24)).astype(np.float32) * 3
x[1] = 0  # a row of zeros
x[2, 5] = 900  # an outlier
x[3] = np.arange(24, dtype=np.float32) / 2 - 6  # ties once the scale is a power of two
x[3, 23] = 127.5
x[4] = np.abs(x[4])  # one sign: an asymmetric grid still holds 0
x[5] *= np.float32(2.0) ** -20  # small
x = torch.from_numpy(x)


def listed(t):
    return [float(v) for v in t.float().flatten()]


cases = []
for kind, symmetric in (("int", True), ("int", False), ("float", True)):
    for strategy, dynamic in (("token", True), ("tensor", True), ("tensor", False)):
        args = QuantizationArgs(num_bits=8, type=kind, symmetric=symmetric, strategy=strategy, dynamic=dynamic)
        low, high = -7.5, 12.25  # of a static grid
        if dynamic:
            scale, zero = compute_dynamic_scales_and_zp(x.unsqueeze(0), args, torch.nn.Module())
        else:
            scale, zero = calculate_qparams(torch.tensor([low]), torch.tensor([high]), args)
        rounded = fake_quantize(x.unsqueeze(0), scale, zero, args)
        codes = quantize(x.unsqueeze(0), scale, zero, args, dtype=torch.float8_e4m3fn if kind == "float" else torch.int8)
        codes = codes.flatten().view(torch.uint8).tolist()
        case = {"type": kind, "symmetric": symmetric, "strategy": strategy, "dynamic": dynamic, "scale": listed(scale)}
        case.update({"zero_point": [int(v) for v in listed(zero)], "codes": codes, "rounded": listed(rounded)})
        if not dynamic:
            case["range"] = [low, high]
        cases.append(case)
print(json.dumps({"tool": f"compressed-tensors {compressed_tensors.__version__}, torch {torch.__version__}", "rows": 6, "columns": 24, "x": listed(x), "cases": cases}))
