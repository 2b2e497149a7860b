"""Writes safetensors files of random weights, fast: for make_6b.py and bench/serve. Needs numpy only.

The values are normal: matrices scaled by 1/sqrt(inputs), norm weights near 1. Each tensor is cut from one long random block at a
random place. Packed numbers are random bits; a group's bias centres them. Several threads stream the data, so memory stays near
1 GB.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BLOCK = 16_777_259  # a prime: rows of a large matrix never repeat


def standard(name, shape):
    """The deviation and the mean of a tensor's numbers."""
    if len(shape) < 2:
        return (0.1, 1.0) if name.endswith("weight") else (0.02, 0.0)
    return (1.0 if "pad_token" in name else 0.05 if "embed_tokens" in name else float(np.prod(shape[1:])) ** -0.5), 0.0


def stored(name, shape, bits, group):
    """The stored parts of a tensor: (name, shape, deviation, mean). Without a deviation the part is random bits."""
    deviation, mean = standard(name, shape)
    if not bits or len(shape) != 2 or shape[1] % group or not name.endswith(".weight"):
        return [(name, shape, deviation, mean)]
    stem, groups, steps = name.removesuffix("weight"), (shape[0], shape[1] // group), 2**bits - 1
    scale = deviation / ((steps * (steps + 2)) / 12) ** 0.5  # the numbers 0 to steps, all equally likely
    return [
        (name, (shape[0], shape[1] * bits // 32), None, None),
        (f"{stem}scales", groups, scale / 8, scale),
        (f"{stem}biases", groups, -steps / 2 * scale / 8, -steps / 2 * scale),  # cut from the same normal numbers
    ]


def bf16(values):
    """float32 rounded to bfloat16, ties to even, as 16 bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


class Values:
    def __init__(self, seed):
        self.random = np.random.Generator(np.random.Philox(seed))
        self.normal = self.random.standard_normal(BLOCK, dtype=np.float32)
        self.cache, self.place = {}, 0

    def block(self, deviation, mean):
        if (deviation, mean) not in self.cache:
            if len(self.cache) >= 6:
                self.cache.pop(next(iter(self.cache)))
            if deviation is None:
                values = self.random.integers(2**16, size=BLOCK, dtype=np.uint16)
            else:
                values = bf16(self.normal * np.float32(deviation) + np.float32(mean))
            self.cache[(deviation, mean)] = memoryview(values).cast("B")
        return self.cache[(deviation, mean)]

    def pieces(self, name, size, deviation, mean):
        """Yields the tensor's data piece by piece, as memory."""
        block = self.block(deviation, mean)
        if not name.endswith(".biases"):
            self.place = 2 * int(self.random.integers(BLOCK))
        at, left = self.place, size
        while left:
            size = min(left, len(block) - at)
            yield block[at : at + size]
            left, at = left - size, 0


def write_at(fd, data, at):
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def write_file(path, header, shard, values, threads):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as f, ThreadPoolExecutor(threads) as pool:
        f.write(len(text).to_bytes(8, "little") + text)
        at, writes = 8 + len(text), []
        for name, size, deviation, mean in shard:
            for data in values.pieces(name, size, deviation, mean):
                writes.append(pool.submit(write_at, f.fileno(), data, at))
                at += len(data)
        for write in writes:
            write.result()


def write_sharded(folder, base, tensors, values, a, bits=None):
    """tensors: list of (name, shape). a: group, shard_bytes, threads."""
    os.makedirs(folder, exist_ok=True)
    shards, entries, size = [[]], {}, 0
    for name, shape, deviation, mean in (part for name, shape in tensors for part in stored(name, shape, bits, a.group)):
        dtype = "BF16" if deviation else "U32"
        n = (2 if deviation else 4) * int(np.prod(shape))
        if shards[-1] and size + n > a.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, n, deviation, mean))
        entries[name] = (dtype, shape)
        size += n
    names, total = {}, 0
    for i, shard in enumerate(shards):
        file = f"{base}.safetensors" if len(shards) == 1 else f"{base}-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, n, _, _ in shard:
            header[name] = {"dtype": entries[name][0], "shape": list(entries[name][1]), "data_offsets": [at, at + n]}
            names[name] = file
            at += n
        write_file(f"{folder}/{file}", header, shard, values, a.threads)
        total += at
    if len(shards) > 1:
        with open(f"{folder}/{base}.safetensors.index.json", "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}, f, indent=2)
    print(f"{folder}: {len(names)} tensors, {total:,} bytes in {len(shards)} file(s)", flush=True)
