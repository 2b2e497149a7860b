"""Compares images made by `zimage` with images by diffusers' own ZImagePipeline (float32, CPU), value by value.

    python tools/golden/crosscheck.py models/emoji --zimage build/release/zimage --prompts 20

PASS: at least 99.9 % of all 8-bit values are within 1/255, and none is more than 3/255 off.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time

from common import load_pipeline, np, torch

from PIL import Image

PROMPTS = [
    "a red apple", "a cat", "一只猫", "りんご", "ein Hund", "un chat noir", "una manzana roja", "red apple on a blue background",
    "a cat and a red apple", "rocket in the style of noto", "笑脸", "青い背景の犬", "ein lachendes Gesicht, twemoji style",
    "fleur rouge sur fond jaune", "corazón", "a yellow star on a green background", "🐱", "pizza, fluent style",
    "two  spaces, a house", "tree, plant, forest, evergreen",
]  # fmt: skip


def model_key(folder):
    """A hash of the sizes and of the first and last 64 KiB of every weight file and setting."""
    h = hashlib.sha256()
    for base, dirs, names in sorted(os.walk(folder)):
        dirs.sort()
        for name in sorted(names):
            if name.endswith((".safetensors", ".json", ".jinja")):
                path = os.path.join(base, name)
                size = os.path.getsize(path)
                h.update(f"{os.path.relpath(path, folder)}:{size}".encode())
                with open(path, "rb") as f:
                    h.update(f.read(65536))
                    f.seek(max(0, size - 65536))
                    h.update(f.read())
    return h.hexdigest()[:16]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--zimage", required=True, help="the program")
    p.add_argument("--prompts", type=int, default=20, help="how many (more than 20: the list again with other seeds)")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--width", type=int, default=256)
    p.add_argument("--height", type=int, default=256)
    p.add_argument("--reference", help="folder that keeps the reference images between runs")
    p.add_argument("--keep", help="folder for the program's images")
    p.add_argument("--threads", type=int, default=1, help="torch threads")
    a = p.parse_args()
    torch.set_num_threads(a.threads)

    key = model_key(a.model)
    pipe = None
    total = near = worst = failed = 0
    print(f"{'':4} {'within 1':>9} {'equal':>9} {'max':>4}  prompt")
    with tempfile.TemporaryDirectory() as tmp:
        reference, keep = a.reference or tmp, a.keep or tmp
        os.makedirs(reference, exist_ok=True)
        os.makedirs(keep, exist_ok=True)
        for i in range(a.prompts):
            prompt, seed = PROMPTS[i % len(PROMPTS)], a.seed + i // len(PROMPTS)
            name = hashlib.sha256(f"{key}|{prompt}|{seed}|{a.steps}|{a.width}x{a.height}".encode()).hexdigest()[:20]
            path = os.path.join(reference, f"{name}.png")
            if not os.path.exists(path):
                pipe = pipe or load_pipeline(a.model)
                start = time.time()
                image = pipe(
                    prompt, width=a.width, height=a.height, num_inference_steps=a.steps, guidance_scale=0.0,
                    generator=torch.Generator("cpu").manual_seed(seed),
                ).images[0]  # fmt: skip
                image.save(path + ".tmp", format="PNG")
                os.replace(path + ".tmp", path)
                print(f"     reference made in {time.time() - start:.1f} s", file=sys.stderr)
            ours = os.path.join(keep, f"{i:03}.png")
            command = [a.zimage, "generate", prompt, "-m", a.model, "-o", ours, "--seed", str(seed), "--steps", str(a.steps),
                       "-W", str(a.width), "-H", str(a.height), "--quiet"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0 or not os.path.exists(ours):
                failed += 1
                print(f"FAIL exit status {done.returncode}: {done.stderr.strip()[:300]}  {prompt!r}")
                continue
            want = np.asarray(Image.open(path).convert("RGB")).astype(int)
            got = np.asarray(Image.open(ours).convert("RGB")).astype(int)
            if want.shape != got.shape:
                failed += 1
                print(f"FAIL shape {got.shape}, want {want.shape}  {prompt!r}")
                continue
            d = np.abs(want - got)
            ok = (d <= 1).mean() >= 0.999 and d.max() <= 3
            total, near, worst = total + d.size, near + int((d <= 1).sum()), max(worst, int(d.max()))
            print(f"{'ok' if ok else 'FAIL':4} {(d <= 1).mean():9.4%} {(d == 0).mean():9.4%} {d.max():4}  {prompt!r} seed {seed}", flush=True)
    fraction = near / total if total else 0.0
    passed = not failed and fraction >= 0.999 and worst <= 3
    print(f"{'PASS' if passed else 'FAIL'}: {a.prompts} prompts, {fraction:.4%} of {total:,} values within 1/255, "
          f"largest difference {worst}/255, {failed} without a comparable image")  # fmt: skip
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
