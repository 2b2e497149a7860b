"""img2img.safetensors: whole runs of the tiny model that start from an image, with and without a mask."""

import argparse

import numpy as np
from common import load_pipeline, randn, save, text_tensor, torch

from diffusers import FlowMatchEulerDiscreteScheduler, ZImageImg2ImgPipeline, ZImageInpaintPipeline
from PIL import Image

PROMPT, NEGATIVE, SEED = "a red apple on a wooden table", "a blue cat, 蓝色背景", 42
SIZES = {"wide": (70, 51), "tall": (37, 53), "low": (61, 17)}  # of the input images; the results' are multiples of 16
STRENGTHS, MASK_STRENGTHS = (0.3, 0.6, 1.0), (0.6, 1.0)
GUIDED = dict(guidance_scale=5.0, negative_prompt=NEGATIVE, cfg_truncation=0.7, cfg_normalization=1.0)


def photo(name, width, height):
    """Smooth shapes and some noise: every colour and level occurs."""
    y, x = np.mgrid[0:height, 0:width] / 16.0
    waves = np.stack([np.sin(x + y), np.cos(x - 2 * y), np.sin(3 * x) * np.cos(y)], axis=-1)
    noise = randn(f"img2img.{name}", height, width, 3).numpy()
    return Image.fromarray(np.clip(127.5 + 100 * waves + 25 * noise, 0, 255).astype(np.uint8))


def mask_of(width, height):
    """A soft-edged disk in colour, so that resizing, luminance and the threshold count."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((x - 0.6 * width) / width, (y - 0.4 * height) / height)
    level = np.clip(3 - 8 * distance, 0, 1)[..., None] * np.array([255, 235, 180])
    return Image.fromarray(level.astype(np.uint8))


def run(pipe, **kwargs):
    latents = []

    def on_step(pipe, i, t, tensors):
        latents.append(tensors["latents"][0].float().clone())
        return tensors

    generator = torch.Generator("cpu").manual_seed(SEED)
    settings = {"guidance_scale": 0.0, "num_inference_steps": 8, "prompt": PROMPT, **kwargs}
    image = pipe(generator=generator, callback_on_step_end=on_step, **settings).images[0]
    print(f"{len(latents)} steps, latents std {latents[-1].std():.3f}, image {image.size}")
    return torch.tensor([len(latents)], dtype=torch.int32), latents[-1], np.array(image)


def whole_runs(pipe):
    change, repaint = ZImageImg2ImgPipeline(**pipe.components), ZImageInpaintPipeline(**pipe.components)
    for p in (change, repaint):
        p.set_progress_bar_config(disable=True)
    tensors = {"prompt": text_tensor(PROMPT), "negative": text_tensor(NEGATIVE)}

    def add(name, result):
        tensors.update(zip((f"{name}.steps", f"{name}.latents", f"{name}.rgb"), result))

    for name, (width, height) in SIZES.items():
        image, mask = photo(name, width, height), mask_of(width, height)
        tensors |= {f"{name}.image": np.array(image), f"{name}.mask": np.array(mask)}
        for strength in STRENGTHS:
            add(f"{name}.change{strength}", run(change, image=image, strength=strength))
        for strength in MASK_STRENGTHS:
            add(f"{name}.repaint{strength}", run(repaint, image=image, mask_image=mask, strength=strength))
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        base = ZImageImg2ImgPipeline(**{**pipe.components, "scheduler": scheduler})
        base.set_progress_bar_config(disable=True)
        add(f"{name}.base", run(base, image=image, num_inference_steps=10, strength=0.6, **GUIDED))
    # A size other than the image's: the caller of the reference resizes first.
    image = photo("wide", *SIZES["wide"]).resize((48, 32), Image.Resampling.LANCZOS)
    add("sized", run(change, image=image, strength=0.6))
    return tensors


def in_bf16(pipe):
    """A run in bf16: what it draws, in order, and its latents."""
    import diffusers.utils.torch_utils as utils

    drawn, randn_of_torch = [], torch.randn

    def record(*args, **kwargs):
        drawn.append(randn_of_torch(*args, **kwargs))
        return drawn[-1]

    parts = {k: v.to(torch.bfloat16) if isinstance(v, torch.nn.Module) else v for k, v in pipe.components.items()}
    change = ZImageImg2ImgPipeline(**parts)
    change.set_progress_bar_config(disable=True)
    utils.torch.randn = record
    try:
        latents = run(change, image=photo("wide", *SIZES["wide"]), strength=0.6)[1]
    finally:
        utils.torch.randn = randn_of_torch
    assert [d.dtype for d in drawn] == [torch.bfloat16] * 2
    return {"drawn.posterior": drawn[0], "drawn.noise": drawn[1], "drawn.latents": latents}


def first_steps():
    """The first step that is run, for numbers of steps and strengths."""
    rows = []
    for steps in (1, 2, 3, 4, 5, 7, 8, 9, 10, 20, 28, 50):
        for strength in [i / 20 for i in range(1, 21)] + [0.001, 0.33, 2 / 3, 0.999]:
            scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
            scheduler.set_timesteps(steps)
            holder = type("Pipe", (), {"scheduler": scheduler})
            _, left = ZImageImg2ImgPipeline.get_timesteps(holder, steps, strength, "cpu")
            rows.append((steps, strength, steps - left))
    return {"first_steps": torch.tensor(rows, dtype=torch.float64)}


def arithmetic():
    """Steps, added noise and blends in both types, from the scheduler and by the pipelines' expressions."""
    tensors = {}
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        clean, noise, velocity = (randn(f"img2img.{n}", 1, 2, 4, 6).to(dtype) for n in ("clean", "noise", "velocity"))
        weights = torch.sigmoid(2 * randn("img2img.weights", 1, 1, 4, 6)).to(dtype)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(8)
        scheduler.set_begin_index(3)
        t = scheduler.timesteps[3]
        noisy = scheduler.scale_noise(clean, t[None], noise)
        after = scheduler.step(velocity, t, noisy, return_dict=False)[0]
        blended = (1 - weights) * clean + weights * after
        assert after.dtype == blended.dtype == dtype
        values = dict(clean=clean, noise=noise, velocity=velocity, weights=weights, noisy=noisy, after=after)
        tensors |= {f"{name}.{k}": v[0].float() for k, v in {**values, "blended": blended}.items()}
        tensors[f"{name}.sigmas"] = scheduler.sigmas[3:5].clone()
    return tensors


def make(out):
    pipe = load_pipeline(f"{out}/tiny")
    tensors = whole_runs(pipe) | first_steps() | arithmetic() | in_bf16(pipe)
    save(f"{out}/img2img.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
