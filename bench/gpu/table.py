"""Prints a file of results, one table for each kind.

    table.py results.jsonl
"""

import json
import sys

BLOCKS = 32  # 30 joint blocks and 2 refiners of the image; the refiners of the prompt take almost no time
PRODUCTS = {"3840->3840": 4, "3840->10240": 2, "10240->3840": 1}  # of a block
STAGES = ("step", "decode", "encode", "stages", "pixels", "cold")
FASTEST = ("torch eager", "torch compiled", "torch compiled graph", "torch fp8", "torch fp8 graph")


def rows_of(lines, kind):
    return [line for line in lines if line["kind"] == kind]


def print_table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for n, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("| " + " | ".join(cells) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    print()


def latest(lines, kind, value):
    """{who: {what: value}}; of several measurements the last."""
    found = {}
    for line in rows_of(lines, kind):
        found.setdefault(line["who"], {})[line.get("what", "")] = line[value]
    return found


def ceilings(lines):
    return {line["what"]: line for line in rows_of(lines, "ceiling")}


def ideal_step(found, numbers, size):
    """Seconds of a block's products and attention at the rates that PyTorch's reach alone, times the blocks."""
    attention = [line["seconds"] for what, line in found.items() if what.startswith("attention") and what.endswith(f" {size}")]
    each = [(found.get(f"{numbers} {size} {shape}"), count) for shape, count in PRODUCTS.items()]
    if not attention or not all(line for line, _ in each):
        return None
    return BLOCKS * (min(attention) + sum(line["seconds"] * count for line, count in each))


def sizes_of(times):
    return sorted({int(what.split()[-1]) for row in times.values() for what in row if what[-1:].isdigit()}, reverse=True)


def shown(times):
    columns = [f"{family}{what}" for family in ("", "klein ") for what in
               ("text", *(f"{stage} {size}" for size in sizes_of(times) for stage in STAGES))]  # fmt: skip
    return [what for what in columns if any(what in row for row in times.values())]


def print_times(lines):
    times, memory, found = latest(lines, "time", "seconds"), latest(lines, "memory", "bytes"), ceilings(lines)
    columns = shown(times)
    print("Milliseconds, medians. pixels: prompt (torch: token ids) to image, 8 steps, warm; stages: the same as a sum of")
    print("stages; cold: from the start of the process. Memory: zimage all memory in use on the GPU, torch what it allocated.\n")
    rows = []
    for who, row in times.items():
        used = max(memory.get(who, {}).values(), default=0)
        cells = [f"{row[what] * 1e3:.1f}" if what in row else "" for what in columns]
        rows.append([who, *cells, f"{used / 2**30:.1f}" if used else ""])
    print_table(["", *columns, "GiB"], rows)
    for size in sizes_of(times):
        for numbers in ("bf16", "fp8"):
            ideal = ideal_step(found, numbers, size)
            if ideal:
                shares = [f"{who} {100 * ideal / row[f'step {size}']:.0f} %" for who, row in times.items()
                          if f"step {size}" in row and ("fp8" in who) == (numbers == "fp8")]  # fmt: skip
                print(f"step {size}, of the {numbers} ceiling ({ideal * 1e3:.1f} ms): " + ", ".join(shares))
        for numbers in ("bf16", "bf16, one after the other", "fp8"):
            ideal = times.get(f"ceiling {numbers}", {}).get(f"klein step {size}")
            if ideal:
                shares = [f"{who} {100 * ideal / row[f'klein step {size}']:.0f} %" for who, row in times.items()
                          if f"klein step {size}" in row and ("fp8" in who) == (numbers == "fp8")]  # fmt: skip
                print(f"klein step {size}, of the {numbers} ceiling ({ideal * 1e3:.1f} ms): " + ", ".join(shares))
    print()
    print_ratios(times)


def print_ratios(times):
    for ours, numbers in (("zimage bf16", False), ("zimage fp8", True)):
        for what in shown(times):
            peers = [(times[who][what], who) for who in FASTEST if what in times.get(who, {}) and ("fp8" in who) == numbers]
            if what in times.get(ours, {}) and peers:
                taken, who = min(peers)
                print(f"{ours} {what}: {taken / times[ours][what]:.2f} x as fast as {who}")
    print()


def print_lists(lines):
    for line in rows_of(lines, "environment")[-1:]:
        print(", ".join(f"{k} {v}" for k, v in line.items() if k != "kind") + "\n")
    for kind, head, fields in (
        ("part", ["part", "status", "seconds"], ("name", "status", "seconds")),
        ("check", ["check", "passed", ""], ("what", "passed", "note")),
        ("score", ["images", "right %", "prompts"], ("what", "right", "prompts")),
        ("failure", ["failed", "why"], ("what", "why")),
    ):
        rows = [[str(line.get(field, ""))[:110] for field in fields] for line in rows_of(lines, kind)]
        if rows:
            print_table(head, rows)
    rows = [[line["what"], f"{line['seconds'] * 1e3:.3f}", f"{line['tflops']:.0f}"] for line in rows_of(lines, "ceiling")]
    if rows:
        print_table(["ceiling", "ms", "TFLOP/s"], rows)
    rows = [[line["who"], line["what"], f"{line['error']:.3e}"] for line in rows_of(lines, "error")]
    if rows:
        print_table(["error", "", "relative L2"], rows)


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        lines = [json.loads(line) for line in f if line.strip()]
    print_lists(lines)
    print_times(lines)


if __name__ == "__main__":
    main()
