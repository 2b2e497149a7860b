"""Recomputes the numbers of docs/spec/golden.md with the published libraries and compares them with the printed ones.

A formula (`formula` below) makes weights and inputs, so any language can make the same. The outputs go to
formula.safetensors. The exit status is 1 if a number disagrees.
"""

import argparse
import zlib

from common import np, save, torch

from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model


def formula(name, shape, scale, base):
    n = int(np.prod(shape))
    phase = (zlib.crc32(name.encode()) % 10007) * 0.001
    values = base + scale * np.sin(0.7 * np.arange(1, n + 1, dtype=np.float64) + phase)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def load_formula(module):
    state = module.state_dict()
    for name, p in state.items():
        shape = tuple(p.shape)
        if not p.is_floating_point():
            continue
        if "running_mean" in name:
            scale, base = 0.3, 0.0
        elif "running_var" in name:
            scale, base = 0.4, 1.0
        elif p.ndim == 1:
            scale, base = (0.1, 1.0) if name.endswith("weight") else (0.05, 0.0)
        else:
            scale, base = 1 / float(np.prod(shape[1:])) ** 0.5, 0.0
        state[name] = formula(name, shape, scale, base)
    module.load_state_dict(state)
    return module.eval()


def numbers(text):
    return [float(x) for x in text.replace("−", "-").split()]


class Checker:
    def __init__(self, tolerance=2e-5):
        self.tolerance, self.bad, self.checked = tolerance, 0, 0

    def __call__(self, name, tensor, first, last=None, total=None, total_abs=None):
        x = tensor.detach().double().reshape(-1)
        first = numbers(first)
        worst = (x[: len(first)] - torch.tensor(first, dtype=torch.float64)).abs().max().item()
        if last:
            last = numbers(last)
            worst = max(worst, (x[-len(last) :] - torch.tensor(last, dtype=torch.float64)).abs().max().item())
        size = x.abs().sum().item()
        sums = 0.0
        if total is not None:
            sums = abs(x.sum().item() - total) / size
        if total_abs is not None:
            sums = max(sums, abs(size - total_abs) / size)
        ok = worst <= self.tolerance and sums <= 1e-4
        self.bad += not ok
        self.checked += 1
        print(f"{'ok  ' if ok else 'BAD '} {name:44} values {worst:.1e}  sums {sums:.1e}")


def hooked(module, out, name):
    module.register_forward_hook(lambda m, a, o: out.__setitem__(name, o))


def z_image(check, tensors):
    model = load_formula(
        ZImageTransformer2DModel(
            in_channels=4, dim=64, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=24,
            axes_dims=[8, 12, 12], axes_lens=[256, 64, 64],
        )
    )  # fmt: skip
    s = {}
    for name, module in (
        ("t_embedder", model.t_embedder), ("x_embedder", model.all_x_embedder["2-1"]),
        ("noise_refiner.0.attention", model.noise_refiner[0].attention), ("noise_refiner.0", model.noise_refiner[0]),
        ("cap_embedder", model.cap_embedder), ("context_refiner.0", model.context_refiner[0]),
        ("layers.0", model.layers[0]), ("layers.1", model.layers[1]), ("final_layer", model.all_final_layer["2-1"]),
    ):  # fmt: skip
        hooked(module, s, name)
    latent, caption = formula("latent", (4, 1, 10, 6), 1.0, 0.0), formula("caption", (7, 24), 1.0, 0.0)
    out = model([latent], torch.tensor([0.3]), [caption], return_dict=False)[0][0]
    check("z-image t_embedder", s["t_embedder"], "-0.119548 -0.320818 -0.436345 -0.429780 -0.300476 -0.084773 0.154707 0.348360",
          "0.045431 -0.137185 -0.294146 -0.383559", -0.91650, 16.53087)
    check("z-image x_embedder", s["x_embedder"], "0.135272 0.008706 -0.178064 -0.136912 0.083277 0.166671 0.017394 -0.105076",
          None, 0.27223, 206.55885)
    check("z-image noise_refiner.0 attention", s["noise_refiner.0.attention"],
          "-2.225196 0.022506 2.255980 3.063218 1.933884 -0.418057 -2.505700 -3.009235",
          "0.256805 -0.819302 -1.377444 -1.064763", -68.48408, 2818.5731)
    check("z-image noise_refiner.0", s["noise_refiner.0"],
          "0.033511 -0.118367 -0.558071 -0.451571 0.134603 0.269071 -0.156288 -0.335762",
          "0.064114 -0.187678 -0.052979 0.163874", -70.6334, 327.45438)
    check("z-image cap_embedder", s["cap_embedder"], "3.386777 -0.923391 -2.658504 3.276809 -0.384978 -2.863373 3.137383 0.088702",
          None, -9.04429, 4537.0732)
    check("z-image context_refiner.0", s["context_refiner.0"],
          "2.496177 -2.680694 -4.415633 2.413593 0.105381 -1.108418 5.506737 2.055106",
          "2.407447 1.152478 -0.612808 -1.940472", 29.67113, 2940.44547)
    check("z-image layers.0", s["layers.0"], "0.110974 -0.362212 -0.721267 -0.315620 0.248563 0.144731 -0.246028 -0.233930",
          "2.343458 1.310980 -0.535906 -1.944684", 328.41763, 3464.22342)
    check("z-image layers.1", s["layers.1"], "0.396527 -0.349188 -0.912770 -0.358671 0.381566 0.187492 -0.277862 -0.138275",
          "2.184336 1.341750 -0.426470 -1.855630", 579.09505, 3649.14585)
    check("z-image final layer", s["final_layer"], "-0.679554 -0.170368 0.441371 0.766110 0.599488 0.051083 -0.526850 -0.764691",
          None, -38.45843, 748.02386)
    check("z-image output", out, "-0.679554 0.599488 -0.670396 0.594973 -0.556515 0.475974 -0.511126 0.417400",
          "0.616228 -0.587570 0.696722 -0.670476", -7.62453, 111.20229)
    check("z-image output channel 1 row 3", out[1, 0, 3], "0.091000 -0.204262 0.172072 -0.275299 0.147212 -0.260288")
    rope = model.rope_embedder(torch.tensor([[33, 2, 1]]))[0].angle()
    check("z-image RoPE angles of (33, 2, 1)", rope,
          "1.584073 1.966815 2.0625 0.515625 2.0 0.793701 0.314980 0.125 0.049606 0.019686 1.0 0.396850 0.157490 0.0625 0.024803 0.009843")
    tensors["z_image.output"] = out[:, 0]
    for name in ("t_embedder", "noise_refiner.0", "context_refiner.0"):
        tensors[f"z_image.{name}"] = s[name][0]


def flux2(check, tensors):
    model = load_formula(
        Flux2Transformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=24, axes_dims_rope=(8, 8, 8, 8), rope_theta=2000, guidance_embeds=False, mlp_ratio=3.0,
        )
    )  # fmt: skip
    s = {}
    hooked(model.double_stream_modulation_img, s, "mod_img")
    for i, block in enumerate(model.transformer_blocks):
        hooked(block, s, f"double.{i}")
    for i, block in enumerate(model.single_transformer_blocks):
        hooked(block, s, f"single.{i}")
    image = torch.tensor([[0, y, x, 0] for y in range(3) for x in range(4)] + [[10, y, x, 0] for y in range(2) for x in range(2)])
    text = torch.tensor([[0, 0, 0, k] for k in range(5)])
    out = model(
        hidden_states=formula("latent", (1, 16, 16), 1.0, 0.0), encoder_hidden_states=formula("text", (1, 5, 24), 1.0, 0.0),
        timestep=torch.tensor([0.75]), img_ids=image[None].float(), txt_ids=text[None].float(), guidance=None, return_dict=False,
    )[0][0]  # fmt: skip
    check("klein double block 0, text", s["double.0"][0], "-0.383446 -1.992512 2.220183 -0.052216 -2.172109 2.053633 0.280995 -2.311811",
          None, -0.86611, 503.15926)
    check("klein double block 0, image", s["double.0"][1], "-1.548399 -1.827537 0.807722 2.156637 0.068554 -2.127885 -0.931125 1.750885",
          None, -0.92476, 1308.07271)
    check("klein double block 1, image", s["double.1"][1], "-1.548888 -1.827553 0.807483 2.155967 0.068141 -2.127871 -0.931459 1.750212",
          None, -0.91988, 1308.05323)
    check("klein single block 0", s["single.0"], "-0.384104 -1.993798 2.219868 -0.052267 -2.173050 2.052830 0.280250 -2.311664",
          None, -1.79170, 1811.19912)
    check("klein single block 1", s["single.1"], "-0.384171 -1.993650 2.219792 -0.052270 -2.173087 2.052998 0.280016 -2.311568",
          None, -1.79224, 1811.19479)
    check("klein output", out, "-0.071812 0.057619 0.150624 0.148403 0.052362 -0.076783 -0.157385 -0.138489",
          "-0.148152 -0.090239 0.024723 0.124055", 0.09940, 25.79340)
    tensors["klein.output"] = out


def vaes(check, tensors):
    common = dict(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8,
    )  # fmt: skip
    a = load_formula(AutoencoderKL(**common, use_quant_conv=False, use_post_quant_conv=False))
    b = load_formula(AutoencoderKLFlux2(**common))
    z, image = formula("z", (1, 4, 3, 5), 1.0, 0.0), formula("img", (1, 3, 8, 12), 1.0, 0.0)
    s = {}
    d = a.decoder
    for name, module in (("conv_in", d.conv_in), ("resnet", d.mid_block.resnets[0]), ("attention", d.mid_block.attentions[0]),
                         ("mid", d.mid_block), ("up0", d.up_blocks[0]), ("up1", d.up_blocks[1]),
                         ("down0", a.encoder.down_blocks[0]), ("down1", a.encoder.down_blocks[1])):  # fmt: skip
        hooked(module, s, name)
    decoded = a.decode(z, return_dict=False)[0]
    moments = a.encode(image).latent_dist.parameters
    check("vae A conv_in", s["conv_in"], "-0.133211 0.127252 0.174885 0.138195 -0.130314 0.368225 0.139694 -0.047702", None, -1.83048, 123.08467)
    check("vae A mid resnet 0", s["resnet"], "-0.139704 -0.323347 0.217816 0.601011 -0.046005 0.686166 0.144646 -0.320236", None, 9.02461, 273.87291)
    check("vae A mid attention", s["attention"], "-0.049703 -0.233156 0.305962 0.690399 0.042173 0.753215 0.217430 -0.246686", None, 7.80151, 277.65207)
    check("vae A mid block", s["mid"], "0.038712 -0.218921 -0.521789 -0.639643 -0.632709 0.695291 0.150839 -0.196464", None, -2.78847, 255.36298)
    check("vae A up block 0", s["up0"], "0.737586 0.422359 0.248787 -0.282010 -0.630263 -1.124780 -1.471192 -1.225460", None, 1.25653, 2463.76671)
    check("vae A up block 1", s["up1"], "-1.454240 -2.121732 -1.912786 -1.527960 -1.282446 -1.820796 -3.584869 -5.050932", None, -98.14678, 1185.60538)
    check("vae A decode", decoded, "0.541873 0.577389 0.750606 0.853782 1.047608 1.734862 2.651925 2.747649",
          "0.169154 -0.029169 -0.375439 -0.499658", -4.59838, 111.97377)
    check("vae A encoder down block 0", s["down0"], "-0.532051 3.768588 2.712591 -2.181703 -2.851645 0.840592 -2.179084 -3.622792", None, -21.88379, 743.67004)
    check("vae A encoder down block 1", s["down1"], "1.187269 -1.143786 -2.410763 -0.628027 0.611154 -0.738961 -1.797401 -1.938054", None, 25.62788, 855.20395)
    check("vae A encode", moments, "0.451652 1.357874 1.536658 1.035666 0.581867 0.268774 0.784763 0.322470",
          "-0.532975 -0.260975 -0.169519 -0.129077", 17.32683, 108.28299)
    decoded_b = b.decode(z, return_dict=False)[0]
    raw_b = b.quant_conv(b.encoder(image))
    check("vae B decode", decoded_b, "0.981129 1.591034 2.351632 2.765601 2.594727 1.985053 1.321670 0.851336",
          "-0.853592 -0.382496 -0.049074 -0.067672", -22.57541, 155.88630)
    check("vae B encode", raw_b, "1.572101 1.895474 1.610388 1.035585 0.543806 0.188267 -0.650774 -1.380900",
          "-0.672931 -0.260820 -0.196976 -0.144903", 13.11775, 142.45059)
    std = (b.bn.running_var + 1e-4).sqrt()
    check("vae B std", std, "0.827196 0.957415 1.090085 1.171076 1.174699 1.099900 0.970066 0.836694", None, 16.19503)
    tensors |= {"vae_a.decode": decoded[0], "vae_a.encode": moments[0], "vae_b.decode": decoded_b[0], "vae_b.encode": raw_b[0]}


def qwen3(check, tensors):
    model = load_formula(
        Qwen3Model(
            Qwen3Config(
                vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            )
        )
    )  # fmt: skip
    ids = torch.tensor([[3, 14, 15, 9, 26, 5, 0, 0, 0, 0]])
    mask = torch.tensor([[1] * 6 + [0] * 4])
    h = [x[0] for x in model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states]
    check("qwen3 [0] row 5", h[0][5], "-0.069015 -0.157631 -0.172110 -0.105644 0.010508 0.121719 0.175683 0.147020", None, -0.48842, 3.55702)
    check("qwen3 [1] row 5", h[1][5], "0.788390 0.247157 -1.655223 0.767481 0.061127 -0.965024 1.590964 0.053990",
          "-1.276521 1.224622 -0.144902 -0.911968", -0.46416, 26.76152)
    check("qwen3 [1] row 9 (pad)", h[1][9], "0.792718 -0.170676 -0.660008 0.813245 -0.391097 -0.369312 0.992867 -0.452090", None, 0.26402, 17.95164)
    check("qwen3 [3] row 5", h[3][5], "0.873329 0.176774 -1.614009 0.699011 -0.071439 -0.885301 1.608600 0.063631",
          "-1.200711 1.242845 -0.137824 -0.765843", -0.36044, 25.94021)
    check("qwen3 [3] row 9 (pad)", h[3][9], "0.863662 -0.176239 -0.616554 0.731517 -0.499448 -0.343035 0.983502 -0.407052",
          "-0.682883 0.845728 -0.287107 0.230609", 0.36944, 17.69406)
    check("qwen3 [4] row 5", h[4][5], "1.072668 0.189631 -1.791429 0.714105 -0.124050 -0.835150 1.594110 0.064558", None, -0.60531, 27.75498)
    check("qwen3 [3] rows 0-5", h[3][:6], "-0.460167 0.547598 -0.704573 -0.556980", None, -1.18177, 101.71833)
    for k, x in enumerate(h):
        tensors[f"qwen3.hidden_states.{k}"] = x


def make(out):
    tensors, check, fine = {}, Checker(), Checker(2e-6)
    z_image(check, tensors)
    flux2(fine, tensors)
    vaes(check, tensors)
    qwen3(check, tensors)
    save(f"{out}/formula.safetensors", tensors)
    bad, checked = check.bad + fine.bad, check.checked + fine.checked
    print(f"{checked - bad} of {checked} agree")
    return bad == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    raise SystemExit(0 if make(parser.parse_args().out) else 1)
