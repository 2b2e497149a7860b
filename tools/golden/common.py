"""Shared helpers of the golden makers: fixed seeds, quiet libraries, one writer."""

import os
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
os.umask(0o022)
torch.set_grad_enabled(False)


def randn(name, *shape):
    """Normal float32 values that depend on the name alone (numpy's Philox: stable across versions and machines)."""
    generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def randint(name, low, high, *shape):
    generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.integers(low, high, shape))


def fill(module, gain=1.0, overrides=None):
    """Random weights in which nothing is zero, one, or small enough to hide a mistake."""
    for name, p in module.named_parameters():
        r = randn(name, *p.shape)
        if p.ndim >= 2 and "pad_token" not in name and "embed_tokens" not in name:
            fan_in = p[0].numel()
            r = r * (gain / fan_in**0.5)
        elif p.ndim == 1 and name.endswith("weight"):
            r = 1.0 + 0.25 * r
        elif p.ndim == 1:
            r = 0.2 * r
        for key, scale in (overrides or {}).items():
            if key in name:
                r = r * scale
        p.copy_(r)
    return module.eval()


def save(path, tensors):
    """Writes numpy arrays and torch tensors in name order, without metadata."""
    out = {}
    for name, value in sorted(tensors.items()):
        value = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(value))
        assert not value.is_floating_point() or bool(torch.isfinite(value).all()), name
        out[name] = value.detach().contiguous().clone()
    save_file(out, path)
    os.chmod(path, 0o644)
    print(f"{path}: {len(out)} tensors, {os.path.getsize(path):,} bytes")


def text_tensor(text):
    """UTF-8 bytes as a U8 tensor (an empty text gives shape [0])."""
    return torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8)


def load_pipeline(folder):
    from diffusers import ZImagePipeline

    pipe = ZImagePipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def trace(pipe, prompt, width, height, steps, seed, **kwargs):
    """One run of ZImagePipeline itself: the initial latents, the latents after each step, and the image."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, pipe.transformer.config.in_channels, 2 * (height // 16), 2 * (width // 16))
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
    after = []

    def on_step(pipe, i, t, tensors):
        after.append(tensors["latents"][0].clone())
        return tensors

    image = pipe(
        prompt, width=width, height=height, num_inference_steps=steps, generator=generator,
        callback_on_step_end=on_step, output_type="pil", **{"guidance_scale": 0.0, **kwargs},
    ).images[0]  # fmt: skip
    return noise, torch.stack(after), np.array(image)
