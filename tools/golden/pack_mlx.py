"""Packs a diffusers folder of Z-Image by MLX's own quantiser, in the layout of uqer1244/MLX-z-image.

    python tools/golden/pack_mlx.py models/emoji OUT --bits 4 --group 32

It serves to compare a model's images by format (docs/errors.md), and to measure memory on a folder of make_6b.py. It
packs transformer and text encoder with bfloat16 scales, file by file, and copies autoencoder, tokenizer and schedule.
"""

import argparse
import glob
import json
import os
import shutil

import mlx.core as mx
from safetensors.torch import load_file

from make_mlx import pack, to_mlx, uqer1244_name


def pack_folder(source, target, rename, bits, group):
    """Packs every *.safetensors file of a folder. Several files get an index."""
    files, places = sorted(glob.glob(f"{source}/*.safetensors")), {}
    for i, file in enumerate(files):
        name = "model.safetensors" if len(files) == 1 else f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        stored = {}
        for key, value in load_file(file).items():
            stored |= pack(rename(key), to_mlx(value, mx.bfloat16), bits, group)
        mx.save_safetensors(f"{target}/{name}", stored)
        places |= {key: name for key in stored}
    if len(files) > 1:
        with open(f"{target}/model.safetensors.index.json", "w", encoding="utf-8") as f:
            json.dump({"metadata": {}, "weight_map": places}, f, indent=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=32)
    args = parser.parse_args()
    shutil.copytree(args.model, args.out, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    for name, rename in (("transformer", uqer1244_name), ("text_encoder", str)):
        pack_folder(f"{args.model}/{name}", f"{args.out}/{name}", rename, args.bits, args.group)
    shutil.copy(f"{args.model}/vae/diffusion_pytorch_model.safetensors", f"{args.out}/vae/")
    path = f"{args.out}/transformer/config.json"
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config | {"nheads": config.get("n_heads", 30)}, f, indent=2)


if __name__ == "__main__":
    main()
