#!/usr/bin/env python3
"""OpenBLAS's float32 product (through NumPy) in the shapes of bench_ops, one thread, by processor time: a yardstick.

    OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 bench/openblas.py    # limited to AVX2; without the first: what it likes best
"""
import time

import numpy as np

for tokens, inputs, outputs in ((288, 3840, 3840), (1056, 3840, 3840), (288, 3840, 10240)):
    x = np.random.rand(tokens, inputs).astype("f")
    w = np.random.rand(outputs, inputs).astype("f").T
    seconds = []
    for _ in range(6):
        start = time.process_time()
        x @ w
        seconds.append(time.process_time() - start)
    print(f"{tokens} x {inputs} -> {outputs}: {2e-9 * tokens * inputs * outputs / min(seconds):.1f} GFLOP/s", flush=True)
