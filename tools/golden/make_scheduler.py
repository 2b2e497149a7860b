"""scheduler.safetensors: sigmas and times, and loops of the tiny pipeline with and without guidance."""

import argparse

from common import load_pipeline, np, save, text_tensor, torch, trace

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.z_image.pipeline_z_image import (
    calculate_shift,
    get_default_z_image_sigmas,
    retrieve_timesteps,
)

STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 25, 28, 30, 40, 50)
TOKENS = (1, 16, 256, 1024, 2304, 4096, 16384)

PROMPT, NEGATIVE = "a red apple on a wooden table", "blue, a dog 蓝色"
LOOPS = {  # name: keyword arguments of the pipeline
    "plain": {},
    "cfg": dict(guidance_scale=4.0, negative_prompt=NEGATIVE),
    "cfg_default_negative": dict(guidance_scale=1.5),
    "cfg_truncation_0.6": dict(guidance_scale=4.0, negative_prompt=NEGATIVE, cfg_truncation=0.6),
    "cfg_truncation_0.3": dict(guidance_scale=4.0, negative_prompt=NEGATIVE, cfg_truncation=0.3),
    "cfg_normalization": dict(guidance_scale=4.0, negative_prompt=NEGATIVE, cfg_normalization=True),
    "cfg_normalization_0.8": dict(guidance_scale=4.0, negative_prompt=NEGATIVE, cfg_normalization=0.8),
    "cfg_both": dict(guidance_scale=4.0, negative_prompt=NEGATIVE, cfg_normalization=1.2, cfg_truncation=0.6),
}


def schedule(scheduler, steps, tokens):
    """As ZImagePipeline.__call__ does it."""
    config = scheduler.config
    mu = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    timesteps, _ = retrieve_timesteps(scheduler, steps, None, sigmas=get_default_z_image_sigmas(steps), mu=mu)
    return mu, {"sigmas": scheduler.sigmas, "timesteps": timesteps, "t": (1000 - timesteps) / 1000}


def make(out):
    tensors = {}
    for shift in (1, 3, 6):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=float(shift))
        for steps in STEPS:
            for key, value in schedule(scheduler, steps, 4096)[1].items():
                tensors[f"static.shift{shift}.steps{steps}.{key}"] = value
    for kind in ("exponential", "linear"):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, time_shift_type=kind)
        for tokens in TOKENS if kind == "exponential" else (1024,):
            for steps in (1, 4, 8, 28, 50) if kind == "exponential" else (8,):
                prefix = "dynamic" if kind == "exponential" else "dynamic_linear"
                mu, values = schedule(scheduler, steps, tokens)
                for key, value in values.items():
                    tensors[f"{prefix}.tokens{tokens}.steps{steps}.{key}"] = value
                tensors[f"{prefix}.tokens{tokens}.mu"] = np.array([mu], np.float64)

    pipe = load_pipeline(f"{out}/tiny")
    tensors |= {"loop.prompt": text_tensor(PROMPT), "loop.negative": text_tensor(NEGATIVE)}
    for key, text in (("prompt_embeds", PROMPT), ("negative_embeds", NEGATIVE), ("empty_embeds", "")):
        tensors[f"loop.{key}"] = pipe.encode_prompt(text, do_classifier_free_guidance=False)[0][0]
    for name, kwargs in LOOPS.items():
        noise, after, _ = trace(pipe, PROMPT, 64, 48, 8, 42, **kwargs)
        tensors["loop.noise"] = noise
        tensors[f"loop.{name}.after"] = after
        print(f"{name}: std {after[-1].std():.3f}, from plain {(after - tensors['loop.plain.after']).abs().max():.3f}")
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(f"{out}/tiny-base/scheduler")
    tensors["loop.dynamic.after"] = trace(pipe, PROMPT, 64, 48, 8, 42)[1]
    save(f"{out}/scheduler.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
