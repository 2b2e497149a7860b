#!/usr/bin/env python3
"""Summarises the output of trace.c.

    trace.py TRACE              stretches between pauses of the GPU: kernels, milliseconds busy, milliseconds in all
    trace.py TRACE N            the kernels of stretch N, sorted by time (-1: the last stretch)
    trace.py TRACE --block      the kernels of one block of the transformer: from the third-last attention to the second-last
"""

import argparse

PAUSE = 300_000  # a stretch ends after so many nanoseconds without work


def read(path):
    """[(start, duration, grid, name)] in order, nanoseconds."""
    found = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("K "):
                _, start, taken, grid, name = line.rstrip("\n").split(" ", 4)
                found.append((int(start), int(taken), grid, name))
    return sorted(found)


def stretches(kernels):
    found, end = [], None
    for kernel in kernels:
        if end is None or kernel[0] - end > PAUSE:
            found.append([])
            end = 0
        found[-1].append(kernel)
        end = max(end, kernel[0] + kernel[1])
    return found


def span(kernels):
    return max(start + taken for start, taken, _, _ in kernels) - kernels[0][0]


def print_stretch(kernels):
    sums = {}
    for _, taken, _, name in kernels:
        count, total = sums.get(name, (0, 0))
        sums[name] = count + 1, total + taken
    print(f"{sum(k[1] for k in kernels) / 1e6:.3f} ms busy of {span(kernels) / 1e6:.3f}")
    for name, (count, total) in sorted(sums.items(), key=lambda item: -item[1][1]):
        print(f"{total / 1e6:9.3f} ms {count:6} x {total / count / 1e3:9.2f} us  {name}")


def print_block(kernels):
    attentions = [i for i, k in enumerate(kernels) if "sdpa" in k[3] or "flash" in k[3]]
    for i in range(attentions[-3], attentions[-2] + 1):
        start, taken, grid, name = kernels[i]
        gap = start - kernels[i - 1][0] - kernels[i - 1][1]
        print(f"{taken / 1e3:9.2f} us, {gap / 1e3:6.2f} after the one before  {name[:80]}  {grid}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("trace")
    p.add_argument("stretch", type=int, nargs="?")
    p.add_argument("--block", action="store_true")
    a = p.parse_args()
    kernels = read(a.trace)
    found = stretches(kernels)
    if a.block:
        print_block([k for part in found for k in part if "sdpa_sm80" not in k[3]])
    elif a.stretch is not None:
        print_stretch(found[a.stretch])
    else:
        for i, part in enumerate(found):
            print(f"{i:4} {len(part):6} kernels, {sum(k[1] for k in part) / 1e6:9.3f} ms busy of {span(part) / 1e6:9.3f}, from {part[0][3][:60]}")


if __name__ == "__main__":
    main()
