#!/usr/bin/env python3
"""Tries the operations of MLX that Z-Image needs on MLX's default device, and times them in sizes of 512x512 pixels.

    smoke.py             # --small: sizes that a CPU can do in seconds

Each operation is compared with the CPU's float32 result on small inputs first. Prints one line of JSON for each; exits
with 1 if one fails.
"""

import argparse
import json
import statistics
import sys
import time

import mlx.core as mx

BF16 = mx.bfloat16
TOLERANCE = 0.02  # relative error in norm; bf16 results lie between 0.001 and 0.01


def normal(*shape):
    return mx.random.normal(shape, dtype=BF16)


def attention(q, k, v):
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)


def plain_attention(q, k, v):
    return mx.softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5, axis=-1) @ v


def quantised(group):
    def product(x, w):
        packed, scales, biases = quantised_weight(w, group)
        return mx.quantized_matmul(x, packed, scales, biases, transpose=True, group_size=group, bits=4)

    def reference(x, w):
        packed, scales, biases = (v.astype(mx.float32) if v.dtype == BF16 else v for v in quantised_weight(w, group))
        return x @ mx.dequantize(packed, scales, biases, group_size=group, bits=4).T

    return product, reference


PACKED = {}  # by (matrix, group): quantised once, so that the product alone is timed


def quantised_weight(w, group):
    key = (id(w), group)
    if key not in PACKED:
        PACKED[key] = (w, mx.quantize(w.astype(BF16), group_size=group, bits=4))
        mx.eval(PACKED[key])
    return PACKED[key][1]


def product(x, w):
    return x @ w.T


def norm(x, w):
    return mx.fast.rms_norm(x, w, 1e-5)


def checks(small):
    """(name, function, reference, inputs to compare, inputs to time, floating-point operations of the timed one)"""
    rows, width, hidden, heads, pixels = (64, 256, 512, 2, 16) if small else (1088, 3840, 10240, 30, 512)
    keys = 64 if small else 4096

    def linear(m, n, k):
        return (normal(m, k), normal(n, k)), 2 * m * n * k

    def heads_of(count, queries, keys, d):
        inputs = (normal(1, count, queries, d), normal(1, count, keys, d), normal(1, count, keys, d))
        return inputs, 4 * count * queries * keys * d

    few, _ = linear(64, 256, 256)
    two_heads, _ = heads_of(2, 96, 96, 128)
    wide_head, _ = heads_of(1, 64, 96, 512)
    image = (normal(1, 12, 12, 32), normal(64, 3, 3, 32))
    images = (normal(1, pixels, pixels, 128), normal(128, 3, 3, 128))

    def conv(x, w):
        return mx.conv2d(x, w, padding=1)

    yield "rms_norm", norm, norm, (normal(80, 256), normal(256)), (normal(rows, width), normal(width)), 0
    yield "matmul", product, product, few, *linear(rows, hidden, width)
    yield "matmul, 4096 rows", product, product, few, *linear(rows if small else 4096, hidden, width)
    yield "attention, heads of 128", attention, plain_attention, two_heads, *heads_of(heads, rows, rows, 128)
    yield "attention, one head of 512", attention, plain_attention, wide_head, *heads_of(1, keys, keys, 512)
    yield "conv2d", conv, conv, image, images, 2 * 9 * pixels * pixels * 128 * 128
    for group in (64, 32):
        yield f"quantized_matmul, groups of {group}", *quantised(group), few, *linear(rows, hidden, width)


def relative_error(function, reference, inputs):
    found = function(*inputs).astype(mx.float32)
    mx.eval(found)
    with mx.stream(mx.cpu):
        expected = reference(*(x.astype(mx.float32) for x in inputs))
        error = mx.linalg.norm(found - expected) / mx.linalg.norm(expected)
        return error.item()


def median_seconds(function, inputs):
    mx.eval(inputs)
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        mx.eval(function(*inputs))
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def try_one(name, function, reference, few, inputs, operations):
    line = {"check": name, "ok": False}
    start = time.perf_counter()
    try:
        line["error"] = relative_error(function, reference, few)
        line["seconds"] = median_seconds(function, inputs)
        if operations:
            line["tflops"] = operations / line["seconds"] * 1e-12
        line["ok"] = line["error"] < TOLERANCE
    except Exception as e:  # the other operations are still to be tried
        line["why"] = f"{type(e).__name__}: {e}"[:800]
    line["with_compilation"] = time.perf_counter() - start
    print(json.dumps(line), flush=True)
    return line["ok"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--small", action="store_true", help="sizes that a CPU can do in seconds")
    a = p.parse_args()
    mx.random.seed(0)
    print(json.dumps({"mlx": mx.__version__, "device": str(mx.default_device()), "info": mx.device_info()}), flush=True)
    results = [try_one(*check) for check in checks(a.small)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
