"""Writes a random bf16 model folder of the published Z-Image-Turbo shapes (no real weights), for load and memory tests.

    python tools/golden/make_6b.py OUT_DIR --tokenizer DIR                 12.3 GB transformer, 8 GB text encoder, VAE
    python tools/golden/make_6b.py OUT_DIR --no-text-encoder --layers 2    smaller
    python tools/golden/make_6b.py OUT_DIR --tokenizer DIR --bits 4        matrices in groups as MLX stores them: 6 GB

Names and shapes come from the libraries' own classes, values from random_weights.py.
"""

import argparse
import json
import os
import shutil
import time

from common import torch
from random_weights import Values, write_sharded

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM


def shapes(model, skip=()):
    return [(n, tuple(p.shape)) for n, p in model.state_dict().items() if n not in skip]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--tokenizer", help="folder to copy as tokenizer/")
    p.add_argument("--layers", type=int, default=30)
    p.add_argument("--refiner-layers", type=int, default=2)
    p.add_argument("--text-layers", type=int, default=36)
    p.add_argument("--no-text-encoder", action="store_true")
    p.add_argument("--no-vae", action="store_true")
    p.add_argument("--bits", type=int, choices=(4, 8), help="of the transformer's and text encoder's matrices, in groups")
    p.add_argument("--group", type=int, choices=(32, 64, 128), default=32)
    p.add_argument("--shard-bytes", type=float, default=5e9)
    p.add_argument("--seed", type=int, default=6)
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="that write")
    a = p.parse_args()
    values, start = Values(a.seed), time.time()
    index = {"_class_name": "ZImagePipeline", "_diffusers_version": "0.42.1"}

    with torch.device("meta"):
        transformer = ZImageTransformer2DModel(
            n_layers=a.layers, n_refiner_layers=a.refiner_layers, axes_lens=[1536, 512, 512]
        )  # the rest of the class's defaults are the published values
    transformer.save_config(f"{a.out}/transformer")
    write_sharded(f"{a.out}/transformer", "diffusion_pytorch_model", shapes(transformer), values, a, a.bits)
    index["transformer"] = ["diffusers", "ZImageTransformer2DModel"]

    if not a.no_text_encoder:
        config = Qwen3Config(
            vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=a.text_layers, num_attention_heads=32,
            num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6, max_position_embeddings=40960, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, bos_token_id=151643, eos_token_id=151645,
            architectures=["Qwen3ForCausalLM"], dtype="bfloat16",
        )  # fmt: skip
        with torch.device("meta"):
            text_encoder = Qwen3ForCausalLM(config)
        config.save_pretrained(f"{a.out}/text_encoder")
        write_sharded(f"{a.out}/text_encoder", "model", shapes(text_encoder, {"lm_head.weight"}), values, a, a.bits)
        index["text_encoder"] = ["transformers", "Qwen3ForCausalLM"]
    if not a.no_vae:
        with torch.device("meta"):
            vae = AutoencoderKL(
                in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                latent_channels=16, norm_num_groups=32, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159,
                force_upcast=True, use_quant_conv=False, use_post_quant_conv=False,
            )  # fmt: skip
        vae.save_config(f"{a.out}/vae")
        write_sharded(f"{a.out}/vae", "diffusion_pytorch_model", shapes(vae), values, a)
        index["vae"] = ["diffusers", "AutoencoderKL"]
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(f"{a.out}/scheduler")
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    if a.tokenizer:
        shutil.copytree(a.tokenizer, f"{a.out}/tokenizer", dirs_exist_ok=True, copy_function=shutil.copyfile)
        index["tokenizer"] = ["transformers", "Qwen2Tokenizer"]
    with open(f"{a.out}/model_index.json", "w") as f:
        json.dump(index, f, indent=2)
    print(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
