"""vae.safetensors: the tiny AutoencoderKL, stage by stage, and the path from latents to bytes."""

import argparse

from common import np, randn, save, torch

from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

SIZES = ((3, 5), (2, 2), (8, 6))


def to_bytes(image):
    """What the pipeline does after decode: float image [1, 3, H, W] -> uint8 [H, W, 3]."""
    return np.array(VaeImageProcessor(vae_scale_factor=16).postprocess(image, output_type="pil")[0])


def make(out):
    vae = AutoencoderKL.from_pretrained(f"{out}/tiny/vae").eval()
    tensors = {}
    stages = {}
    decoder = vae.decoder
    modules = {
        "conv_in": decoder.conv_in,
        "mid.resnet0": decoder.mid_block.resnets[0],
        "mid.attention": decoder.mid_block.attentions[0],
        "mid": decoder.mid_block,
        **{f"up.{i}": b for i, b in enumerate(decoder.up_blocks)},
    }
    for h, w in SIZES:
        size = f"{h}x{w}"
        latents = randn(f"vae.{size}", 1, vae.config.latent_channels, h, w)
        # as ZImagePipeline
        z = (latents / vae.config.scaling_factor) + vae.config.shift_factor
        handles = []
        if (h, w) == SIZES[0]:
            for name, module in modules.items():
                handles.append(
                    module.register_forward_hook(
                        lambda m, a, o, name=name: stages.__setitem__(f"{size}.{name}", o[0].clone())
                    )
                )
        image = vae.decode(z, return_dict=False)[0]
        for handle in handles:
            handle.remove()
        tensors |= stages
        tensors[f"decode.{size}.z"], tensors[f"decode.{size}.image"] = z[0], image[0]
        rgb = to_bytes(image)
        tensors[f"rgb.{size}.latents"], tensors[f"rgb.{size}.rgb"] = latents, rgb
        print(f"{size}: image mean {image.mean():.3f} std {image.std():.3f}, "
              f"{((rgb == 0) | (rgb == 255)).mean():.1%} saturated")  # fmt: skip

    # Rounding: exact halves (both parities), their float neighbours, and values outside [-1, 1].
    k = np.arange(256, dtype=np.float64)
    halves = ((np.concatenate([k, k + 0.5]) / 255.0) * 2.0 - 1.0).astype(np.float32)
    x = np.concatenate([
        halves, np.nextafter(halves, np.float32(9)), np.nextafter(halves, np.float32(-9)),
        np.array([-5, -1, -0.0, 0.0, 1, 5, 1.0000001, -1.0000001, 1e30, -1e30], np.float32),
        randn("vae.rounding", 246).numpy(),
    ])  # fmt: skip
    x = np.concatenate([x, np.zeros(-len(x) % 3, np.float32)])
    bytes_ = to_bytes(torch.from_numpy(x).reshape(1, 3, 1, -1))  # [1, n/3, 3]
    tensors["rounding.x"], tensors["rounding.u8"] = x, bytes_[0].T.reshape(-1)

    image = randn("vae.encode", 1, 3, 16, 24).clamp(-1, 1)
    tensors["encode.image"] = image[0]
    tensors["encode.moments"] = vae.encode(image).latent_dist.parameters[0]

    half = AutoencoderKL.from_pretrained(f"{out}/tiny-f16/vae", dtype=torch.float32).eval()
    tensors["f16.2x2.image"] = half.decode(tensors["decode.2x2.z"][None], return_dict=False)[0][0]
    save(f"{out}/vae.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
