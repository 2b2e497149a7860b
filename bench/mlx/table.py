"""The results of bench/mlx/run.sh.

    table.py add FILE SIZE MODE    adds the step of `zimage bench --json`, read from the standard input
    table.py show FILE             prints the table
    table.py tell STAGE            prints one stage of `zimage bench --json`, read from the standard input
"""

import json
import statistics
import sys


def add(file, size, mode):
    found = json.load(sys.stdin)
    step = next(s for s in found["stages"] if s["name"] == "transformer_step")
    line = {"who": "zimage", "size": int(size), "mode": mode, "seconds": step["seconds"]}
    line["peak_bytes"] = found.get("peak_device_bytes", found["peak_rss_bytes"])
    with open(file, "a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def tell(stage):
    found = {s["name"]: s for s in json.load(sys.stdin)["stages"]}
    s, load = found[stage], found["load"]["seconds"]
    print(f"    {1000 * s['seconds']:.2f} ms, {s['percent_of_peak']:.1f} % of the peak; load {load:.1f} s")
    if "graph" in s:
        g = s["graph"]
        print(
            f"    a graph of {g['nodes']} operations, built in {1000 * g['seconds']:.1f} ms, {g['evaluations']} "
            f"evaluations, arrays of at most {g['peak_bytes'] >> 20} MiB"
        )


def show(file):
    with open(file, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    names = sorted({line["who"] for line in lines if line["who"] != "zimage"})
    print(f"a step: medians of the runs (fastest to slowest); peer: {', '.join(names)}")
    print(row("size", "mode", "zimage s", "peer s", "peer / zimage", "zimage GiB", "peer GiB"))
    for size, mode in sorted({(line["size"], line["mode"]) for line in lines}):
        runs = [line for line in lines if (line["size"], line["mode"]) == (size, mode)]
        ours = [line for line in runs if line["who"] == "zimage"]
        theirs = [line for line in runs if line["who"] != "zimage"]
        if ours and theirs:
            ratio = f"{median(theirs) / median(ours):.2f}"
            print(row(size, mode, spread(ours), spread(theirs), ratio, gib(ours), gib(theirs)))


def row(*cells):
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, (5, 5, 24, 24, 14, 11, 9)))


def median(runs):
    return statistics.median(run["seconds"] for run in runs)


def spread(runs):
    seconds = [run["seconds"] for run in runs]
    return f"{median(runs):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def gib(runs):
    return f"{max(run['peak_bytes'] for run in runs) / 2**30:.1f}"


if __name__ == "__main__":
    {"add": add, "show": show, "tell": tell}[sys.argv[1]](*sys.argv[2:])
