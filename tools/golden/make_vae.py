"""The tiny VAEs, stage by stage.

vae.safetensors            AutoencoderKL of tiny/: decoding, and the path from latents to bytes
vae_encode.safetensors     the same, encoding: bytes of an image to moments and latents
vae-flux2/, vae-flux2-small/                 AutoencoderKLFlux2 with random weights; the second has the small decoder
vae_flux2.safetensors, vae_flux2_small.safetensors   both directions of these
"""

import argparse
import os

from common import fill, np, randint, randn, save, torch

from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2KleinPipeline
from diffusers.image_processor import VaeImageProcessor

SIZES = ((3, 5), (2, 2), (8, 6))
FLUX2_SIZES = ((3, 5), (1, 2), (4, 3))
STAGES_SIZE = (2, 2)


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


def random_image(name, rows, columns):
    """Bytes [rows, columns, 3] with flat parts, edges and noise."""
    noise = randint(f"{name}.noise", 0, 256, rows, columns, 3)
    flat = randint(f"{name}.flat", 0, 256, rows // 8 + 1, columns // 8 + 1, 3)
    flat = flat.repeat_interleave(8, 0).repeat_interleave(8, 1)[:rows, :columns]
    mixed = torch.where(randint(f"{name}.mixed", 0, 3, rows, columns, 1) == 0, noise, flat)
    return mixed.to(torch.uint8).numpy()


def to_values(image):
    """What the pipelines do before encode: uint8 [H, W, 3] -> float image [1, 3, H, W]."""
    from PIL import Image

    return VaeImageProcessor(vae_scale_factor=1).preprocess(Image.fromarray(image))


def hook_stages(module, names, tensors, prefix):
    return [
        m.register_forward_hook(lambda m, a, o, n=n: tensors.__setitem__(f"{prefix}.{n}", o[0].clone()))
        for n, m in names(module).items()
    ]


def encoder_stages(encoder):
    return {
        "conv_in": encoder.conv_in,
        **{f"down.{i}": b for i, b in enumerate(encoder.down_blocks)},
        "mid.resnet0": encoder.mid_block.resnets[0],
        "mid.attention": encoder.mid_block.attentions[0],
        "mid": encoder.mid_block,
    }


def encode(vae, name, rows, columns, tensors, stages):
    """The posterior of a random image; its moments have the reference's limits."""
    image = random_image(name, rows, columns)
    handles = hook_stages(vae.encoder, encoder_stages, tensors, f"{name}.stage") if stages else []
    posterior = vae.encode(to_values(image)).latent_dist
    for handle in handles:
        handle.remove()
    tensors[f"{name}.rgb"] = image
    tensors[f"{name}.moments"] = torch.cat([posterior.mean, posterior.logvar], 1)[0]
    return posterior


def make_encode(out):
    vae = AutoencoderKL.from_pretrained(f"{out}/tiny/vae").eval()
    half = AutoencoderKL.from_pretrained(f"{out}/tiny-f16/vae", dtype=torch.float32).eval()
    scaling, shift = vae.config.scaling_factor, vae.config.shift_factor
    tensors = {}
    for h, w in SIZES:
        name = f"{h}x{w}"
        posterior = encode(vae, name, 8 * h, 8 * w, tensors, (h, w) == STAGES_SIZE)
        noise = randn(f"vae_encode.{name}.noise", *posterior.mean.shape)
        # as ZImageImg2ImgPipeline and retrieve_latents, with the sample's noise given
        sample = posterior.mean + posterior.std * noise
        tensors[f"{name}.noise"] = noise[0]
        tensors[f"{name}.sample"] = ((sample - shift) * scaling)[0]
        tensors[f"{name}.mode"] = ((posterior.mode() - shift) * scaling)[0]
        print(f"{name}: mean std {posterior.mean.std():.3f}, logvar {posterior.logvar.min():.2f} "
              f"to {posterior.logvar.max():.2f}")  # fmt: skip
    values = to_values(tensors["2x2.rgb"])
    tensors["f16.2x2.moments"] = half.encode(values).latent_dist.parameters[0]
    save(f"{out}/vae_encode.safetensors", tensors)


def make_flux2_vae(folder, decoder_block_out_channels):
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 6, 8),
        decoder_block_out_channels=decoder_block_out_channels,
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=2,
        sample_size=64,
    )
    fill(vae, 1.0, {"decoder.conv_out": 0.6})
    vae.bn.running_mean.copy_(0.4 * randn("bn.running_mean", 12))
    vae.bn.running_var.copy_(0.3 + randn("bn.running_var", 12) ** 2)
    vae.bn.num_batches_tracked.fill_(7)
    vae.save_pretrained(folder)
    for file in os.listdir(folder):
        os.chmod(f"{folder}/{file}", 0o644)
    return vae


def make_flux2(out, name, decoder_block_out_channels):
    vae = make_flux2_vae(f"{out}/{name}", decoder_block_out_channels)
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    tensors = {}
    for h, w in FLUX2_SIZES:
        size = f"{h}x{w}"
        posterior = encode(vae, size, 8 * h, 8 * w, tensors, False)
        # as Flux2KleinPipeline._encode_vae_image, and the end of its __call__
        latents = (Flux2KleinPipeline._patchify_latents(posterior.mode()) - mean) / std
        tensors[f"{size}.latents"] = latents[0]
        z = randn(f"vae_flux2.{size}.z", *latents.shape)
        image = vae.decode(Flux2KleinPipeline._unpatchify_latents(z * std + mean), return_dict=False)[0]
        tensors[f"{size}.z"], tensors[f"{size}.image"] = z[0], image[0]
        print(f"{name} {size}: latents std {latents.std():.3f}, image std {image.std():.3f}")
    save(f"{out}/{name.replace('-', '_')}.safetensors", tensors)


def make_all(out):
    make(out)
    make_encode(out)
    make_flux2(out, "vae-flux2", None)
    make_flux2(out, "vae-flux2-small", (4, 4, 6))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tests/golden")
    make_all(parser.parse_args().out)
