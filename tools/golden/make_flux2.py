"""flux2/config.json and flux2.safetensors: the FLUX.2 transformer of diffusers on made weights and inputs, with references and without, and
as the KV variant. The test makes the same weights and inputs (tests/test_flux2.c), so the file holds outputs only."""

import argparse
import os
import zlib

import numpy as np
from common import save, torch

import diffusers.models.transformers.transformer_flux2 as f

CONFIG = dict(
    in_channels=8, num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=3,
    joint_attention_dim=24, timestep_guidance_channels=32, mlp_ratio=2.5, axes_dims_rope=(4, 12, 10, 6),
    guidance_embeds=False,
)  # fmt: skip
CASES = {  # name: rows, columns, text tokens, sigma, references (rows, columns)
    "none": (3, 5, 7, 0.3, ()),
    "one": (4, 5, 9, 0.9673840403556824, ((3, 2),)),
    "two": (11, 9, 120, 1.0, ((5, 2), (3, 6))),
    "long": (5, 3, 512, 0.7671999335289001, ((2, 2),)),
}
KV_CASES = {"kv_one": (5, 7, 9, (0.95, 0.6), ((4, 3),)), "kv_two": (10, 11, 40, (1.0, 0.75), ((3, 5), (6, 2)))}


def made(name, shape, scale, base=0.0):
    """Uniform numbers base +- scale that depend on the name and the place: splitmix64 of both."""
    old = np.seterr(over="ignore")
    z = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(zlib.crc32(name.encode())) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    np.seterr(**old)
    unit = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy((base + scale * (2 * unit - 1)).astype(np.float32).reshape(shape))


def fill(model):
    """Norms 1 +- 0.4; matrices that keep the variance of their input, modulations (and norm_out) twice as large."""
    for name, p in model.named_parameters():
        gain = 2.0 if "modulation" in name or "norm_out" in name else 1.0
        p.copy_(made(name, p.shape, 0.4, 1.0) if p.ndim == 1 else made(name, p.shape, gain * (3.0 / p.shape[1]) ** 0.5))
    return model.eval()


def grid(frame, rows, columns):
    return [[frame, y, x, 0] for y in range(rows) for x in range(columns)]


def tokens(name, rows, columns):
    return made(name, (CONFIG["in_channels"], rows, columns), 1.5).flatten(1).T


def latents(output, rows, columns):
    return output.T.reshape(-1, rows, columns)


class Case:
    def __init__(self, name, rows, columns, text, references):
        self.name, self.rows, self.columns = name, rows, columns
        self.text = made(f"{name}.text", (1, text, CONFIG["joint_attention_dim"]), 2.0)
        self.text_ids = torch.tensor([[0, 0, 0, i] for i in range(text)])[None]
        self.references = [tokens(f"{name}.reference.{i}", *size) for i, size in enumerate(references)]
        self.reference_ids = [grid(10 + 10 * i, *size) for i, size in enumerate(references)]

    def run(self, model, sigma, latent, first=True, cache=None, rounded=False):
        """One forward pass as the pipelines call it. first: image tokens go before those of references. rounded: the timestep has the
        value that it has in bf16."""
        dtype = model.dtype
        image = [tokens(f"{self.name}.{latent}", self.rows, self.columns)]
        ids = [grid(0, self.rows, self.columns)]
        references, reference_ids = ([], []) if cache else (self.references, self.reference_ids)
        image, ids = (image + references, ids + reference_ids) if first else (references + image, reference_ids + ids)
        kv = {}
        if not first:
            count = sum(len(r) for r in references)
            kv = dict(kv_cache_mode="cached", kv_cache=cache) if cache else dict(kv_cache_mode="extract", num_ref_tokens=count)
        timestep = (torch.tensor([sigma]) * 1000).to(torch.bfloat16 if rounded else torch.float32) / 1000
        if rounded and dtype == torch.float32:
            timestep = (timestep * 1000).float() / 1000  # the product is the transformer's
        out = model(
            hidden_states=torch.cat(image)[None].to(dtype), encoder_hidden_states=self.text.to(dtype), timestep=timestep,
            img_ids=torch.tensor(sum(ids, []))[None], txt_ids=self.text_ids, guidance=None, return_dict=False, **kv,
        )  # fmt: skip
        output = out[0][0, : self.rows * self.columns].float()
        return (latents(output, self.rows, self.columns), out[1]) if kv and not cache else latents(output, self.rows, self.columns)


def hook_stages(model, out):
    def keep(name, value):
        out[name] = value[0].detach().clone() if value.ndim > 1 and value.shape[0] == 1 else value.detach().clone()

    def on(module, name, index=None):
        module.register_forward_hook(lambda m, a, o: keep(name, o if index is None else o[index]))

    on(model.time_guidance_embed.time_proj, "sinusoid")
    on(model.double_stream_modulation_img, "modulation_img")
    on(model.double_stream_modulation_txt, "modulation_txt")
    on(model.single_stream_modulation, "modulation_single")
    on(model.norm_out.linear, "norm_out.linear")
    on(model.x_embedder, "x_embedder")
    on(model.context_embedder, "context_embedder")
    for i, block in enumerate(model.transformer_blocks):
        on(block, f"double.{i}.text", 0)
        on(block, f"double.{i}.image", 1)
    for i, block in enumerate(model.single_transformer_blocks):
        on(block, f"single.{i}")
    on(model.norm_out, "norm_out")
    embed, made_tables = model.pos_embed.forward, iter(("image", "text"))

    def recording(ids):
        cos, sin = embed(ids)
        name = next(made_tables)
        keep(f"cos.{name}", cos[:, ::2])
        keep(f"sin.{name}", sin[:, ::2])
        return cos, sin

    model.pos_embed.forward = recording


def kv_model():
    model = fill(f.Flux2Transformer2DModel(**CONFIG))
    for block in model.transformer_blocks:
        block.attn.set_processor(f.Flux2KVAttnProcessor())
    for block in model.single_transformer_blocks:
        block.attn.set_processor(f.Flux2KVParallelSelfAttnProcessor())
    return model


def run_kv(model, name, case, rounded=False):
    rows, columns, text, sigmas, references = case
    case = Case(name, rows, columns, text, references)
    extract, cache = case.run(model, sigmas[0], "latents.0", first=False, rounded=rounded)
    cached = case.run(model, sigmas[1], "latents.1", first=False, cache=cache, rounded=rounded)
    return {f"{name}.extract": extract, f"{name}.cached": cached}


def make(out):
    tensors, stages = {}, {}
    model = fill(f.Flux2Transformer2DModel(**CONFIG))
    model.save_config(f"{out}/flux2")
    os.chmod(f"{out}/flux2/config.json", 0o644)
    for name, (rows, columns, text, sigma, references) in CASES.items():
        tensors[f"{name}.output"] = Case(name, rows, columns, text, references).run(model, sigma, "latents")
    kv = kv_model()
    for name, case in KV_CASES.items():
        tensors |= run_kv(kv, name, case)
    for suffix, dtype in ((".rounded", torch.float32), (".bf16", torch.bfloat16)):
        model, kv = model.to(dtype), kv.to(dtype)
        for name, (rows, columns, text, sigma, references) in CASES.items():
            output = Case(name, rows, columns, text, references).run(model, sigma, "latents", rounded=True)
            tensors[f"{name}.output{suffix}"] = output.to(dtype)
        for name, case in KV_CASES.items():
            tensors |= {key + suffix: output.to(dtype) for key, output in run_kv(kv, name, case, rounded=True).items()}
    model = fill(f.Flux2Transformer2DModel(**CONFIG))
    hook_stages(model, stages)
    rows, columns, text, sigma, references = CASES["one"]
    again = Case("one", rows, columns, text, references).run(model, sigma, "latents")
    assert torch.equal(again, tensors["one.output"])
    save(f"{out}/flux2.safetensors", tensors | {f"one.{name}": value for name, value in stages.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
