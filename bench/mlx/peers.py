#!/usr/bin/env python3
"""Times a step of mflux's Z-Image transformer on MLX: one forward pass, as mflux's own loop runs it, on random weights.

    peers.py --sizes 512 1024 --modes bf16 q4        # needs: pip install mlx mflux
    peers.py --tiny                                  # tries this script in seconds, also on MLX's CPU backend

Prints one line of JSON for each size and mode: {who, device, size, mode, seconds, fastest, slowest, peak_bytes,
finite}. `seconds` is the median. Exit code 1: a result has numbers that are not finite.
"""

import argparse
import importlib.metadata
import json
import statistics
import sys
import time

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from mflux.models.common.config import ModelConfig
from mflux.models.z_image import ZImage
from mflux.models.z_image.latent_creator import ZImageLatentCreator
from mflux.models.z_image.model.z_image_transformer import ZImageTransformer
from mflux.models.z_image.weights.z_image_weight_definition import ZImageWeightDefinition

PUBLISHED_PARAMETERS = 6_154_908_736  # docs/spec/zimage.md 1
TINY = {"dim": 384, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 3, "cap_feat_dim": 64}  # heads of 128
BITS = {"bf16": None, "q4": 4, "q8": 8}
GROUP = 64  # mflux's own: WeightApplier's default
WARM_UPS = 2  # the first compiles


def random_values(value):
    """Random bf16 in the shape of a parameter that has its initial float32 values; other parameters stay."""
    if value.dtype != mx.float32:
        return value
    if value.ndim == 1:
        return (1 + 0.1 * mx.random.normal(value.shape)).astype(ModelConfig.precision)
    return mx.random.normal(value.shape, dtype=ModelConfig.precision, scale=value.shape[-1] ** -0.5)


def fill(module, bits):
    """Gives a module random weights, and quantises them as mflux does when it loads bf16 weights."""
    module.update(tree_map(random_values, module.parameters()))
    if bits:
        nn.quantize(
            module, group_size=GROUP, bits=bits, class_predicate=ZImageWeightDefinition.quantization_predicate
        )
    mx.eval(module.parameters())


def make_transformer(mode, tiny):
    """The transformer in the published sizes, which are mflux's defaults. Block by block, to need little memory."""
    transformer = ZImageTransformer(**(TINY if tiny else {}))
    count = sum(value.size for _, value in tree_flatten(transformer.parameters()))
    if not tiny and count != PUBLISHED_PARAMETERS:
        sys.exit(f"mflux's transformer has {count} parameters, expected {PUBLISHED_PARAMETERS}")
    for module in (*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers, transformer):
        fill(module, BITS[mode])
    mx.clear_cache()
    return transformer


def time_step(predict, size, tokens, features, repeats):
    """Seconds of each pass at SIZE x SIZE pixels."""
    latents = ZImageLatentCreator.create_noise(seed=1, height=size, width=size)
    caption = mx.random.normal((tokens, features)).astype(ModelConfig.precision)
    sigmas = mx.linspace(1, 0, 9)
    timestep = 1 - sigmas[1:2]
    mx.eval(latents, caption, sigmas, timestep)
    taken = []
    for i in range(WARM_UPS + repeats):
        if i == WARM_UPS:
            mx.reset_peak_memory()
        start = time.perf_counter()
        noise = predict(
            latents=latents,
            timestep=timestep,
            sigmas=sigmas,
            text_encodings=caption,
            negative_encodings=None,
            guidance=0.0,
        )
        mx.eval(noise)
        taken.append(time.perf_counter() - start)
    return taken[WARM_UPS:], mx.all(mx.isfinite(noise)).item()


def measure(mode, a):
    transformer = make_transformer(mode, a.tiny)
    predict = ZImage._predict(transformer)  # mflux's own: compiled, except on the plain M1 and M2
    for size in a.sizes:
        taken, finite = time_step(predict, size, a.tokens, TINY["cap_feat_dim"] if a.tiny else 2560, a.repeats)
        result = {
            "who": f"mflux {importlib.metadata.version('mflux')}, mlx {mx.__version__}",
            "device": str(mx.default_device()),
            "size": size,
            "mode": mode,
            "seconds": statistics.median(taken),
            "fastest": min(taken),
            "slowest": max(taken),
            "peak_bytes": mx.get_peak_memory(),
            "finite": finite,
        }
        print(json.dumps(result), flush=True)
        yield finite


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="pixels a side, multiples of 16")
    p.add_argument("--modes", nargs="+", default=["bf16", "q4"], choices=BITS)
    p.add_argument("--tokens", type=int, default=64, help="tokens of the caption")
    p.add_argument("--repeats", type=int, default=5, help="passes that are timed")
    p.add_argument("--tiny", action="store_true", help="a toy model at 64x64 pixels")
    a = p.parse_args()
    if a.tiny:
        a.sizes = [64]
    if a.repeats < 1 or a.tokens < 1 or any(s < 16 or s % 16 for s in a.sizes):
        p.error("expected at least one repeat and one token, and sizes that are multiples of 16")
    mx.random.seed(0)
    if not all([finite for mode in a.modes for finite in measure(mode, a)]):
        sys.exit("the result has numbers that are not finite")


if __name__ == "__main__":
    main()
