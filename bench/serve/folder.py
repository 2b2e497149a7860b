"""Writes a model folder of Z-Image-Turbo's published sizes with random bf16 weights, 20 GB, best into memory.

    folder.py OUT_DIR [--small]     needs numpy; --small: a toy of the same kind, for trying the scripts

Like tools/golden/make_6b.py, without the Python libraries of the networks.
"""

import argparse
import json
import os
import shutil
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/tools/golden")
from random_weights import Values, write_sharded  # noqa: E402

# docs/spec: zimage.md 1, text-encoder.md 1, vae.md 1
TRANSFORMER = {
    "_class_name": "ZImageTransformer2DModel", "all_patch_size": [2], "all_f_patch_size": [1], "in_channels": 16, "dim": 3840,
    "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "norm_eps": 1e-5, "qk_norm": True,
    "cap_feat_dim": 2560, "rope_theta": 256.0, "t_scale": 1000.0, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
}  # fmt: skip
TEXT_ENCODER = {
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "intermediate_size": 9728,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 16, "layers_per_block": 2,
    "block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32, "scaling_factor": 0.3611, "shift_factor": 0.1159,
    "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": True, "force_upcast": True,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "sample_size": 1024,
}  # fmt: skip
SMALL = (
    {"dim": 384, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3, "cap_feat_dim": 320},
    {"hidden_size": 320, "intermediate_size": 1216, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
     "head_dim": 64, "vocab_size": 8192},
    {"block_out_channels": [32, 64, 64, 64]},
)  # fmt: skip


def linear(name, outputs, inputs, bias=False):
    return [(f"{name}.weight", (outputs, inputs))] + ([(f"{name}.bias", (outputs,))] if bias else [])


def transformer_block(name, c, modulated):
    dim, head = c["dim"], c["dim"] // c["n_heads"]
    hidden = int(dim / 3 * 8)
    tensors = [(f"{name}.{norm}.weight", (dim,)) for norm in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")]
    tensors += [(f"{name}.attention.{norm}.weight", (head,)) for norm in ("norm_q", "norm_k")]
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        tensors += linear(f"{name}.attention.{part}", dim, dim)
    for part, outputs, inputs in (("w1", hidden, dim), ("w2", dim, hidden), ("w3", hidden, dim)):
        tensors += linear(f"{name}.feed_forward.{part}", outputs, inputs)
    return tensors + (linear(f"{name}.adaLN_modulation.0", 4 * dim, 256, True) if modulated else [])


def transformer(c):
    dim, patch = c["dim"], 4 * c["in_channels"]
    tensors = [("x_pad_token", (1, dim)), ("cap_pad_token", (1, dim)), ("cap_embedder.0.weight", (c["cap_feat_dim"],))]
    tensors += linear("cap_embedder.1", dim, c["cap_feat_dim"], True) + linear("all_x_embedder.2-1", dim, patch, True)
    tensors += linear("t_embedder.mlp.0", 1024, 256, True) + linear("t_embedder.mlp.2", 256, 1024, True)
    tensors += linear("all_final_layer.2-1.linear", patch, dim, True)
    tensors += linear("all_final_layer.2-1.adaLN_modulation.1", dim, 256, True)
    for stack, count, modulated in (("noise_refiner", c["n_refiner_layers"], True),
                                    ("context_refiner", c["n_refiner_layers"], False), ("layers", c["n_layers"], True)):  # fmt: skip
        for i in range(count):
            tensors += transformer_block(f"{stack}.{i}", c, modulated)
    return tensors


def text_encoder(c):
    hidden, head = c["hidden_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    tensors = [("model.embed_tokens.weight", (c["vocab_size"], hidden)), ("model.norm.weight", (hidden,))]
    for i in range(c["num_hidden_layers"]):
        name = f"model.layers.{i}"
        tensors += [(f"{name}.{norm}.weight", (hidden,)) for norm in ("input_layernorm", "post_attention_layernorm")]
        tensors += [(f"{name}.self_attn.{norm}.weight", (head,)) for norm in ("q_norm", "k_norm")]
        for part, outputs, inputs in (("q", queries, hidden), ("k", keys, hidden), ("v", keys, hidden), ("o", hidden, queries)):
            tensors += linear(f"{name}.self_attn.{part}_proj", outputs, inputs)
        for part in ("gate", "up"):
            tensors += linear(f"{name}.mlp.{part}_proj", c["intermediate_size"], hidden)
        tensors += linear(f"{name}.mlp.down_proj", hidden, c["intermediate_size"])
    return tensors


def norm(name, channels):
    return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]


def conv(name, outputs, inputs, side=3):
    return [(f"{name}.weight", (outputs, inputs, side, side)), (f"{name}.bias", (outputs,))]


def resnet(name, inputs, outputs):
    tensors = norm(f"{name}.norm1", inputs) + conv(f"{name}.conv1", outputs, inputs)
    tensors += norm(f"{name}.norm2", outputs) + conv(f"{name}.conv2", outputs, outputs)
    return tensors + (conv(f"{name}.conv_shortcut", outputs, inputs, 1) if inputs != outputs else [])


def middle(name, channels):
    tensors = norm(f"{name}.attentions.0.group_norm", channels)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        tensors += linear(f"{name}.attentions.0.{part}", channels, channels, True)
    return tensors + resnet(f"{name}.resnets.0", channels, channels) + resnet(f"{name}.resnets.1", channels, channels)


def half_vae(c, is_encoder):
    widths, side = c["block_out_channels"], "encoder" if is_encoder else "decoder"
    order = widths if is_encoder else widths[::-1]
    first, last = (3, 2 * c["latent_channels"]) if is_encoder else (c["latent_channels"], 3)
    tensors = conv(f"{side}.conv_in", order[0], first) + middle(f"{side}.mid_block", widths[-1])
    inputs = order[0]
    for i, channels in enumerate(order):
        name = f"{side}.{'down' if is_encoder else 'up'}_blocks.{i}"
        for k in range(c["layers_per_block"] + (not is_encoder)):
            tensors += resnet(f"{name}.resnets.{k}", inputs, channels)
            inputs = channels
        if i + 1 < len(order):
            tensors += conv(f"{name}.{'downsamplers' if is_encoder else 'upsamplers'}.0.conv", channels, channels)
    return tensors + norm(f"{side}.conv_norm_out", order[-1]) + conv(f"{side}.conv_out", last, order[-1])


def vae(c):
    return half_vae(c, True) + half_vae(c, False)


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)


def write(out, small=False):
    """Writes the folder, unless it is complete: model_index.json comes last."""
    if os.path.exists(f"{out}/model_index.json"):
        return
    start, values = time.time(), Values(6)
    how = argparse.Namespace(group=32, shard_bytes=5e9, threads=min(16, os.cpu_count()))
    parts = zip(("transformer", "text_encoder", "vae"), (TRANSFORMER, TEXT_ENCODER, VAE), SMALL, (transformer, text_encoder, vae))
    for name, config, toy, tensors in parts:
        config = {**config, **(toy if small else {})}
        write_json(f"{out}/{name}/config.json", config)
        base = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        write_sharded(f"{out}/{name}", base, tensors(config), values, how)
    write_json(f"{out}/scheduler/scheduler_config.json",
               {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0})  # fmt: skip
    shutil.copytree(f"{ROOT}/models/emoji/tokenizer", f"{out}/tokenizer", dirs_exist_ok=True)
    write_json(f"{out}/model_index.json", {"_class_name": "ZImagePipeline"})
    print(f"written in {time.time() - start:.0f} s", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--small", action="store_true")
    a = p.parse_args()
    write(a.out, a.small)


if __name__ == "__main__":
    main()
