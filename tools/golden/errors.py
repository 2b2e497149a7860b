"""Errors of single forward passes of a transformer against diffusers in float32, relative L2.

    cmake --build build/release --target velocity
    python tools/golden/errors.py --velocity build/release/velocity               random weights, Z-Image's own widths
    python tools/golden/errors.py --velocity build/release/velocity --outliers    the same with outlier channels
    python tools/golden/errors.py --velocity build/release/velocity --model models/emoji
                                                                                  trained: 20 prompts x 8 steps

The error is |a - b| / |b|; a table shows the root mean square over forward passes. It prints three tables:
1. Whole forward passes: diffusers in bf16, and zimage in every compute type. PASS: zimage in bf16 is at most 1.2 times
   as far off as diffusers in bf16.
2. By kind of layer, the error of the layer's own output when its inputs are exact.
3. By kind of layer, the error of the whole forward pass when only this kind is rounded, or every other kind.

Tables 2 and 3 emulate zimage's rounding (src/cpu/packed.c) in PyTorch: int8 (or fp8, --eight) with one scale a token
and one an output, largest / 127, ties to even; products of at most 4 tokens are exact; 4 bits by MLX's own quantiser in
groups of 32. "int8" is every layer there; the program itself leaves some layers precise (docs/errors.md).
"""

import argparse
import json
import os
import subprocess
import tempfile

from common import load_pipeline, np, save, save_file, torch
from crosscheck import PROMPTS
from make_mlx import dequantised, mx, to_mlx, to_torch

from diffusers import ZImageTransformer2DModel

KINDS = {
    "x_embedder": "all_x_embedder", "cap_embedder": "cap_embedder", "t_embedder": "t_embedder", "to_q": "to_q",
    "to_k": "to_k", "to_v": "to_v", "to_out": "to_out", "w1": "feed_forward.w1", "w3": "feed_forward.w3",
    "w2": "feed_forward.w2", "adaLN": "adaLN_modulation", "final": "all_final_layer",
}  # fmt: skip
GROUP = 32
FEW_TOKENS = 4


def kind_of(name):
    return "adaLN" if "adaLN" in name else next(k for k, part in KINDS.items() if part in name)


def linears(model):
    return [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]


# ---- models and inputs: (latents [C, H, W], sigma, embeds [tokens, dim]), latents and embeds bf16 numbers


def time_of(sigma):
    """What ZImagePipeline gives its transformer at a sigma: (1000 - timestep) / 1000, rounded to float32."""
    return (np.float32(1000) - np.float32(sigma) * np.float32(1000)) / np.float32(1000)


def sigma_of(t):
    """The float32 sigma with that time."""
    near = np.float32(1 - t).view(np.int32)
    return next(s for i in range(-64, 65) if time_of(s := (near + np.int32(i)).view(np.float32)) == np.float32(t))



def random_model(folder, layers, refiner_layers, outliers, seed):
    """Matrices of deviation 1/sqrt(inputs), norm weights near 1, small scales and moderate gates. With outliers, 0.1 %
    of the channels of the residual stream, of the gated product and of the prompt features are 20 times as large."""
    model = ZImageTransformer2DModel(n_layers=layers, n_refiner_layers=refiner_layers, axes_lens=[1536, 512, 512]).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        p.normal_(generator=generator)
        if p.ndim == 2 and "pad_token" not in name:
            p.mul_((0.3 if "adaLN" in name else 1.0) / p.shape[1] ** 0.5)
        elif p.ndim == 1:
            p.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
        if name.endswith("adaLN_modulation.0.bias"):
            p.view(4, -1)[1::2].mul_(5)  # gates: tanh of about 0.5
        if outliers:
            if name.endswith(("_norm2.weight", "embedder.2-1.weight", "embedder.1.weight", "feed_forward.w3.weight")):
                p[channels(p.shape[0])] *= 20
        p.copy_(p.bfloat16())
    os.makedirs(folder, exist_ok=True)
    model.save_config(folder)
    save_file({n: p.bfloat16() for n, p in model.state_dict().items()}, f"{folder}/diffusion_pytorch_model.safetensors")
    return model


def channels(count):
    return torch.arange(7, count, 1000)  # 0.1 %


def random_inputs(model, size, tokens, sigmas, outliers, seed):
    generator, inputs = torch.Generator().manual_seed(seed), []
    for sigma in sigmas:
        latents = torch.randn(model.config.in_channels, size // 8, size // 8, generator=generator)
        embeds = torch.randn(tokens, model.config.cap_feat_dim, generator=generator)
        if outliers:
            embeds[:, channels(embeds.shape[1])] *= 20
        inputs.append((latents.bfloat16().float(), sigma, embeds.bfloat16().float()))
    return inputs


def sampled_inputs(folder, prompts):
    """The inputs that ZImagePipeline gives its transformer in 8 steps from 256 x 256 noise."""
    pipe, inputs = load_pipeline(folder), []

    def keep(module, args):
        inputs.append((args[0][0][:, 0].bfloat16().float(), sigma_of(float(args[1][0])), args[2][0].bfloat16().float()))

    pipe.transformer.register_forward_pre_hook(keep)
    for i in range(prompts):
        generator = torch.Generator("cpu").manual_seed(42 + i)
        pipe(PROMPTS[i % len(PROMPTS)], width=256, height=256, num_inference_steps=8, guidance_scale=0.0,
             generator=generator, output_type="latent")  # fmt: skip
    return inputs


def evaluate(model, inputs):
    dtype = next(model.parameters()).dtype
    return torch.stack([
        model([x[:, None].to(dtype)], torch.tensor([time_of(s)]), [e.to(dtype)], return_dict=False)[0][0][:, 0].float()
        for x, s, e in inputs
    ])  # fmt: skip


def relative(a, b):
    return [float((x.double() - y.double()).norm() / y.double().norm()) for x, y in zip(a, b)]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


# ---- zimage


def packed_folder(model, source, folder, bits):
    """The transformer with every linear layer packed by MLX, scales in bf16."""
    os.makedirs(folder, exist_ok=True)
    stored, packed = {}, {f"{n}.weight" for n, m in linears(model) if m.in_features % GROUP == 0}
    for name, value in model.state_dict().items():
        w = to_mlx(value, mx.bfloat16)
        if name in packed:
            stored[name], scales, biases = mx.quantize(w, group_size=GROUP, bits=bits)
            stored[name.replace("weight", "scales")], stored[name.replace("weight", "biases")] = scales, biases
            mx.eval(stored[name], scales, biases)
        else:
            stored[name] = w
    mx.save_safetensors(f"{folder}/model.safetensors", stored)
    with open(f"{source}/config.json", encoding="utf-8") as f, open(f"{folder}/config.json", "w", encoding="utf-8") as g:
        g.write(f.read())


def zimage(program, folder, inputs, work, compute, threads):
    tensors = {"latents": torch.stack([x for x, _, _ in inputs]), "sigma": torch.tensor([s for _, s, _ in inputs])}
    tensors |= {f"embeds.{i}": e for i, (_, _, e) in enumerate(inputs)}
    save_file(tensors, f"{work}/inputs.safetensors")
    command = [program, folder, f"{work}/inputs.safetensors", f"{work}/velocity.safetensors", compute, str(threads)]
    kernels = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    from safetensors.torch import load_file

    # The velocity is noise - clean; the transformer's output has the other sign.
    return -load_file(f"{work}/velocity.safetensors")["velocity"], kernels


def whole_evaluations(model, folder, inputs, want, a, work):
    print(f"\n{'whole evaluation':44} {'error':>9} {'worst':>9} {'of bf16':>8}   kernels")
    model.bfloat16()
    errors = relative(evaluate(model, inputs), want)
    model.float()
    bf16 = rms(errors)
    print(f"{'diffusers bf16':44} {bf16:9.2e} {max(errors):9.2e} {1:8.2f}", flush=True)
    passed = False
    for bits in (0, 8, 4):
        weights, exact = f"{work}/{bits}" if bits else folder, None
        for compute in ("f32", "bf16", "int8"):
            got, kernels = zimage(a.velocity, weights, inputs, work, compute, a.threads)
            exact = got if exact is None else exact
            errors = relative(got, want)
            label = f"zimage {compute}" + (f", {bits}-bit weights in groups of {GROUP}" if bits else "")
            note = f"   ({rms(relative(got, exact)):.2e} of the same weights in f32)" if bits and compute != "f32" else ""
            print(f"{label:44} {rms(errors):9.2e} {max(errors):9.2e} {rms(errors) / bf16:8.3f}   {kernels}{note}", flush=True)
            if (bits, compute) == (0, "bf16"):
                passed = rms(errors) <= 1.2 * bf16
    print(f"{'PASS' if passed else 'FAIL'}: zimage bf16 at most 1.2 x diffusers bf16")
    return passed


# ---- layer by layer


def round_rows(x, eight):
    """x rounded to 8 bits with one scale a row: int8, or fp8 (e4m3)."""
    largest = x.abs().amax(-1, keepdim=True)
    if eight == "fp8":
        scale = largest.clamp_min(1e-12) / 448
        return (x / scale).to(torch.float8_e4m3fn).float() * scale
    return torch.round(x * (127 / largest)) * (largest / 127)


class Rounding:
    """Replaces the model's linear layers by emulations of zimage's."""

    def __init__(self, model, packed, eight):
        self.eight = eight
        self.packed = {bits: mx.load(f"{folder}/model.safetensors") for bits, folder in packed.items()}
        self.modes, self.measured = {}, None  # kind -> mode; (kind, mode) -> errors
        self.cache, self.keep = {}, sum(p.numel() for p in model.parameters()) < 1e8
        for name, module in linears(model):
            module.forward = lambda x, name=name, module=module: self.forward(name, module, x)

    def weight(self, name, module, mode):
        if (name, mode) in self.cache:
            return self.cache[name, mode]
        w = module.weight
        if mode[0] in "48" and f"{name}.scales" in self.packed[int(mode[0])]:
            stored = self.packed[int(mode[0])]
            parts = [stored[f"{name}.{part}"] for part in ("weight", "scales", "biases")]
            w = to_torch(dequantised(*parts, GROUP, int(mode[0])))
        if mode.endswith(self.eight):
            w = round_rows(w, self.eight)
        if self.keep:
            self.cache[name, mode] = w
        return w

    def rounded(self, name, module, x, mode):
        few = x.numel() // x.shape[-1] <= FEW_TOKENS
        if few:
            mode = mode.removesuffix("bf16").removesuffix(self.eight).strip() or "f32"
        w = self.weight(name, module, mode)
        x = round_rows(x, self.eight) if mode.endswith(self.eight) else x.bfloat16().float() if mode == "bf16" else x
        return torch.nn.functional.linear(x, w, module.bias)

    def forward(self, name, module, x):
        kind = kind_of(name)
        if self.measured is not None:
            y = torch.nn.functional.linear(x, module.weight, module.bias)
            for mode in ("bf16", self.eight, "8", "4", f"4 {self.eight}"):
                z = self.rounded(name, module, x, mode)
                self.measured.setdefault((kind, mode), []).append(relative(z[None], y[None])[0])
            return y
        mode = self.modes.get(kind)
        return self.rounded(name, module, x, mode) if mode else torch.nn.functional.linear(x, module.weight, module.bias)


def share_of_work(model, inputs):
    """The multiplications of each kind of layer in one forward pass, as a share of all linear layers'."""
    counts, hooks = dict.fromkeys(KINDS, 0), []
    for name, module in linears(model):
        kind = kind_of(name)

        def count(module, args, y, kind=kind):
            counts[kind] += y.numel() * module.in_features

        hooks.append(module.register_forward_hook(count))
    evaluate(model, inputs[:1])
    for hook in hooks:
        hook.remove()
    return {kind: n / sum(counts.values()) for kind, n in counts.items()}


def by_kind(model, inputs, want, work, eight):
    share = share_of_work(model, inputs)
    rounding = Rounding(model, {8: f"{work}/8", 4: f"{work}/4"}, eight)
    both = f"4 {eight}"

    rounding.measured = {}
    evaluate(model, inputs)
    print(f"\n{'own output':14} {'work':>7} {'bf16':>9} {eight:>9} {'worst':>9} {'8-bit':>9} {'4-bit':>9} {'4 + ' + eight:>9}")
    for kind in KINDS:
        e = {mode: rounding.measured[kind, mode] for mode in ("bf16", eight, "8", "4", both)}
        print(f"{kind:14} {share[kind]:7.2%} {rms(e['bf16']):9.2e} {rms(e[eight]):9.2e} {max(e[eight]):9.2e} "
              f"{rms(e['8']):9.2e} {rms(e['4']):9.2e} {rms(e[both]):9.2e}")  # fmt: skip
    rounding.measured = None

    def error(modes):
        rounding.modes = modes
        return rms(relative(evaluate(model, inputs), want))

    everything = {mode: error(dict.fromkeys(KINDS, mode)) for mode in (eight, "4", both)}
    print(f"\n{'whole':14} {eight + ' only':>10} {'all but':>10} {'4-bit only':>11}", flush=True)
    print(f"{'all':14} {everything[eight]:10.2e} {'':10} {everything['4']:11.2e}", flush=True)
    for kind in KINDS:
        only = but = "never"
        if kind not in ("t_embedder", "adaLN"):
            only, but = (f"{error(modes):.2e}" for modes in ({kind: eight}, {k: eight for k in KINDS if k != kind}))
        print(f"{kind:14} {only:>10} {but:>10} {error({kind: '4'}):11.2e}", flush=True)
    print(f"\n{eight + ' but':44} {'of work':>8} {eight:>9} {'4 + ' + eight:>9}")
    print(f"{'nothing':44} {0:8.2%} {everything[eight]:9.2e} {everything[both]:9.2e}", flush=True)
    few = ("x_embedder", "cap_embedder", "final")
    for kept in (few, ("w2",), (*few, "w2"), (*few, "w2", "to_v", "to_out"), ("w1", "w3"), (*few, "w1", "w3", "w2")):
        got = error({k: eight for k in KINDS if k not in kept}), error({k: "4" if k in kept else both for k in KINDS})
        print(f"{', '.join(kept):44} {sum(share[k] for k in kept):8.2%} {got[0]:9.2e} {got[1]:9.2e}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--velocity", required=True, help="the program of tools/golden/velocity.c")
    p.add_argument("--model", help="a trained model's folder")
    p.add_argument("--prompts", type=int, default=20)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--refiner-layers", type=int, default=1)
    p.add_argument("--size", type=int, default=256, help="pixels, with random weights")
    p.add_argument("--tokens", type=int, default=64, help="of the caption, with random weights")
    p.add_argument("--outliers", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", choices=("whole", "kinds"), help="the first table, or the ones by kind of layer")
    p.add_argument("--eight", choices=("int8", "fp8"), default="int8", help="computation in 8 bits, of the tables by kind")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as work:
        if a.model:
            folder = f"{a.model}/transformer"
            inputs = sampled_inputs(a.model, a.prompts)
            model = ZImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
            some = [inputs[8 * i + i % 8] for i in range(a.prompts)]  # for the slow tables: one step of each prompt
        else:
            folder = f"{work}/transformer"
            model = random_model(folder, a.layers, a.refiner_layers, a.outliers, a.seed)
            inputs = random_inputs(model, a.size, a.tokens, (0.9, 0.4), a.outliers, a.seed)
            some = random_inputs(model, a.size // 2, a.tokens // 2, (0.4,), a.outliers, a.seed)
        c = model.config
        print(f"dim {c.dim}, {c.n_layers} layers and {c.n_refiner_layers} + {c.n_refiner_layers} refiner layers, "
              f"{len(inputs)} evaluations of {inputs[0][0].shape[1] * inputs[0][0].shape[2] // 4} image tokens, "
              f"{inputs[0][2].shape[0]} caption tokens{', outlier channels' if a.outliers else ''}", flush=True)  # fmt: skip
        for bits in (8, 4):
            packed_folder(model, folder, f"{work}/{bits}", bits)
        passed = a.only == "kinds" or whole_evaluations(model, folder, inputs, evaluate(model, inputs), a, work)
        if a.only != "whole":
            by_kind(model, some, evaluate(model, some), work, a.eight)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
