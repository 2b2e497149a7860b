"""Times FLUX.2-klein-4B's transformer and its VAE's encoder in diffusers with random weights, and the ceilings of their sizes.

    klein.py --out DIR ceilings                  the products and attention of a step alone, on random numbers
    klein.py --out DIR eager | compiled | fp8    one forward pass, 512 text tokens; compiled and fp8: by torch.compile
    klein.py --out DIR encode                    the VAE's encoder, eager and compiled
    klein.py --out DIR folder FOLDER             writes the transformer with random weights, 8 GB
    klein.py --out DIR errors FOLDER --velocity PROGRAM --work DIR
                                                 one forward pass against diffusers in float32: diffusers in bf16 and fp8, zimage

The peers are those of peers.py and errors.py, for the other network: bf16 by the library's default, torch.compile of each
block, the whole step as one CUDA graph where it can be captured; in fp8 all products of the blocks multiply e4m3 with scales
of rows. The ceiling of a step is the sum of its products and attention at the rates that PyTorch reaches when it runs each
alone; norms, rotations and everything outside of the blocks count as loss. `ceiling bf16, one after the other` is the time of
the same products and attention in the order of a step, as one CUDA graph that is repeated until the GPU has reached its limit
of power: a product alone is measured in a few milliseconds, at a clock that a step of 50 ms can't keep.
"""

import functools
import os

import ceilings
import errors
import harness
import peers
import torch
from safetensors.torch import save_file
from torch._inductor import select_algorithm
from torch.nn.attention import SDPBackend

CONFIG = {
    "patch_size": 1, "in_channels": 128, "num_layers": 5, "num_single_layers": 20, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 7680, "timestep_guidance_channels": 256, "mlp_ratio": 3.0,
    "axes_dims_rope": [32, 32, 32, 32], "rope_theta": 2000, "eps": 1e-6, "guidance_embeds": False,
}  # fmt: skip
SMALL = CONFIG | {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 192}
TEXT = 512
SIGMAS = (0.5, 0.25)  # 1000 times these are numbers of bf16: what the pipeline rounds is not measured here


def config_of(a):
    return SMALL if a.small else CONFIG


# ---- the network


def new_transformer(a, seed=1):
    """In bf16: matrices scaled by 1 / sqrt(inputs), norm weights near 1."""
    from diffusers import Flux2Transformer2DModel

    with torch.device("meta"):
        model = Flux2Transformer2DModel.from_config(config_of(a)).bfloat16()
    model = model.to_empty(device=a.device)
    generator = torch.Generator(a.device).manual_seed(seed)
    for value in model.parameters():
        if value.ndim == 2:
            value.data.normal_(0, value.shape[1] ** -0.5, generator=generator)
        else:
            value.data.normal_(1, 0.1, generator=generator)
    return harness.frozen(model)


class Step(peers.Step):
    """One forward pass on inputs at fixed addresses."""

    def __init__(self, model, size, device, seed=1):
        self.model, self.replay, side = model, None, size // 16
        c, generator = model.config, torch.Generator().manual_seed(seed)
        self.latents = torch.randn(c.in_channels, side, side, generator=generator).bfloat16().to(device)
        self.text = torch.randn(1, TEXT, c.joint_attention_dim, generator=generator).bfloat16().to(device)
        self.t = torch.full((1,), 0.5, device=device)
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        zeros = torch.zeros(side * side, dtype=torch.long)
        self.img_ids = torch.stack([zeros, rows.flatten(), columns.flatten(), zeros], -1).to(device)
        text_zeros = torch.zeros(TEXT, dtype=torch.long)
        self.txt_ids = torch.stack([text_zeros, text_zeros, text_zeros, torch.arange(TEXT)], -1).to(device)

    def evaluate(self):
        dtype = self.model.x_embedder.weight.dtype
        tokens = self.latents.flatten(1).t()[None].to(dtype)
        out = self.model(hidden_states=tokens, encoder_hidden_states=self.text.to(dtype), timestep=self.t,
                         img_ids=self.img_ids, txt_ids=self.txt_ids, return_dict=False)[0]  # fmt: skip
        return out[0].t().reshape(self.latents.shape).float()


def use_fp8(model):
    return harness.use_fp8(model, lambda name: "transformer_blocks." in name)


def time_steps(a):
    torch._dynamo.config.recompile_limit = 64
    a.variant = a.command
    model = new_transformer(a)
    compiled = a.command != "eager"
    attention = peers.choose_attention(model, Step(model, a.sizes[0], a.device), a) if compiled else "native"
    if a.command == "fp8":
        use_fp8(model)
        select_algorithm.add_preprocessing_fn(peers.large_tiles)
    if compiled:
        for layer in [*model.transformer_blocks, *model.single_transformer_blocks]:
            layer.compile(mode=peers.MODE, fullgraph=True, dynamic=False)
    for size in a.sizes:
        step = Step(model, size, a.device)
        harness.attempt(a.out, f"{a.command} klein step {size}", peers.time_step, step, size, a, attention, "klein step")


# ---- ceilings


def products(config, size):
    """(tokens, inputs, outputs, how many) of the products of one step's blocks."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    inner, image = int(width * config["mlp_ratio"]), (size // 16) ** 2
    double, single = config["num_layers"], config["num_single_layers"]
    streams = [(rows, i, o, n * double) for rows in (image, TEXT)
               for i, o, n in ((width, 3 * width, 1), (width, width, 1), (width, 2 * inner, 1), (inner, width, 1))]  # fmt: skip
    joint = image + TEXT
    return [*streams, (joint, width, 3 * width + 2 * inner, single), (joint, width + inner, width, single)]


def ceiling(a, size, name, make):
    config, total, flops = config_of(a), 0.0, 0
    for rows, inputs, outputs, times in products(config, size):
        total += times * harness.seconds(make(rows, inputs, outputs, a.device), a.device, a.repeats, inner=8, warm=3)
        flops += times * 2 * rows * inputs * outputs
    heads, dim = config["num_attention_heads"], config["attention_head_dim"]
    joint, blocks = (size // 16) ** 2 + TEXT, config["num_layers"] + config["num_single_layers"]
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    each = [harness.seconds(ceilings.attention(joint, a.device, backend, heads, dim), a.device, a.repeats, inner=8, warm=3)
            for backend in (backends if a.device != "cpu" else backends[1:])]  # fmt: skip
    total += blocks * min(each)
    flops += blocks * 4 * joint * joint * heads * dim
    harness.record(a.out, "time", who=f"ceiling {name}", what=f"klein step {size}", seconds=total, tflops=flops / total * 1e-12)


def step_calls(a, size):
    """The products and attention of a step's blocks in bf16, in the order of the blocks."""
    config, calls = config_of(a), []
    heads, dim = config["num_attention_heads"], config["attention_head_dim"]
    attend = ceilings.attention((size // 16) ** 2 + TEXT, a.device, SDPBackend.CUDNN_ATTENTION, heads, dim)
    *double, project, leave = products(config, size)

    def made(shapes):
        return [ceilings.bf16_product(rows, inputs, outputs, a.device) for rows, inputs, outputs, _ in shapes]

    image, text, single = made(double[:4]), made(double[4:]), made([project, leave])
    for _ in range(config["num_layers"]):
        calls += [image[0], text[0], attend, *image[1:], *text[1:]]
    for _ in range(config["num_single_layers"]):
        calls += [single[0], attend, single[1]]
    return calls


def ceiling_of_a_step(a, size):
    calls = step_calls(a, size)

    def run():
        for call in calls:
            call()

    replay = peers.capture(run)
    taken = harness.seconds(replay, a.device, a.repeats, inner=1, warm=20)
    harness.record(a.out, "time", who="ceiling bf16, one after the other", what=f"klein step {size}", seconds=taken)


def measure_ceilings(a):
    for size in a.sizes:
        if a.device != "cpu":
            harness.attempt(a.out, f"ceiling of a step {size}", ceiling_of_a_step, a, size)
        for name, make in (("bf16", ceilings.bf16_product), ("fp8", ceilings.fp8_product)):
            harness.attempt(a.out, f"ceiling {name} {size}", ceiling, a, size, name, make)


# ---- the VAE's encoder


def time_encoders(a):
    from diffusers import AutoencoderKLFlux2

    levels = [32, 32, 64, 64] if a.small else [128, 256, 512, 512]
    with torch.device(a.device):
        vae = harness.frozen(AutoencoderKLFlux2(block_out_channels=levels).bfloat16())
    for variant in ("eager", "compiled"):
        if variant == "compiled":
            vae = vae.to(memory_format=torch.channels_last)
            vae.encoder.compile(dynamic=False)
        for size in a.sizes:
            pixels = torch.rand(1, 3, size, size, device=a.device).bfloat16() * 2 - 1
            run = functools.partial(lambda x: vae.encode(x).latent_dist.mode(), pixels)
            taken = harness.attempt(a.out, f"{variant} encode {size}", harness.seconds, run, a.device, a.repeats)
            if taken is not None:
                harness.record(a.out, "time", who=f"torch {variant}", what=f"klein encode {size}", seconds=taken)


# ---- errors


def write_folder(a):
    new_transformer(a).save_pretrained(f"{a.folder}/transformer", max_shard_size="50GB")


def velocity_of(model, a, size):
    results = []
    for i, sigma in enumerate(SIGMAS):
        step = Step(model, size, a.device, seed=i)
        step.t.fill_(sigma)
        results.append(step.evaluate().cpu())
    return torch.stack(results)


def measure_errors(a):
    from diffusers import Flux2Transformer2DModel

    os.makedirs(a.work, exist_ok=True)
    for size in a.sizes:
        path, found = f"{a.work}/klein.safetensors", {}
        model = harness.frozen(Flux2Transformer2DModel.from_pretrained(f"{a.folder}/transformer").to(a.device))
        inputs = [Step(model, size, "cpu", seed=i) for i in range(len(SIGMAS))]
        tensors = {"latents": torch.stack([step.latents.float() for step in inputs]), "sigma": torch.tensor(SIGMAS)}
        save_file(tensors | {f"embeds.{i}": step.text[0].float() for i, step in enumerate(inputs)}, path)
        expected = velocity_of(model.float(), a, size)
        peer = model.bfloat16()
        for who, change in (("torch eager", lambda m: m), ("torch fp8", use_fp8)):
            found[who, size] = errors.error(velocity_of(change(peer), a, size), expected)
        del model, peer
        for compute in ("f32", "bf16", "fp8") if a.device != "cpu" else ("f32", "bf16"):
            got = harness.attempt(a.out, f"zimage {compute}", errors.zimage, a, a.folder, compute, path, 1)
            if got is not None:
                found[f"zimage {compute}", size] = errors.error(got, expected)
        for (who, _), value in found.items():
            harness.record(a.out, "error", who=who, what=f"klein step {size}", error=value)
        errors.verdict(a, found, size)


def main():
    p = harness.parser(__doc__)
    p.add_argument("--small", action="store_true", help="toy sizes, to try the script")
    p.add_argument("--velocity", help="tools/golden/velocity.c, built")
    p.add_argument("--work", default="/tmp/zimage-klein", help="folder for files that the programs exchange")
    commands = p.add_subparsers(dest="command", required=True)
    for name in ("ceilings", "eager", "compiled", "fp8", "encode"):
        commands.add_parser(name)
    for name in ("folder", "errors"):
        commands.add_parser(name).add_argument("folder")
    a = p.parse_args()
    parts = {"ceilings": measure_ceilings, "encode": time_encoders, "folder": write_folder, "errors": measure_errors}
    with torch.inference_mode():
        parts.get(a.command, time_steps)(a)


if __name__ == "__main__":
    main()
