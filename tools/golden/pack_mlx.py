"""A diffusers folder of a small Z-Image packed by MLX's own quantiser, in the layout of uqer1244/MLX-z-image.

    python tools/golden/pack_mlx.py models/emoji OUT --bits 4 --group 32

Used to compare a model's pictures by format (docs/errors.md). Transformer and text encoder are packed with bfloat16 scales; the
autoencoder, tokenizer and schedule are copied.
"""

import argparse
import json
import os
import shutil

import mlx.core as mx
from safetensors.torch import load_file

from make_mlx import to_mlx, uqer1244_name

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"


def pack(tensors, bits, group, rename):
    stored = {}
    for name, value in tensors.items():
        w = to_mlx(value, mx.bfloat16)
        if value.ndim == 2 and name.endswith(".weight") and value.shape[1] % group == 0:
            packed, scales, biases = mx.quantize(w, group_size=group, bits=bits)
            stem = rename(name).removesuffix("weight")
            stored |= {f"{stem}weight": packed, f"{stem}scales": scales, f"{stem}biases": biases}
        else:
            stored[rename(name)] = w
    return stored


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=32)
    args = parser.parse_args()
    shutil.copytree(args.model, args.out, ignore=shutil.ignore_patterns("*.safetensors"))
    for name, rename in ((TRANSFORMER, uqer1244_name), (TEXT_ENCODER, str)):
        stored = pack(load_file(f"{args.model}/{name}"), args.bits, args.group, rename)
        mx.save_safetensors(f"{args.out}/{os.path.dirname(name)}/model.safetensors", stored)
    shutil.copy(f"{args.model}/vae/diffusion_pytorch_model.safetensors", f"{args.out}/vae/")
    path = f"{args.out}/transformer/config.json"
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config | {"nheads": config["n_heads"]}, f, indent=2)


if __name__ == "__main__":
    main()
