"""AWQ's search on Gram matrices alone, in torch: what tests/golden.rs compares with.

gram_search.py LAYERS.safetensors [BITS:GROUP..] > gram_search.json

Duo scaling with ratios 0, 0.05 .. 0.95 (0 stands for no scaling), scales and zero points as torch rounds them (f32, no f16), then the range of each row
and group cut to 0.95, 0.9, 0.85, 0.8, 0.7 or 0.6 of itself by the group's block of the Gram matrix. Losses: tr((W - W') G (W - W')^T) / 8192.
"""
import json, sys, torch
from safetensors.torch import load_file

layers = load_file(sys.argv[1])


def rounded(w, bits, share=1.0):
    low, high = w.amin(-1, True).clamp_max(0) * share, w.amax(-1, True).clamp_min(0) * share
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-10)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(w / step) + zero, 0, 2**bits - 1) - zero) * step


def grouped(w, bits, group):
    return rounded(w.reshape(w.shape[0], -1, group), bits).reshape(w.shape)


def loss(e, gram):
    e = e.double()
    return ((e @ gram.double()) * e).sum().item() / 8192


out = []
for name in sorted(k.removesuffix(".gram") for k in layers if k.endswith(".gram")):
    w, gram, a = layers[name + ".weight"].float(), layers[name + ".gram"].float(), layers[name + ".abs_mean"].float()
    for bits, group in [tuple(map(int, s.split(":"))) for s in sys.argv[2:] or ["4:128", "3:64"]]:
        parts = w.abs().reshape(w.shape[0], -1, group)
        mean = (parts / (parts.amax(-1, True) + 1e-6)).reshape(w.shape).mean(0)
        best = None
        for i in range(20):
            r = i / 20
            s = torch.ones_like(a) if i == 0 else (a.pow(r) / (mean.pow(1 - r) + 1e-4)).clamp_min(1e-4)
            s = s / (s.max() * s.min()).sqrt()
            found = loss(w - grouped(w * s, bits, group) / s, gram)
            plain = found if i == 0 else plain
            if best is None or found < best[0]:
                best = (found, r, s)
        scaled, s = w * best[2], best[2]
        left = (scaled - grouped(scaled, bits, group)) / s
        for b in range(0, w.shape[1], group):
            c = slice(b, b + group)
            error = lambda e: ((e @ gram[c, c]) * e).sum(1)
            least, current = error(left[:, c]), left[:, c].clone()
            for share in (0.95, 0.9, 0.85, 0.8, 0.7, 0.6):
                e = (scaled[:, c] - rounded(scaled[:, c], bits, share)) / s[c]
                better = error(e) < least
                current[better], least = e[better], torch.where(better, error(e), least)
            left[:, c] = current
        out.append({"layer": name, "bits": bits, "group_size": group, "plain": plain, "ratio": best[1], "scaled": best[0], "clipped": loss(left, gram)})
print(json.dumps({"tool": f"torch {torch.__version__}", "cases": out}, indent=1))
