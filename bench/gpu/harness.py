"""Shared by the parts: the file of results, timing, and loading the reference's networks from a model folder."""

import argparse
import glob
import json
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch

CAPTION_TOKENS = 64


def parser(doc):
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True, help="folder of results.jsonl")
    p.add_argument("--device", default="cuda")
    p.add_argument("--sizes", type=int, nargs="+", default=[1024, 512], help="pixels a side")
    p.add_argument("--repeats", type=int, default=5)
    return p


def record(out, kind, **fields):
    """Appends one result to the file at once, as later steps may fail."""
    line = {"kind": kind, **fields}
    with open(f"{out}/results.jsonl", "a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    print(", ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), flush=True)


def attempt(out, what, function, *args):
    """Returns the function's result; if it fails, records that and returns None."""
    try:
        return function(*args)
    except Exception as error:
        record(out, "failure", what=what, why=f"{type(error).__name__}: {error}"[:600])
        return None


def wait(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(run, device, repeats=5, inner=1, warm=2):
    """The median of `repeats` runs of `inner` calls each, divided by inner; on a GPU measured by events."""
    for _ in range(warm):
        run()
    taken = []
    for _ in range(repeats):
        wait(device)
        if torch.device(device).type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(inner):
                run()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end) * 1e-3 / inner)
        else:
            begin = time.perf_counter()
            for _ in range(inner):
                run()
            taken.append((time.perf_counter() - begin) / inner)
    return statistics.median(taken)


def wall_seconds(run, repeats=5, warm=2):
    """The same in wall-clock time, for runs that end with a result in host memory."""
    taken = []
    for i in range(warm + repeats):
        begin = time.perf_counter()
        run()
        if i >= warm:
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def tokens_of(size):
    """Length of the joint sequence: image and prompt tokens."""
    return (size // 16) ** 2 + CAPTION_TOKENS


# ---- networks, with the weights of a model folder


def weights(folder, dtype, device):
    from safetensors.torch import load_file

    found = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        found |= {name: value.to(dtype) for name, value in load_file(path, device=str(device)).items()}
    return found


def frozen(model):
    return model.eval().requires_grad_(False)


def load_transformer(folder, dtype, device):
    from diffusers import ZImageTransformer2DModel

    config = ZImageTransformer2DModel.load_config(f"{folder}/transformer")
    with torch.device("meta"):
        model = ZImageTransformer2DModel.from_config(config)
    model.load_state_dict(weights(f"{folder}/transformer", dtype, device), assign=True)
    return frozen(model)


def load_vae(folder, dtype, device):
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        model = AutoencoderKL.from_config(AutoencoderKL.load_config(f"{folder}/vae"))
    model.load_state_dict(weights(f"{folder}/vae", dtype, device), assign=True)
    return frozen(model)


def load_text_encoder(folder, dtype, device):
    from transformers import Qwen3Config, Qwen3Model
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    config = Qwen3Config.from_pretrained(f"{folder}/text_encoder")
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = Qwen3Model(config)
    stored = weights(f"{folder}/text_encoder", dtype, device)
    stored = {name.removeprefix("model."): value for name, value in stored.items() if not name.startswith("lm_head.")}
    model.load_state_dict(stored, assign=True)
    model.rotary_emb = Qwen3RotaryEmbedding(config).to(device)  # not in the file
    return frozen(model)


def random_inputs(config, size, device, seed=1):
    """Latents [C, H, W] and caption features [tokens, dim], representable in bf16, made on the host: the same for every peer."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(config.in_channels, size // 8, size // 8, generator=generator)
    caption = torch.randn(CAPTION_TOKENS, config.cap_feat_dim, generator=generator)
    return latents.bfloat16().float().to(device), caption.bfloat16().float().to(device)


def evaluate(model, latents, t, caption):
    """One forward pass as in the pipeline, with the network's own sign. t: a tensor [1] on the device."""
    dtype = model.x_pad_token.dtype
    return model([latents[:, None].to(dtype)], t, [caption.to(dtype)], return_dict=False)[0][0][:, 0].float()


# ---- fp8: a scale for each token and each row of weights


LARGEST = torch.finfo(torch.float8_e4m3fn).max


def to_fp8(rows):
    scale = rows.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (rows.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


def multiply_fp8(x, x_scale, w, w_scale):
    """x w^T of [rows, in] and [out, in] with scales [rows, 1] and [1, out]; PyTorch has no such product on the host."""
    if x.is_cuda:
        return torch._scaled_mm(x, w.t(), scale_a=x_scale, scale_b=w_scale, out_dtype=torch.bfloat16, use_fast_accum=True)
    return (x.float() @ w.float().t() * x_scale * w_scale).bfloat16()


class RowwiseLinear(torch.nn.Module):
    def __init__(self, linear):
        super().__init__()
        w, scale = to_fp8(linear.weight)
        self.register_buffer("w", w)
        self.register_buffer("scale", scale.t().contiguous())

    def forward(self, x):
        rows, scale = to_fp8(x.reshape(-1, x.shape[-1]))
        return multiply_fp8(rows, scale, self.w, self.scale).view(*x.shape[:-1], -1)


def is_of_block(name):
    return ".attention." in name or ".feed_forward." in name


def use_fp8(model, chosen=is_of_block):
    """The products whose names are chosen in fp8: the blocks' attention and feed-forward."""
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and chosen(name):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, RowwiseLinear(module))
    return model
