"""Quantises the transformer and text encoder of a model folder into MLX's groups, on a GPU: seconds for 10 billion weights.

    pack.py FOLDER TARGET --bits 4 --group 32 --device cuda

tools/golden/pack_mlx.py does the same by MLX's own quantiser, which takes a day for such a folder on a CPU. The results equal
those of MLX's affine quantiser up to rounding: the end of a group's range that is farther from zero is exact.
"""

import argparse
import glob
import json
import os
import shutil

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def quantise(w, bits, group):
    """(words [rows, columns * bits / 32], scales, biases [rows, columns / group]) of a matrix."""
    levels = 2**bits - 1
    x = w.float().view(w.shape[0], -1, group)
    low, high = x.amin(-1), x.amax(-1)
    from_low = low.abs() > high.abs()
    scale = ((high - low) / levels).clamp(min=1e-7)
    scale = torch.where(from_low, scale, -scale)
    edge = torch.where(from_low, low, high)
    steps = torch.round(edge / scale)
    scale = torch.where(steps != 0, edge / steps, scale)
    bias = torch.where(steps != 0, edge, torch.zeros_like(edge))
    scale, bias = scale.bfloat16(), bias.bfloat16()
    q = ((x - bias.float()[..., None]) / scale.float()[..., None]).round_().clamp_(0, levels).to(torch.uint8)
    q = q.view(w.shape[0], -1)
    if bits == 4:
        q = q[:, 0::2] | q[:, 1::2] << 4
    return q.contiguous().view(torch.int32).cpu().view(torch.uint32), scale.cpu(), bias.cpu()


def packed(name, w, a):
    if w.ndim != 2 or not name.endswith(".weight") or w.shape[1] % a.group or "pad_token" in name:
        return {name: w}
    stem = name.removesuffix("weight")
    return dict(zip((name, f"{stem}scales", f"{stem}biases"), quantise(w.to(a.device), a.bits, a.group)))


def pack_folder(source, target, a):
    files, places = sorted(glob.glob(f"{source}/*.safetensors")), {}
    os.makedirs(target, exist_ok=True)
    for i, file in enumerate(files):
        name = "model.safetensors" if len(files) == 1 else f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        stored = {}
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():
                stored |= packed(key, tensors.get_tensor(key).bfloat16(), a)
        save_file(stored, f"{target}/{name}")
        places |= {key: name for key in stored}
    if len(files) > 1:
        with open(f"{target}/model.safetensors.index.json", "w", encoding="utf-8") as f:
            json.dump({"metadata": {}, "weight_map": places}, f, indent=2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("target")
    p.add_argument("--bits", type=int, choices=(4, 8), default=4)
    p.add_argument("--group", type=int, choices=(32, 64, 128), default=32)
    p.add_argument("--device", default="cuda")
    a = p.parse_args()
    left_out = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(a.model, a.target, ignore=left_out, dirs_exist_ok=True)
    with torch.inference_mode():
        for network in ("transformer", "text_encoder"):
            pack_folder(f"{a.model}/{network}", f"{a.target}/{network}", a)
    for file in glob.glob(f"{a.model}/vae/*.safetensors*"):
        shutil.copy(file, f"{a.target}/vae/")


if __name__ == "__main__":
    main()
