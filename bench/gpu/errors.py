"""Errors of one forward pass of the whole transformer against diffusers in float32: diffusers in bf16 and fp8, zimage.

    errors.py --model FOLDER --packed FOLDER4 --velocity PROGRAM --out DIR --sizes 512

All use the same weights (of FOLDER; FOLDER4 holds them in groups of 4 bits), latents, prompt features and sigmas. An error is
the relative L2 norm |a - b| / |b|, and the root mean square over the sigmas. Required: the error of zimage in bf16 is at most
1.2 times that of diffusers in bf16, and in fp8 at most 1.2 times that of the fp8 peer; both multiply every product of the
blocks in fp8. PROGRAM is tools/golden/velocity.c.
"""

import gc
import os
import subprocess

import harness
import torch
from safetensors.torch import load_file, save_file

SIGMAS = (0.9, 0.4)
ALLOWED = 1.2


def inputs(model, size, path):
    """The inputs of the forward passes, also written as the file that PROGRAM reads."""
    made = [harness.random_inputs(model.config, size, "cpu", seed) for seed in range(len(SIGMAS))]
    tensors = {"latents": torch.stack([latents for latents, _ in made]), "sigma": torch.tensor(SIGMAS)}
    tensors |= {f"embeds.{i}": caption for i, (_, caption) in enumerate(made)}
    save_file(tensors, path)
    return [(latents, sigma, caption) for (latents, caption), sigma in zip(made, SIGMAS)]


def time_of(sigma):
    """What ZImagePipeline gives its transformer at a sigma: (1000 - timestep) / 1000, rounded to float32."""
    return (1000 - torch.tensor([sigma]) * 1000) / 1000


def forward_passes(model, given, device):
    return torch.stack([
        harness.evaluate(model, latents.to(device), time_of(sigma).to(device), caption.to(device)).cpu()
        for latents, sigma, caption in given
    ])  # fmt: skip


def error(got, expected):
    each = [((x.double() - y.double()).norm() / y.double().norm()).item() ** 2 for x, y in zip(got, expected)]
    return (sum(each) / len(each)) ** 0.5


def reference(a, size, path, report):
    """Returns the float32 results; reports the errors of diffusers in bf16 and fp8."""
    model = harness.load_transformer(f"{a.model}", torch.float32, a.device)
    given = inputs(model, size, path)
    expected = forward_passes(model, given, a.device)
    report("torch eager", size, error(forward_passes(model.bfloat16(), given, a.device), expected))
    report("torch fp8", size, error(forward_passes(harness.use_fp8(model), given, a.device), expected))
    return expected


def zimage(a, folder, compute, path, sign=-1):
    """What the network itself computes; the velocity, noise - clean, is sign times that."""
    result = f"{a.work}/velocity.safetensors"
    command = [a.velocity, f"{folder}/transformer", path, result, compute, str(os.cpu_count()), a.device]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return sign * load_file(result)["velocity"]


def verdict(a, errors, size):
    for ours, peer in (("zimage bf16", "torch eager"), ("zimage fp8", "torch fp8")):
        if (ours, size) in errors and (peer, size) in errors:
            ratio = errors[ours, size] / errors[peer, size]
            harness.record(a.out, "check", what=f"error of {ours} at {size} at most {ALLOWED} x {peer}",
                           passed=ratio <= ALLOWED, note=f"{ratio:.3f} x")  # fmt: skip


def measure(a, size):
    errors, path = {}, f"{a.work}/inputs.safetensors"

    def report(who, size, value):
        errors[who, size] = value
        harness.record(a.out, "error", who=who, what=f"step {size}", error=value)

    expected = reference(a, size, path, report)
    gc.collect()
    if torch.device(a.device).type == "cuda":
        torch.cuda.empty_cache()
    runs = [("f32", a.model, "f32"), ("bf16", a.model, "bf16"), ("fp8", a.model, "fp8"), ("q4", a.packed, "bf16"),
            ("q4 fp8", a.packed, "fp8"), ("q4 f32", a.packed, "f32")]  # fmt: skip
    for name, folder, compute in runs:
        if folder and not (compute == "fp8" and a.device == "cpu"):
            got = harness.attempt(a.out, f"zimage {name}", zimage, a, folder, compute, path)
            if got is not None:
                report(f"zimage {name}", size, error(got, expected))
    verdict(a, errors, size)


def main():
    p = harness.parser(__doc__)
    p.add_argument("--model", required=True)
    p.add_argument("--packed")
    p.add_argument("--velocity", required=True)
    p.add_argument("--work", required=True, help="folder for files that the programs exchange")
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    with torch.inference_mode():
        for size in a.sizes:
            measure(a, size)


if __name__ == "__main__":
    main()
