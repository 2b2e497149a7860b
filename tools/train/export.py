#!/usr/bin/env python3
"""Writes the diffusers folder: weights in bf16, configurations, tokenizer, scheduler.

    export.py --work WORK --vae vae.safetensors --model MODEL --out models/emoji

`vae.safetensors` comes from train_vae.py (its metadata holds scaling_factor and shift_factor), MODEL, a folder, from
train.py (its names are prefixed `transformer.` and `text_encoder.`). Both may be an exported folder. With --blend OTHER
--share S the weights are (1 - S) times those of MODEL plus S times those of OTHER, which was trained on from MODEL.
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import networks
from networks import SHIFT, SIZE, TEXT, TRANSFORMER, VAE
from scenes import CANVASES

LIMIT = 64_000_000


def configurations(scaling, shift, sizes):
    t, v, q = TRANSFORMER, VAE, TEXT
    return {
        "model_index.json": {
            "_class_name": "ZImagePipeline", "_diffusers_version": "0.37.0",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen3ForCausalLM"], "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "ZImageTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]},
        "scheduler/scheduler_config.json": {
            "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.37.0",
            "num_train_timesteps": 1000, "shift": SHIFT, "use_dynamic_shifting": False},
        "transformer/config.json": {
            "_class_name": "ZImageTransformer2DModel", "_diffusers_version": "0.37.0",
            "_training_sizes": sizes,  # [width, height]; read by zimage, ignored by diffusers
            "all_f_patch_size": [1],
            "all_patch_size": [2], "axes_dims": t["axes_dims"], "axes_lens": t["axes_lens"],
            "cap_feat_dim": t["cap_feat_dim"], "dim": t["dim"], "in_channels": t["in_channels"],
            "n_heads": t["n_heads"], "n_kv_heads": t["n_heads"], "n_layers": t["n_layers"],
            "n_refiner_layers": t["n_refiner_layers"], "norm_eps": t["norm_eps"], "qk_norm": True,
            "rope_theta": t["rope_theta"], "t_scale": t["t_scale"]},
        "text_encoder/config.json": {
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
            "bos_token_id": 5115, "eos_token_id": 5117, "head_dim": q["head_dim"], "hidden_act": "silu",
            "hidden_size": q["hidden_size"], "initializer_range": 0.02, "intermediate_size": q["intermediate_size"],
            "max_position_embeddings": 512, "max_window_layers": q["num_hidden_layers"], "model_type": "qwen3",
            "num_attention_heads": q["num_attention_heads"], "num_hidden_layers": q["num_hidden_layers"],
            "num_key_value_heads": q["num_key_value_heads"], "pad_token_id": 5115, "rms_norm_eps": q["rms_norm_eps"],
            "rope_scaling": None, "rope_theta": q["rope_theta"], "sliding_window": None, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False,
            "vocab_size": q["vocab_size"]},
        "vae/config.json": {
            "_class_name": "AutoencoderKL", "_diffusers_version": "0.37.0", "act_fn": "silu",
            "block_out_channels": v["block_out_channels"], "down_block_types": ["DownEncoderBlock2D"] * len(v["block_out_channels"]),
            "force_upcast": True, "in_channels": 3, "latent_channels": v["latent_channels"],
            "latents_mean": None, "latents_std": None, "layers_per_block": v["layers_per_block"],
            "mid_block_add_attention": True, "norm_num_groups": v["norm_num_groups"], "out_channels": 3,
            "sample_size": SIZE, "scaling_factor": scaling, "shift_factor": shift,
            "up_block_types": ["UpDecoderBlock2D"] * len(v["block_out_channels"]), "use_post_quant_conv": False, "use_quant_conv": False},
    }


def export(out, work, vae, scaling, shift, transformer, text_encoder, sizes):
    out = Path(out)
    for name, config in configurations(scaling, shift, sizes).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config, indent=2) + "\n")
    (out / "tokenizer").mkdir(exist_ok=True)
    for path in sorted((Path(work) / "tokenizer").iterdir()):
        shutil.copyfile(path, out / "tokenizer" / path.name)
    for name, state in (("transformer/diffusion_pytorch_model", transformer), ("vae/diffusion_pytorch_model", vae),
                        ("text_encoder/model", text_encoder)):
        state = {k: p.detach().cpu().to(torch.bfloat16).contiguous() for k, p in state.items()}
        path = out / f"{name}.safetensors"
        save_file(state, path, metadata={"format": "pt"})
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"more than {LIMIT:,} bytes")


def read_vae(path):
    """(weights, scaling_factor, shift_factor) of train_vae.py's file or of an exported folder."""
    if Path(path).is_dir():
        config = json.loads((Path(path) / "vae/config.json").read_text())
        state = load_file(Path(path) / "vae/diffusion_pytorch_model.safetensors")
        return {k: p.float() for k, p in state.items()}, config["scaling_factor"], config["shift_factor"]
    with safe_open(path, "pt") as f:
        meta = f.metadata() or {}
    return load_file(path), float(meta.get("scaling_factor", 1)), float(meta.get("shift_factor", 0))


def read_model(paths):
    """Names and values of model-<n>.safetensors files, of a folder that holds them, or of an exported folder."""
    state = {}
    for path in map(Path, paths):
        if (path / "transformer").is_dir():
            for part, name in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
                state.update({f"{part}.{k}": p for k, p in load_file(path / part / f"{name}.safetensors").items()})
        else:
            for file in sorted(path.glob("model-*.safetensors")) if path.is_dir() else [path]:
                state.update(load_file(file))
    return {k: p.float() for k, p in state.items()}


def save_parts(model, folder, limit=15_000_000):
    """Writes FOLDER/model-<n>.safetensors in bf16, each of at most `limit` bytes; a reader never meets half a file."""
    parts, size = [{}], 0
    for name, p in model.state_dict().items():
        if size + 2 * p.numel() > limit:
            parts.append({})
            size = 0
        parts[-1][name] = p.detach().to(torch.bfloat16).cpu().contiguous()
        size += 2 * p.numel()
    for n, part in enumerate(parts):
        save_file(part, folder / "model.new")
        (folder / "model.new").chmod(0o644)
        (folder / "model.new").rename(folder / f"model-{n}.safetensors")


def split_model(state):
    """(transformer, text encoder); the naming heads are for training only."""
    parts = {"transformer": {}, "text_encoder": {}, "naming": {}}
    for name, p in state.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = p
    return parts["transformer"], parts["text_encoder"]


def load_folder(folder, device="cpu"):
    """(text encoder, transformer, autoencoder, scaling, shift) of an exported folder, in float32."""
    folder = Path(folder)
    config = json.loads((folder / "vae/config.json").read_text())
    models = []
    for model, name in ((networks.TextEncoder(), "text_encoder/model"),
                        (networks.Transformer(), "transformer/diffusion_pytorch_model"),
                        (networks.Autoencoder(), "vae/diffusion_pytorch_model")):
        model.load_state_dict({k: p.float() for k, p in load_file(folder / f"{name}.safetensors").items()})
        models.append(model.to(device).eval().requires_grad_(False))
    return *models, config["scaling_factor"], config["shift_factor"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="without it: untrained weights")
    parser.add_argument("--model", type=Path, nargs="+", help="a folder or files; without it: untrained weights")
    parser.add_argument("--blend", type=Path, help="a folder of weights to blend with those of --model")
    parser.add_argument("--share", type=float, default=0.5, help="the share of --blend's weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--canvases", type=int, default=1, help="how many of scenes.CANVASES the model was trained at")
    args = parser.parse_args()
    torch.manual_seed(0)
    vae, scaling, shift = networks.Autoencoder().state_dict(), 1.0, 0.0
    if args.vae:
        vae, scaling, shift = read_vae(args.vae)
    if args.model:
        weights = read_model(args.model)
        if args.blend:
            other = read_model([args.blend])
            weights = {name: torch.lerp(p, other[name], args.share) for name, p in weights.items()}
        transformer, text = split_model(weights)
    else:
        transformer, text = networks.Transformer().state_dict(), networks.TextEncoder().state_dict()
        for state in (transformer, text):  # the zeros of the start would hide mistakes
            for name, p in state.items():
                state[name] = p + 0.05 * torch.randn_like(p)
    export(args.out, args.work, vae, scaling, shift, transformer, text, [list(c) for c in CANVASES[:args.canvases]])


if __name__ == "__main__":
    main()
