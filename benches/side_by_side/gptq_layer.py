#!/usr/bin/env python3
"""One linear layer beside torch on the same processor: the Gram matrix of its inputs, and GPTQ with 4 bits in groups of 128.

    cargo build --release -p gptq --example layer_time
    python benches/side_by_side/gptq_layer.py target/release/examples/layer_time [IN OUT ROWS [PASSES]]

Needs numpy and torch. Both sides take turns on the same numbers with the same number of threads (THREADS, default 2); the least of the
passes counts. The torch side does the operations of IST-DASLab's gptq.py in its order, f32 and block size 128: Gram matrix by one
product, Cholesky, inverse, Cholesky, and the loop over columns with scales from the smallest to the largest weight of a group. "loss" is the
squared error of the layer's output, mean over rows. On a machine that does other work too, compare the processor time ("cpu").
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

THREADS = os.environ.get("THREADS", "2")
# Threads that wait do not spin, so that a busy machine and the count of processor time are fair to both.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS, RAYON_NUM_THREADS=THREADS)

import numpy as np
import torch

BITS, GROUP, BLOCK, DAMP = 4, 128, 128, 0.01


class Clock:
    def __init__(self):
        self.start = (time.perf_counter(), time.process_time())

    def read(self):
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def reference_gram(x):
    start = Clock()
    gram = torch.zeros(x.shape[1], x.shape[1])
    # In pieces of 2,048 rows, as a calibration pass delivers them.
    for piece in x.split(2048):
        gram += piece.t().matmul(piece)
    return gram, start.read()


def reference_solve(w, gram, rows):
    start = Clock()
    w = w.clone()
    h = gram * (2 / rows)
    n = h.shape[0]
    h.diagonal().add_(DAMP * h.diagonal().mean())
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    top = 2**BITS - 1
    out = torch.zeros_like(w)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        block, errors, corner = w[:, first:last].clone(), torch.zeros(w.shape[0], last - first), u[first:last, first:last]
        for i in range(last - first):
            if (first + i) % GROUP == 0:
                group = w[:, first + i:first + i + GROUP]
                low, high = group.amin(1).clamp(max=0), group.amax(1).clamp(min=0)
                scale = (high - low) / top
                zero = torch.round(-low / scale)
            column = block[:, i]
            value = scale * (torch.clamp(torch.round(column / scale) + zero, 0, top) - zero)
            out[:, first + i] = value
            error = (column - value) / corner[i, i]
            block[:, i:] -= error.unsqueeze(1).matmul(corner[i, i:].unsqueeze(0))
            errors[:, i] = error
        w[:, last:] -= errors.matmul(u[first:last, last:])
    return out, start.read()


def main():
    binary, *numbers = sys.argv[1:]
    n, out, rows, passes = [int(v) for v in numbers] + [4096, 4096, 16384, 3][len(numbers):]
    torch.set_num_threads(int(THREADS))
    rng = np.random.default_rng(1)
    # Correlated inputs with a few loud columns.
    x = rng.standard_normal((rows, n), dtype=np.float32)
    x[:, 1:] += 0.5 * x[:, :-1]
    x *= 1 + 6 * (rng.random(n) > 0.99).astype(np.float32)
    w = (rng.standard_normal((out, n)) * 0.02).astype(np.float32)
    theirs, ours = {}, {}

    def keep(side, **values):
        for name, value in values.items():
            side[name] = min(side.get(name, float("inf")), value)

    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / name for name in ("inputs", "weights")]
        x.tofile(paths[0])
        w.tofile(paths[1])
        for _ in range(passes):
            gram, (wall, cpu) = reference_gram(torch.from_numpy(x))
            keep(theirs, gram=wall, gram_cpu=cpu)
            rounded, (wall, cpu) = reference_solve(torch.from_numpy(w), gram, rows)
            keep(theirs, solve=wall, solve_cpu=cpu)
            command = [binary, str(n), str(out), str(rows), str(GROUP), str(BITS), *map(str, paths)]
            keep(ours, **json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    error = torch.from_numpy(w) - rounded
    loss = ((error.double() @ gram.double()) * error.double()).sum().item() / rows
    print(f"{n} x {out}, {rows} rows, {BITS} bits in groups of {GROUP}, {THREADS} threads, torch {torch.__version__}\n")
    print("| step | torch s | ours s | ours / torch | torch cpu | ours cpu | cpu ours / torch | loss ours / torch |")
    print("|---|---|---|---|---|---|---|---|")

    def row(title, reference, names, loss):
        cells = [title]
        for suffix in ("", "_cpu"):
            mine = sum(ours[name + suffix] for name in names)
            cells += [f"{theirs[reference + suffix]:.2f}", f"{mine:.2f}", f"{mine / theirs[reference + suffix]:.2f}"]
        print("| " + " | ".join(cells + [loss]) + " |")

    row("Gram matrix", "gram", ["gram"], "")
    for name, title in (("min_max", "smallest to largest"), ("mse", "least squared error"), ("hessian", "by the Hessian"),
                        ("refined", "by the Hessian, one sweep: the default")):
        row(f"factor and matrix, scales {title}", "solve", ["factor", name], f"{ours[name + '_loss'] / loss:.3f}")


if __name__ == "__main__":
    main()
