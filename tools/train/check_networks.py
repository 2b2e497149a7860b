#!/usr/bin/env python3
"""Holds networks.py against diffusers and transformers on an exported folder (CPU, float32).

    check_networks.py FOLDER          exits 1 when a stage differs by more than 1e-4 of its largest value
"""
import sys

import torch
from diffusers import AutoencoderKL, ZImagePipeline
from transformers import AutoTokenizer

import export
import networks
from captions import TEMPLATE

CHANNELS = networks.VAE["latent_channels"]
LATENT = (CHANNELS, networks.SIDE, networks.SIDE)
OTHER = [(12, 12), (8, 20), (32, 16)]  # heights and widths of latents whose tokens are padded, and not
PROMPTS = ["a red apple", "un pulpo, estilo noto", "章鱼和苹果，twemoji风格，蓝色背景", "",
           "a very long caption, with far more words than the thirty-two tokens to which most of them are padded, so that "
           "the next multiple is needed and a good deal more"]


def main(folder):
    pipe = ZImagePipeline.from_pretrained(folder, torch_dtype=torch.float32)
    text, transformer, vae, scaling, shift = export.load_folder(folder)
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/tokenizer")
    worst = 0.0

    def report(name, mine, reference):
        nonlocal worst
        error = ((mine - reference).abs().max() / reference.abs().max()).item()
        worst = max(worst, error)
        print(f"{name:36s} largest difference {error:.1e} of the largest value")

    with torch.no_grad():
        for prompt in PROMPTS:
            name = repr(prompt[:20])
            reference = pipe.encode_prompt([prompt], do_classifier_free_guidance=False)[0][0]
            ids = torch.tensor([tokenizer(TEMPLATE.format(prompt=prompt)).input_ids])
            length = ids.shape[1]
            assert length == len(reference), (length, len(reference))
            ids = torch.nn.functional.pad(ids, (0, -length % 32), value=tokenizer.pad_token_id)
            mine = text(ids)
            report(f"text encoder {name}", mine[0, :length], reference)
            noise = torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(1))
            t = torch.tensor([0.25])
            a = transformer(noise, t, transformer.refine(mine, torch.tensor([length])))
            b = pipe.transformer([noise[0].unsqueeze(1)], t, [reference], return_dict=False)[0][0]
            report(f"transformer {name}", a[0], b.squeeze(1))
        for height, width in OTHER:  # with the last prompt
            noise = torch.randn(1, CHANNELS, height, width, generator=torch.Generator().manual_seed(1))
            a = transformer(noise, t, transformer.refine(mine, torch.tensor([length])))
            b = pipe.transformer([noise[0].unsqueeze(1)], t, [reference], return_dict=False)[0][0]
            report(f"transformer, latents {height} x {width}", a[0], b.squeeze(1))
        picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
        reference = pipe.vae.encode(picture).latent_dist
        mean, logvar = vae.encode(picture)
        report("encoder mean", mean, reference.mean)
        report("encoder log variance", logvar, reference.logvar)
        report("decoder", vae.decode(mean), pipe.vae.decode(mean).sample)
        prompt = PROMPTS[0]
        ids = torch.tensor([tokenizer(TEMPLATE.format(prompt=prompt)).input_ids])
        length = ids.shape[1]
        ids = torch.nn.functional.pad(ids, (0, -length % 32), value=tokenizer.pad_token_id)
        noise = torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(7))
        mine = networks.sample(text, transformer, ids, torch.tensor([length]), noise)
        pipe.set_progress_bar_config(disable=True)
        reference = pipe(prompt, height=256, width=256, num_inference_steps=8, guidance_scale=0.0, output_type="latent",
                         generator=torch.Generator().manual_seed(7)).images
        report("latents after 8 steps", mine, reference)
    print("ok" if worst < 1e-4 else "DIFFERENT")
    return worst >= 1e-4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
