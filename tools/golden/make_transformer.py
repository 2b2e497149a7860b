"""transformer.safetensors: every stage of the tiny transformer at one shape, inputs and outputs at five."""

import argparse

from common import randn, save, torch

import diffusers.models.transformers.transformer_z_image as z
from diffusers import ZImageTransformer2DModel

SHAPES = {  # name: latent height, width, caption tokens, t
    "a": (10, 6, 7, 0.3),
    "b": (14, 22, 33, 0.0),
    "c": (8, 8, 1, 0.7),
    "d": (6, 10, 512, 0.9545454),
    "e": (16, 24, 32, 0.5),
}


def inputs(name, model):
    h, w, m, t = SHAPES[name]
    latent = randn(f"transformer.{name}.latent", model.config.in_channels, h, w)
    caption = 2.0 * randn(f"transformer.{name}.caption", m, model.config.cap_feat_dim)
    return latent, caption, torch.tensor([t], dtype=torch.float32)


def run(model, latent, caption, t):
    return model([latent.unsqueeze(1)], t, [caption], return_dict=False)[0][0].squeeze(1)


def hook_stages(model, prefix):
    """Registers hooks that fill the returned dictionary during the next call."""
    out = {}

    def keep(name, value):
        value = value[0] if value.ndim >= 2 and value.shape[0] == 1 else value
        out[prefix + name] = value.detach().clone()

    def on_output(module, name):
        module.register_forward_hook(lambda m, a, o: keep(name, o))

    def on_input(module, name):
        module.register_forward_pre_hook(lambda m, a: keep(name, a[0]))

    on_input(model.t_embedder.mlp, "t_frequencies")
    on_output(model.t_embedder, "t_embedder")
    on_input(model.all_x_embedder["2-1"], "x_tokens")
    on_output(model.all_x_embedder["2-1"], "x_embedder")
    on_output(model.cap_embedder, "cap_embedder")
    on_output(model.all_final_layer["2-1"], "final_layer")
    current = []
    for kind in ("noise_refiner", "context_refiner", "layers"):
        for i, block in enumerate(getattr(model, kind)):
            name = f"{kind}.{i}"
            on_output(block, f"{name}.output")
            block.attention.register_forward_pre_hook(lambda m, a, name=name: current.append(name))
            if i > 0:
                continue  # detail only for the first block of each kind
            on_input(block, f"{name}.input")
            if block.modulation:
                on_output(block.adaLN_modulation, f"{name}.adaln")
            on_input(block.attention, f"{name}.attention_in")
            on_output(block.attention, f"{name}.attention")
            on_input(block.feed_forward, f"{name}.feed_forward_in")
            on_output(block.feed_forward, f"{name}.feed_forward")

    attention = z.dispatch_attention_fn

    def recording(query, key, value, **kwargs):
        result = attention(query, key, value, **kwargs)
        if current[-1].endswith(".0"):
            for letter, tensor in zip("qkv", (query, key, value)):
                keep(f"{current[-1]}.{letter}", tensor)
            keep(f"{current[-1]}.heads", result.flatten(2, 3))
        return result

    z.dispatch_attention_fn = recording
    sequence = model._prepare_sequence
    kinds = iter(("image", "caption"))

    def recording_sequence(feats, pos_ids, *args, **kwargs):
        result = sequence(feats, pos_ids, *args, **kwargs)
        kind = next(kinds)
        rows = result[0].shape[1]  # the reference makes more caption ids than rows and cuts them here
        out[f"{prefix}rope.{kind}_ids"] = pos_ids[0][:rows].to(torch.int32)
        out[f"{prefix}rope.{kind}_cos"] = result[1][0].real.clone()
        out[f"{prefix}rope.{kind}_sin"] = result[1][0].imag.clone()
        return result

    model._prepare_sequence = recording_sequence
    return out


def make(out):
    folder = f"{out}/tiny/transformer"
    model = ZImageTransformer2DModel.from_pretrained(folder).eval()
    tensors = {}
    for name in SHAPES:
        latent, caption, t = inputs(name, model)
        tensors |= {f"{name}.latent": latent, f"{name}.caption": caption, f"{name}.t": t}
        tensors[f"{name}.output"] = run(model, latent, caption, t)
    original = z.dispatch_attention_fn
    stages = hook_stages(model, "a.")
    again = run(model, *inputs("a", model))
    z.dispatch_attention_fn = original
    assert torch.equal(again, tensors["a.output"])
    real = SHAPES["a"][0] * SHAPES["a"][1] // 4
    stages["a.x_tokens"] = stages["a.x_tokens"][:real]
    tensors |= stages
    model = ZImageTransformer2DModel.from_pretrained(f"{out}/tiny-bf16-sharded/transformer", dtype=torch.float32)
    for name in ("a", "b"):
        tensors[f"bf16.{name}.output"] = run(model.eval(), *inputs(name, model))
    save(f"{out}/transformer.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
