"""Checks a build on a GPU: its tests, compute-sanitizer's tools on them, images of the bundled model.

    checks.py --build DIR --out DIR tests
    checks.py --build DIR --out DIR sanitizer [--tools memcheck racecheck initcheck] [--limit SECONDS]
    checks.py --build DIR --out DIR images                   float32 on the GPU against the CPU
    checks.py --build DIR --out DIR scores --prompts FILE    makes images in every format; with --drawings DIR also scores them

FILE holds prompts of tools/train/evaluate. Scoring needs the drawings that the model was trained on. Without them the images
are packed into OUT/images-KIND.tar, to be scored elsewhere.
"""

import json
import os
import re
import subprocess
import sys
import tarfile

import harness
import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODEL = f"{ROOT}/models/emoji"
PROMPTS = ["a red apple", "a cat and a red apple", "ロケット、青の背景", "una tortuga sobre fondo amarillo"]
NEAR, LEAST = 2, 0.99  # 99 % of all values within 2 of 255
SANITIZED = ["fp8_cases", "bf16_cases_without_cudnn", "float32_cases", "bf16_cases"]  # not the large products of peak_rates
LIBRARY_KERNELS = ("nvjet_", "cudnn_", "cublas", "cutlass", "sm80_", "sm90_", "void_cublas", "gemmSN", "_ZN7cutlass", "_ZN8cublasLt")
KINDS = {"bf16": (MODEL, "bf16"), "fp8": (MODEL, "fp8"), "q4": (None, "bf16"), "q4-fp8": (None, "fp8")}


def run_logged(a, what, command, limit):
    """Runs a test program with its output in a file. Returns the file, the exit status, and a note with the last lines."""
    path = f"{a.out}/{what.replace(' ', '-')}.log"
    with open(path, "w", encoding="utf-8") as log:
        try:
            status = subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            status = "timeout"
    with open(path, encoding="utf-8", errors="replace") as log:
        lines = [line.strip() for line in log if line.strip()]
    bad = [line for line in lines if "FAILED" in line or "ERROR" in line and "SUMMARY" not in line][:3]
    return path, status, f"exit status {status}; " + " | ".join(bad + lines[-2:])[:300]


def check(a, what, command, limit):
    _, status, note = run_logged(a, what, command, limit)
    harness.record(a.out, "check", what=what, passed=status == 0, note=note)


def tests(a):
    check(a, "test_cuda", [f"{a.build}/tests/test_cuda"], a.limit)


def own_hazards(path):
    """Our kernels in racecheck's findings. It also names kernels of cuBLAS and cuDNN, because it can't follow their waits."""
    with open(path, encoding="utf-8", errors="replace") as log:
        named = set(re.findall(r"access at ([A-Za-z0-9_]+)", log.read(), re.IGNORECASE))
    return sorted(name for name in named if not name.startswith(LIBRARY_KERNELS))


def sanitizer(a):
    for tool in a.tools:
        for test in SANITIZED:
            command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "100000"]
            what = f"sanitizer {tool} {test}"
            log, status, note = run_logged(a, what, [*command, f"{a.build}/tests/test_cuda", test], a.limit)
            passed = status == 0
            if tool == "racecheck" and status == 9 and "PASSED" in note and "FAILED" not in note:
                passed, note = not own_hazards(log), f"of our kernels: {', '.join(own_hazards(log)) or 'none'}; {note}"
            harness.record(a.out, "check", what=what, passed=passed, note=note)


def generate(a, prompt, path, device):
    command = [f"{a.build}/zimage", "generate", prompt, "-m", MODEL, "-o", path, "--seed", "7", "--compute", "f32", "-q"]
    subprocess.run([*command, "--device", device], check=True, capture_output=True, text=True, timeout=120)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def images(a):
    differences = []
    for i, prompt in enumerate(PROMPTS):
        both = [generate(a, prompt, f"{a.out}/image-{i}-{name}.png", name) for name in ("cpu", a.device)]
        differences.append(np.abs(both[0] - both[1]))
    d = np.stack(differences)
    share = float((d <= NEAR).mean())
    harness.record(a.out, "check", what=f"emoji in float32 on {a.device}: {len(PROMPTS)} images within {NEAR}/255 of the CPU's",
                   passed=share >= LEAST, note=f"{share:.4%} of the values, largest difference {d.max()}")  # fmt: skip


def packed_model(a):
    target = f"{a.work}/emoji-q4"
    if not os.path.exists(target):
        subprocess.run([sys.executable, f"{HERE}/pack.py", MODEL, target, "--device", a.device], check=True, timeout=120)
    return target


def render(a, kind, model, compute):
    folder = f"{a.work}/images-{kind}"
    evaluate = [sys.executable, f"{ROOT}/tools/train/evaluate"]
    given = ["--prompts", a.prompts, "--pictures", folder]
    program = ["--zimage", f"{a.build}/zimage", "--model", model or packed_model(a), "--compute", compute, "--device", a.device]
    subprocess.run([*evaluate, "render", *given, *program], check=True, stdout=subprocess.DEVNULL, timeout=a.limit)
    if not a.drawings:
        with tarfile.open(f"{a.out}/images-{kind}.tar", "w") as tar:
            tar.add(folder, arcname=f"images-{kind}")
        harness.record(a.out, "rendered", what=kind, images=sum(name.endswith(".png") for name in os.listdir(folder)))
        return
    table = f"{a.out}/score-{kind}.json"
    command = [*evaluate, "score", "--work", a.drawings, *given, "--json", table]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=a.limit)  # the exit status says whether targets are met
    with open(table, encoding="utf-8") as f:
        rows = json.load(f)
    right = sum(row["right"] * row["prompts"] for row in rows) / sum(row["prompts"] for row in rows)
    harness.record(a.out, "score", what=kind, right=right, prompts=sum(row["prompts"] for row in rows))


def scores(a):
    os.makedirs(a.work, exist_ok=True)
    for kind, (model, compute) in KINDS.items():
        if not (a.device == "cpu" and compute == "fp8"):
            harness.attempt(a.out, f"render {kind}", render, a, kind, model, compute)


def main():
    p = harness.parser(__doc__)
    p.add_argument("--build", required=True)
    p.add_argument("--work", default="/tmp/zimage-images", help="folder for images")
    p.add_argument("--limit", type=float, default=120, help="seconds for each program")
    p.add_argument("--tools", nargs="+", default=["memcheck", "racecheck", "initcheck"])
    p.add_argument("--prompts")
    p.add_argument("--drawings")
    commands = {"tests": tests, "sanitizer": sanitizer, "images": images, "scores": scores}
    p.add_argument("command", choices=commands)
    a = p.parse_args()
    commands[a.command](a)


if __name__ == "__main__":
    main()
