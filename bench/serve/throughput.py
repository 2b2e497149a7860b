"""Pictures a second of the server against `zimage generate --batch`, the same pictures, on loopback. Needs Python only.

    throughput.py PROGRAM [--model DIR] [--device cpu] [--size 256] [--steps 8] [--pictures 8] [--rounds 2] [--limit 600]
                  [--compute auto] [--beside DEVICES] [--kinds "batch server"]
    throughput.py PROGRAM --random DIR --device cuda --size 1024 --pictures 16 --limit 200    on a GPU

--random: a model folder of the published sizes with random weights, which folder.py writes first if it is not there (numpy;
20 GB, best in memory: /dev/shm/NAME); with --small a toy. Each round is a batch, the server with --no-overlap (on a GPU), and
the server. Each makes the same pictures, of which the first ones are not counted: the rate is that between the moments when the
last of these and the last of all were complete, as a file or as an answer. Peak memory is that of the whole GPU, by nvidia-smi.
--beside cuda:0,cuda:1: instead the batch and the server with --device, and both with these devices; ratios are to the first
devices' kind. --kinds chooses what is measured. Exit code 1: a picture was not the first kind's. Past the limit no further
round begins, and what runs is ended.
"""

import argparse
import base64
import concurrent.futures
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "serve"))
from harness import Server, png_pixels  # noqa: E402

SUBJECTS = ["a red fox", "an old lighthouse", "two bicycles", "a bowl of soup", "the harbour", "a violin", "snowy hills"]
PROMPT = "{}, seen from a low angle at dusk, soft light, long shadows, muted colours, a photograph"
UNCOUNTED = 4  # of each run: weights are copied to the GPU, and both workers have made an image


class Memory:
    """The most memory of the first GPU in use, in MiB, while it is watched; None: there is no nvidia-smi."""

    def __init__(self):
        self.peak, self.process = None, None

    def __enter__(self):
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        try:
            command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", first, "-lms", "100"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            return self
        threading.Thread(target=self.watch, daemon=True).start()
        return self

    def watch(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.peak = max(self.peak or 0, int(line))

    def __exit__(self, *unused):
        if self.process:
            self.process.kill()
            self.process.wait()


def requests_of(a):
    return [{"prompt": PROMPT.format(SUBJECTS[i % len(SUBJECTS)]), "seed": i, "size": f"{a.size}x{a.size}", "steps": a.steps}
            for i in range(UNCOUNTED + a.pictures)]  # fmt: skip


def options_of(a, device=None):
    return ["--device", device or a.device, "--compute", a.compute, *(["-m", a.model] if a.model else []), "--cache-dir", a.cache, "-q"]


def rate_of(moments):
    """moments: when each picture was complete."""
    moments = sorted(moments)
    return (len(moments) - UNCOUNTED) / (moments[-1] - moments[UNCOUNTED - 1])


def left(a):
    seconds = a.end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the limit is over")
    return seconds


def run_batch(a, folder, steps, device=None):
    """The files of the pictures."""
    lines = [{"prompt": r["prompt"], "seed": r["seed"], "width": a.size, "height": a.size, "steps": steps, "output": f"{i}.png"}
             for i, r in enumerate(requests_of(a))]  # fmt: skip
    path = os.path.join(folder, "batch.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(json.dumps(line) + "\n" for line in lines))
    command = [a.program, "generate", "--batch", path, "--out-dir", folder, *options_of(a, device)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=left(a))
    return [os.path.join(folder, line["output"]) for line in lines]


def batch(a, device=None):
    with tempfile.TemporaryDirectory() as folder:
        files = run_batch(a, folder, a.steps, device)
        moments = [os.stat(file).st_mtime_ns * 1e-9 for file in files]
        made = []
        for file in files:
            with open(file, "rb") as f:
                made.append(png_pixels(f.read()))
    return rate_of(moments), made


def serve(a, *options, device=None):
    requests = requests_of(a)
    with Server(a.program, *options_of(a, device), "--max-queue", str(len(requests)), "--max-wait", "100000", *options) as s:
        timer = threading.Timer(left(a), s.process.kill)
        timer.start()
        moments = [0.0] * len(requests)

        def ask(i):
            answer = s.json("POST", "/v1/images/generations", requests[i])
            moments[i] = time.monotonic()
            return answer

        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            answers = []
            for i in range(len(requests)):
                answers.append(pool.submit(ask, i))
                time.sleep(0.01)  # so that they arrive in this order
            answers = [answer.result() for answer in answers]
        timer.cancel()
    return rate_of(moments), [png_pixels(base64.b64decode(answer["data"][0]["b64_json"])) for answer in answers]


def cpu_seconds():
    """That programs which have ended have used: on a busy machine this says more than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(a, kinds):
    """Rates, peaks and pictures of each kind."""
    found = {name: ([], [], []) for name, _ in kinds}
    begin = time.monotonic()
    for i in range(a.rounds):
        if i > 0 and (time.monotonic() - begin) / i > a.end - time.monotonic():
            print(f"no time for round {i + 1}")
            break
        for name, run in kinds:
            began, cpu = time.monotonic(), cpu_seconds()
            with Memory() as memory:
                rate, made = run()
            for values, value in zip(found[name], (rate, memory.peak or 0, made)):
                values.append(value)
            print(f"round {i + 1}, {name}: {rate:.4f} pictures/s ({time.monotonic() - began:.0f} s in all, "
                  f"{cpu_seconds() - cpu:.1f} s of CPUs)", flush=True)  # fmt: skip
    return found


def base_of(name, found):
    """What a kind's rate is divided by: its own on the first devices, else the batch, else the first one that was measured."""
    return name.split(" on ")[0] if " on " in name else "batch" if "batch" in found else next(iter(found))


def report(a, found):
    expected = next(iter(found.values()))[2][0]
    all_equal = True
    for name, (rates, peaks, made) in found.items():
        rate = statistics.median(rates)
        base = statistics.median(found[base_of(name, found)][0])
        equal = all(pictures == expected for pictures in made)
        all_equal &= equal
        peak = f"{max(peaks) / 1024:.2f} GiB" if max(peaks) else "not measured"
        print(f"{name:<22} {rate:8.4f} pictures/s  ratio {rate / base:6.4f}  peak GPU memory {peak}  "
              f"{'the same pictures' if equal else 'OTHER PICTURES'}")  # fmt: skip
    return all_equal


def prepare(a):
    if a.random:
        sys.path.insert(0, HERE)
        import folder  # noqa: PLC0415: needs numpy

        folder.write(a.random, a.small)
        a.model = a.random
    if a.device != "cpu":  # algorithms are measured once, and the file keeps them
        with tempfile.TemporaryDirectory() as made:
            run_batch(a, made, 1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program")
    p.add_argument("--model", help="default: the bundled one")
    p.add_argument("--random", metavar="DIR")
    p.add_argument("--small", action="store_true")
    p.add_argument("--device", default="cpu")
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--pictures", type=int, default=8, help="that are counted")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--limit", type=float, default=600, metavar="SECONDS")
    p.add_argument("--compute", default="auto")
    p.add_argument("--beside", metavar="DEVICES", help="what else to measure")
    p.add_argument("--kinds", default="batch server", help="which of these two")
    a = p.parse_args()
    a.end = time.monotonic() + a.limit
    kinds = [("batch", lambda: batch(a)), ("server, no overlap", lambda: serve(a, "--no-overlap")), ("server", lambda: serve(a))]
    if a.device == "cpu":
        del kinds[1]  # there is none
    if a.beside:
        kinds = [("batch", lambda: batch(a)), (f"batch on {a.beside}", lambda: batch(a, a.beside)),
                 ("server", lambda: serve(a)), (f"server on {a.beside}", lambda: serve(a, device=a.beside))]  # fmt: skip
    kinds = [kind for kind in kinds if kind[0].split()[0].rstrip(",") in a.kinds.split()]
    if not kinds:
        p.error(f'--kinds "{a.kinds}" is neither batch nor server')
    with tempfile.TemporaryDirectory() as a.cache:
        prepare(a)
        found = measure(a, kinds)
    if not report(a, found):
        sys.exit(1)


if __name__ == "__main__":
    main()
