"""Times zimage on a GPU: its stages, images from prompt to file warm and cold, memory.

    program.py --zimage PROGRAM --out DIR bench [NAME ...]           random weights: stages in every format, or in the named ones
    program.py --zimage PROGRAM --out DIR vram 4G                    the same with little device memory
    program.py --zimage PROGRAM --out DIR images FOLDER NAME         FOLDER: of the real sizes, best in memory; NAME: its format

A cold image is timed from the start of the process to its end. Warm images are a batch, timed from prompt to pixels by the
program itself; the first of the batch is not counted.
"""

import json
import os
import statistics
import subprocess
import time

import harness

# format of the weights, compute type; the most important first
KINDS = [("bf16", "bf16"), ("bf16", "fp8"), ("q4", "bf16"), ("q4", "fp8"), ("q8", "bf16")]
STAGES = {"text_encoder": "text", "transformer_step": "step {}", "vae_decode": "decode {}", "vae_encode": "encode {}"}
SUBJECTS = ["a red fox", "an old lighthouse", "two bicycles", "a bowl of soup", "the harbour", "a violin", "snowy hills"]
PROMPT = "{}, seen from a low angle at dusk, soft light, long shadows, muted colours, a photograph"


def who(form, compute):
    return "zimage " + (compute if form == "bf16" else form if compute == "bf16" else f"{form} {compute}")


def run(a, *arguments, limit=180):
    done = subprocess.run([a.zimage, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def bench_once(a, form, compute, size, extra=()):
    model = ["--synthetic", a.synthetic, "--format", form]
    text = run(a, "bench", *model, "--device", a.device, "--compute", compute, "-W", size, "-H", size, "--tokens",
               harness.CAPTION_TOKENS, "--steps", a.repeats, "--json", "-q", *extra)  # fmt: skip
    label = who(form, compute) + "".join(f" {part}" for part in extra)
    found = json.loads(text)
    prefix = "klein " if a.synthetic.startswith("klein") else ""
    total = 0.0
    for stage in found["stages"]:
        if stage["name"] in STAGES and stage["seconds"] is not None:
            harness.record(a.out, "time", who=label, what=prefix + STAGES[stage["name"]].format(size), seconds=stage["seconds"],
                           tflops=stage["tflops"], percent_of_peak=stage["percent_of_peak"])  # fmt: skip
            times = {"transformer_step": 4 if prefix else 8, "vae_encode": 0}.get(stage["name"], 1)  # of one image
            total += stage["seconds"] * times
    harness.record(a.out, "time", who=label, what=f"{prefix}stages {size}", seconds=total)
    harness.record(a.out, "memory", who=label, what=f"{prefix}{size}", bytes=found.get("peak_device_bytes", 0),
                   host_bytes=found["peak_rss_bytes"], tiers=found["tiers"])  # fmt: skip


def bench(a):
    for form, compute in KINDS:
        if (compute == "fp8" and a.device == "cpu") or (a.names and who(form, compute).removeprefix("zimage ") not in a.names):
            continue
        for size in a.sizes:
            harness.attempt(a.out, f"bench {form} {compute} {size}", bench_once, a, form, compute, size)


def vram(a):
    if "--vram" not in run(a, "bench", "--help"):
        harness.record(a.out, "failure", what="--vram", why="this build has no such option")
        return
    for form, compute in (("bf16", "bf16"), ("q4", "bf16")):
        harness.attempt(a.out, f"--vram {form}", bench_once, a, form, compute, a.sizes[0], ("--vram", a.limit))


def options(a, compute):
    return ["-m", a.model, "--device", a.device, "--compute", compute]


def cold(a, compute, size):
    path = f"{a.work}/cold.png"
    begin = time.perf_counter()
    text = run(a, "generate", PROMPT.format("a red fox"), *options(a, compute), "-W", size, "-H", size, "--seed", 1,
               "-o", path, "--json", "-q")  # fmt: skip
    taken = time.perf_counter() - begin
    harness.record(a.out, "time", who=who(a.name, compute), what=f"cold {size}", seconds=taken,
                   stages=json.loads(text)["seconds"])  # fmt: skip


def warm(a, compute, size):
    batch = f"{a.work}/batch.jsonl"
    with open(batch, "w", encoding="utf-8") as f:
        for i, subject in enumerate(SUBJECTS):
            line = {"prompt": PROMPT.format(subject), "seed": i, "width": size, "height": size, "output": f"{size}-{i}.png"}
            f.write(json.dumps(line) + "\n")
    text = run(a, "generate", "--batch", batch, "--out-dir", a.work, *options(a, compute), "--json", "-q")
    each = [image["seconds"] for image in json.loads(text)["images"]][1:]
    harness.record(a.out, "time", who=who(a.name, compute), what=f"pixels {size}", seconds=statistics.median(each), each=each)


def images(a):
    os.makedirs(a.work, exist_ok=True)
    for compute in ("bf16", "fp8") if a.device != "cpu" else ("bf16",):
        for size in a.sizes:
            harness.attempt(a.out, f"warm {compute} {size}", warm, a, compute, size)
        if compute == "bf16":
            harness.attempt(a.out, "cold", cold, a, compute, a.sizes[0])


def main():
    p = harness.parser(__doc__)
    p.add_argument("--zimage", required=True)
    p.add_argument("--synthetic", default="z-image-turbo")
    p.add_argument("--work", default="/tmp/zimage-images", help="folder for images")
    commands = p.add_subparsers(dest="command", required=True)
    commands.add_parser("bench").add_argument("names", nargs="*", metavar="NAME", help="as the table calls them: bf16 fp8 q4 ...")
    commands.add_parser("vram").add_argument("limit")
    command = commands.add_parser("images")
    command.add_argument("model")
    command.add_argument("name")
    a = p.parse_args()
    {"bench": bench, "vram": vram, "images": images}[a.command](a)


if __name__ == "__main__":
    main()
