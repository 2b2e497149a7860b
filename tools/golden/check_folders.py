"""Compares how `zimage` and diffusers read model folders: each of many changes to one folder, read by both.

    python tools/golden/check_folders.py --zimage build/release/zimage [--only WORD] [--model tests/golden/tiny]
    python tools/golden/check_folders.py --save DIR                          with other versions installed
    python tools/golden/check_folders.py --zimage ... --model DIR --as-is
    python tools/golden/check_folders.py --zimage ... --model tests/golden/tiny-klein

The folder is loaded and saved by the installed diffusers and transformers, changed, and read by both. The second and
third line do that for a folder that other versions saved. Such a folder is read by the pinned versions, since the
pipeline itself differs: that of diffusers 0.36 makes other sigmas, and so another image. The last line makes the
changes of FLUX.2-klein. A line of the output says:
  equal     both make the same image, at most 1/255 off
  refused   zimage refuses the folder, with the sentence that follows; the reference makes an image, or fails, too
  lenient   zimage makes an image where the reference fails
  WRONG     both make an image, and these differ
FAIL: a line is WRONG.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

from common import np, save_file, torch

from PIL import Image
from safetensors.torch import load_file

from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from diffusers import ZImagePipeline
from diffusers import ZImageTransformer2DModel
import transformers
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

NAN = float("nan")
REMOVED = object()
TRANSFORMER, TEXT, VAE = "transformer/config.json", "text_encoder/config.json", "vae/config.json"
SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
DEFAULT_NAME = "diffusion_pytorch_model"
PROMPT, WIDTH, HEIGHT, STEPS, SEED = "a red apple", 64, 48, 3, 3


def change(file, **fields):
    """Sets fields of a JSON file; REMOVED removes one."""

    def apply(folder):
        path = os.path.join(folder, file)
        with open(path) as f:
            config = json.load(f)
        for name, value in fields.items():
            config.pop(name, None)
            if value is not REMOVED:
                config[name] = value
        with open(path, "w") as f:
            json.dump(config, f)

    return apply


def together(*changes):
    return lambda folder: [apply(folder) for apply in changes]


def weights(component, rename, name=DEFAULT_NAME):
    """Writes the weights of a component again; rename maps (name, tensor) to any of those, or to None."""

    def apply(folder):
        path = os.path.join(folder, component, name + ".safetensors")
        tensors = dict(filter(None, (rename(k, v) for k, v in load_file(path).items())))
        save_file(tensors, path, metadata={"format": "pt"})

    return apply


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old_attention(name, tensor, shape=lambda t: t):
    for new, old in OLD_NAMES.items():
        if f".attentions.0.{new}." in name:
            name = name.replace(new, old)
            tensor = shape(tensor) if tensor.ndim == 2 else tensor
    return name, tensor.contiguous()


def shards(component, name, index=True, stale=False, keep=False, twice=False, beyond=False):
    """Splits the file into two shards; stale: another single file stays beside them."""

    def apply(folder):
        base = os.path.join(folder, component, name)
        tensors = load_file(base + ".safetensors")
        names = sorted(tensors)
        half = len(names) // 2
        parts = [{n: tensors[n] for n in names[:half]}, {n: tensors[n] for n in names[half:]}]
        files = [f"{name}-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
        where = {n: files[i] for i in range(2) for n in parts[i]}
        matrix = next(n for n in names[:half] if tensors[n].ndim == 2 and "encoder." not in n[:8])
        if twice:  # the second shard has another value of a tensor that the index places in the first
            parts[1][matrix] = tensors[matrix].flip(0).contiguous()
        if beyond:
            del where[matrix]
        for part, file in zip(parts, files):
            save_file(part, os.path.join(folder, component, file), metadata={"format": "pt"})
        if index:
            with open(base + ".safetensors.index.json", "w") as f:
                json.dump({"metadata": {"total_size": 1}, "weight_map": where}, f)
        if stale:
            save_file({n: (t * 0.5).contiguous() for n, t in tensors.items()}, base + ".safetensors", {"format": "pt"})
        elif not keep:
            os.remove(base + ".safetensors")

    return apply


def move(old, new):
    return lambda folder: os.rename(os.path.join(folder, old), os.path.join(folder, new))


def more_patches(folder):
    """A second pair of patch sizes, before the one that the pipeline calls."""
    change(TRANSFORMER, all_patch_size=[1, 2], all_f_patch_size=[1, 1])(folder)
    path = os.path.join(folder, "transformer", DEFAULT_NAME + ".safetensors")
    tensors = load_file(path)
    channels, dim = 4, tensors["x_pad_token"].shape[1]
    tensors["all_x_embedder.1-1.weight"] = torch.ones(dim, channels)
    tensors["all_x_embedder.1-1.bias"] = torch.ones(dim)
    for name in [n for n in tensors if n.startswith("all_final_layer.2-1.")]:
        tensor = tensors[name]
        rows = channels if ".linear." in name else tensor.shape[0]
        tensors[name.replace("2-1", "1-1")] = tensor[:rows].clone()
    save_file(tensors, path, metadata={"format": "pt"})


def both_names(folder):
    """The outdated name of a layer of the attention beside the new one, with another tensor."""
    path = os.path.join(folder, "vae", DEFAULT_NAME + ".safetensors")
    tensors = load_file(path)
    new = "decoder.mid_block.attentions.0.to_q.weight"
    tensors[new.replace("to_q", "query")] = tensors[new].flip(0).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def component(**fields):
    return change(INDEX, **fields)


def without_encoder(name, tensor):
    return None if name.startswith("encoder.") else (name, tensor)


CHANGES = {
    "unchanged": lambda folder: None,
    # the pipeline's class and its components
    "class img2img": change(INDEX, _class_name="ZImageImg2ImgPipeline"),
    "class inpaint": change(INDEX, _class_name="ZImageInpaintPipeline"),
    "class omni": change(INDEX, _class_name="ZImageOmniPipeline"),
    "class controlnet": change(INDEX, _class_name="ZImageControlNetPipeline"),
    "class made up": change(INDEX, _class_name="ZImageMadeUpPipeline"),
    "class list": change(INDEX, _class_name=["pipeline", "ZImagePipeline"]),
    "text_encoder Qwen3Model": component(text_encoder=["transformers", "Qwen3Model"]),
    "text_encoder Qwen2Model": component(text_encoder=["transformers", "Qwen2Model"]),
    "text_encoder AutoModel": component(text_encoder=["transformers", "AutoModel"]),
    "text_encoder null": component(text_encoder=[None, None]),
    "vae AutoencoderTiny": component(vae=["diffusers", "AutoencoderTiny"]),
    "vae null": component(vae=[None, None]),
    "transformer Flux": component(transformer=["diffusers", "FluxTransformer2DModel"]),
    "transformer library": component(transformer=["transformers", "ZImageTransformer2DModel"]),
    "scheduler Euler": component(scheduler=["diffusers", "EulerDiscreteScheduler"]),
    "scheduler Heun": component(scheduler=["diffusers", "FlowMatchHeunDiscreteScheduler"]),
    "tokenizer Qwen2TokenizerFast": component(tokenizer=["transformers", "Qwen2TokenizerFast"]),
    "tokenizer PreTrainedTokenizerFast": component(tokenizer=["transformers", "PreTrainedTokenizerFast"]),
    "tokenizer T5": component(tokenizer=["transformers", "T5Tokenizer"]),
    "index without vae": component(vae=REMOVED),
    "index with more": component(controlnet=["diffusers", "ZImageControlNetModel"], made_up=3),
    "index string": component(vae="AutoencoderKL"),
    # files of weights
    "transformer shards": shards("transformer", DEFAULT_NAME),
    "transformer stale file": shards("transformer", DEFAULT_NAME, stale=True),
    "vae stale file": shards("vae", DEFAULT_NAME, stale=True),
    "text_encoder shards": shards("text_encoder", "model"),
    "text_encoder stale file": shards("text_encoder", "model", stale=True),
    "transformer no index": shards("transformer", DEFAULT_NAME, index=False),
    "text_encoder no index": shards("text_encoder", "model", index=False),
    "transformer tensor twice": shards("transformer", DEFAULT_NAME, twice=True),
    "text_encoder tensor twice": shards("text_encoder", "model", twice=True),
    "transformer tensor beyond the index": shards("transformer", DEFAULT_NAME, beyond=True),
    "text_encoder tensor beyond the index": shards("text_encoder", "model", beyond=True),
    "transformer fp16": move(f"transformer/{DEFAULT_NAME}.safetensors", f"transformer/{DEFAULT_NAME}.fp16.safetensors"),
    "text_encoder fp16": move("text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors"),
    "vae named model": move(f"vae/{DEFAULT_NAME}.safetensors", "vae/model.safetensors"),
    "vae old names": weights("vae", old_attention),
    "vae old names, 1x1": weights("vae", lambda n, t: old_attention(n, t, lambda m: m[:, :, None, None])),
    "vae new names, 1x1": weights(
        "vae", lambda n, t: (n, t[:, :, None, None].contiguous() if "attentions" in n and t.ndim == 2 else t)
    ),
    "vae old names, shards": together(weights("vae", old_attention), shards("vae", DEFAULT_NAME)),
    # the scheduler's fields
    "shift null": change(SCHEDULER, shift=None),
    "shift null, dynamic": change(SCHEDULER, shift=None, use_dynamic_shifting=True),
    "shift missing": change(SCHEDULER, shift=REMOVED),
    "shift by default": change(SCHEDULER, _use_default_values=["shift"]),
    "shift NaN": change(SCHEDULER, shift=NAN),
    "base_shift null": change(SCHEDULER, base_shift=None),
    "max_shift missing, dynamic": change(SCHEDULER, max_shift=REMOVED, base_shift=REMOVED, use_dynamic_shifting=True),
    "shift absurd, dynamic": change(
        SCHEDULER, base_shift=-50, max_shift=50, base_image_seq_len=1, max_image_seq_len=2, use_dynamic_shifting=True
    ),
    "linear negative": change(
        SCHEDULER, time_shift_type="linear", base_shift=-0.9, max_shift=-0.8, use_dynamic_shifting=True
    ),
    "linear": change(SCHEDULER, time_shift_type="linear", use_dynamic_shifting=True),
    "dynamic": change(SCHEDULER, use_dynamic_shifting=True),
    "dynamic null": change(SCHEDULER, use_dynamic_shifting=None),
    "invert_sigmas null": change(SCHEDULER, invert_sigmas=None),
    "use_karras_sigmas null": change(SCHEDULER, use_karras_sigmas=None),
    "use_karras_sigmas": change(SCHEDULER, use_karras_sigmas=True),
    "shift_terminal 0": change(SCHEDULER, shift_terminal=0),
    "shift_terminal": change(SCHEDULER, shift_terminal=0.1),
    "time_shift_type null": change(SCHEDULER, time_shift_type=None),
    "num_train_timesteps null": change(SCHEDULER, num_train_timesteps=None),
    "scheduler unknown field": change(SCHEDULER, made_up=7),
    "scheduler class": change(SCHEDULER, _class_name="EulerDiscreteScheduler"),
    "scheduler without class": change(SCHEDULER, _class_name=REMOVED),
    # the text encoder's fields
    "rope yarn": change(TEXT, rope_parameters={"rope_type": "yarn", "rope_theta": 50000.0, "factor": 4.0}),
    "rope yarn, old word": change(TEXT, rope_parameters={"type": "yarn", "rope_theta": 50000.0, "factor": 4.0}),
    "rope linear, old word": change(TEXT, rope_parameters={"type": "linear", "rope_theta": 50000.0, "factor": 4.0}),
    "rope_scaling yarn": change(TEXT, rope_scaling={"rope_type": "yarn", "factor": 4.0}),
    "rope_scaling yarn, old word": change(TEXT, rope_scaling={"type": "yarn", "factor": 4.0}),
    "rope_scaling default": change(TEXT, rope_scaling={"rope_type": "default"}),
    "rope_scaling theta": change(TEXT, rope_scaling={"rope_type": "default", "rope_theta": 700.0}),
    "rope_scaling empty": change(TEXT, rope_scaling={}),
    "rope_theta alone": change(TEXT, rope_parameters=REMOVED, rope_theta=700.0),
    "rope_theta beside": change(TEXT, rope_theta=700.0),
    "rope nothing": change(TEXT, rope_parameters=REMOVED, rope_theta=REMOVED),
    "rope theta missing": change(TEXT, rope_parameters={"rope_type": "default"}, rope_theta=700.0),
    "rope type null": change(TEXT, rope_parameters={"rope_type": None, "rope_theta": 50000.0}),
    "rope theta null": change(TEXT, rope_parameters={"rope_type": "default", "rope_theta": None}),
    "rope per layer": change(
        TEXT, rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 700.0}}
    ),
    "partial_rotary_factor": change(TEXT, partial_rotary_factor=0.5),
    "partial_rotary_factor inside": change(
        TEXT, rope_parameters={"rope_type": "default", "rope_theta": 50000.0, "partial_rotary_factor": 0.5}
    ),
    "is_causal": change(TEXT, is_causal=False),
    "sliding": change(TEXT, use_sliding_window=True, sliding_window=4, max_window_layers=0, layer_types=REMOVED),
    "sliding unused": change(TEXT, use_sliding_window=False, sliding_window=4, max_window_layers=0),
    "layer_types short": change(TEXT, layer_types=["full_attention"]),
    "layer_types null": change(TEXT, layer_types=None),
    "layer_types string": change(TEXT, layer_types="full_attention"),
    "head_dim null": change(TEXT, head_dim=None),
    "head_dim missing": change(TEXT, head_dim=REMOVED),
    "kv heads null": change(TEXT, num_key_value_heads=None),
    "kv heads missing": change(TEXT, num_key_value_heads=REMOVED),
    "rms_norm_eps missing": change(TEXT, rms_norm_eps=REMOVED),
    "rms_norm_eps null": change(TEXT, rms_norm_eps=None),
    "rms_norm_eps large": change(TEXT, rms_norm_eps=0.1),
    "hidden_act swish": change(TEXT, hidden_act="swish"),
    "hidden_act missing": change(TEXT, hidden_act=REMOVED),
    "hidden_act null": change(TEXT, hidden_act=None),
    "hidden_size missing": change(TEXT, hidden_size=REMOVED),
    "model_type missing": change(TEXT, model_type=REMOVED),
    "model_type qwen2": change(TEXT, model_type="qwen2"),
    "text quantization_config": change(TEXT, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "text quantization_config null": change(TEXT, quantization_config=None),
    "transformers_weights": change(TEXT, transformers_weights="other.safetensors"),
    "text _use_default_values": change(TEXT, rms_norm_eps=0.1, _use_default_values=["rms_norm_eps"]),
    "vae both names": both_names,
    "text_encoder stripped": together(
        component(text_encoder=["transformers", "Qwen3Model"]),
        weights("text_encoder", lambda n, t: (n[6:], t) if n.startswith("model.") else None, "model"),
    ),
    "text unknown field": change(TEXT, made_up=7),
    "pad_token_id": change(TEXT, pad_token_id=5),
    "scale_attn": change(TEXT, attention_dropout=0.5, chunk_size_feed_forward=2, output_attentions=False),
    "text return_dict": change(TEXT, return_dict=False),
    "text adapter": lambda folder: open(os.path.join(folder, "text_encoder/adapter_config.json"), "w").write(
        '{"base_model_name_or_path": "x", "peft_type": "LORA"}'
    ),
    # the transformer's fields
    "patches": more_patches,
    "patch 1": change(TRANSFORMER, all_patch_size=[1]),
    "f_patch 2": change(TRANSFORMER, all_f_patch_size=[2]),
    "patch missing": change(TRANSFORMER, all_patch_size=REMOVED, all_f_patch_size=REMOVED),
    "patch null": change(TRANSFORMER, all_patch_size=None),
    "t_scale missing": change(TRANSFORMER, t_scale=REMOVED),
    "t_scale null": change(TRANSFORMER, t_scale=None),
    "t_scale by default": change(TRANSFORMER, t_scale=10.0, _use_default_values=["t_scale"]),
    "rope_theta missing": change(TRANSFORMER, rope_theta=REMOVED),
    "norm_eps missing": change(TRANSFORMER, norm_eps=REMOVED),
    "qk_norm missing": change(TRANSFORMER, qk_norm=REMOVED),
    "qk_norm false": change(TRANSFORMER, qk_norm=False),
    "axes_lens missing": change(TRANSFORMER, axes_lens=REMOVED),
    "n_kv_heads": change(TRANSFORMER, n_kv_heads=1),
    "n_kv_heads null": change(TRANSFORMER, n_kv_heads=None),
    "n_refiner_layers missing": change(TRANSFORMER, n_refiner_layers=REMOVED),
    "siglip_feat_dim missing": change(TRANSFORMER, siglip_feat_dim=REMOVED),
    "transformer quantization_config": change(
        TRANSFORMER, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    "transformer quantization_config null": change(TRANSFORMER, quantization_config=None),
    "transformer unknown field": change(TRANSFORMER, made_up=7),
    "transformer class": change(TRANSFORMER, _class_name="MadeUpModel"),
    "transformer class missing": change(TRANSFORMER, _class_name=REMOVED),
    # the VAE's fields
    "shift_factor null": change(VAE, shift_factor=None),
    "shift_factor missing": change(VAE, shift_factor=REMOVED),
    "scaling_factor missing": change(VAE, scaling_factor=REMOVED),
    "scaling_factor null": change(VAE, scaling_factor=None),
    "act_fn missing": change(VAE, act_fn=REMOVED),
    "act_fn swish": change(VAE, act_fn="swish"),
    "act_fn SiLU": change(VAE, act_fn="SiLU"),
    "layers_per_block missing": change(VAE, layers_per_block=REMOVED),
    "norm_num_groups missing": change(VAE, norm_num_groups=REMOVED),
    "out_channels missing": change(VAE, out_channels=REMOVED),
    "latent_channels missing": change(VAE, latent_channels=REMOVED),
    "up_block_types missing": change(VAE, up_block_types=REMOVED),
    "down_block_types missing": change(VAE, down_block_types=REMOVED),
    "sample_size pair": change(VAE, sample_size=[64, 64]),
    "sample_size missing": change(VAE, sample_size=REMOVED),
    "force_upcast": change(VAE, force_upcast=False),
    "latents_mean": change(VAE, latents_mean=[0.5] * 4, latents_std=[2.0] * 4),
    "use_post_quant_conv missing": change(VAE, use_post_quant_conv=REMOVED),
    "mid attention missing": change(VAE, mid_block_add_attention=REMOVED),
    "mid attention null": change(VAE, mid_block_add_attention=None),
    "vae quantization_config": change(VAE, quantization_config={"quant_method": "gguf"}),
    "vae unknown field": change(VAE, made_up=7),
}


TOKENIZER = "tokenizer/tokenizer_config.json"
# Of FLUX.2-klein: what it does not share with Z-Image, and what decides its images.
KLEIN_CHANGES = {
    "unchanged": lambda folder: None,
    # model_index.json
    "class kv": change(INDEX, _class_name="Flux2KleinKVPipeline"),
    "class kv, without is_distilled": change(INDEX, _class_name="Flux2KleinKVPipeline", is_distilled=REMOVED),
    "class inpaint": change(INDEX, _class_name="Flux2KleinInpaintPipeline"),
    "class flux2": change(INDEX, _class_name="Flux2Pipeline"),
    "is_distilled false": change(INDEX, is_distilled=False),
    "is_distilled missing": change(INDEX, is_distilled=REMOVED),
    "is_distilled null": change(INDEX, is_distilled=None),
    "is_distilled 1": change(INDEX, is_distilled=1),
    "is_distilled string": change(INDEX, is_distilled="false"),
    "vae AutoencoderKL": component(vae=["diffusers", "AutoencoderKL"]),
    "transformer ZImage": component(transformer=["diffusers", "ZImageTransformer2DModel"]),
    "text_encoder Qwen3Model": component(text_encoder=["transformers", "Qwen3Model"]),
    "tokenizer Qwen2TokenizerFast": component(tokenizer=["transformers", "Qwen2TokenizerFast"]),
    "index with more": component(made_up=3),
    # files of weights
    "transformer shards": shards("transformer", DEFAULT_NAME),
    "text_encoder shards": shards("text_encoder", "model"),
    "vae stale file": shards("vae", DEFAULT_NAME, stale=True),
    "vae old names": weights("vae", old_attention),
    "vae without encoder": weights("vae", without_encoder),
    # the transformer's fields
    **{
        f"{field} {'missing' if value is REMOVED else 'null'}": change(TRANSFORMER, **{field: value})
        for field in ["patch_size", "in_channels", "out_channels", "num_layers", "num_single_layers", "mlp_ratio",
                      "attention_head_dim", "num_attention_heads", "joint_attention_dim", "rope_theta", "eps",
                      "timestep_guidance_channels", "axes_dims_rope", "guidance_embeds"]
        for value in [REMOVED, None]
    },
    "patch_size 2": change(TRANSFORMER, patch_size=2),
    "out_channels 0": change(TRANSFORMER, out_channels=0),
    "out_channels the same": change(TRANSFORMER, out_channels=16),
    "out_channels other": change(TRANSFORMER, out_channels=8),
    "mlp_ratio 1.74": change(TRANSFORMER, mlp_ratio=1.74),
    "rope_theta 10000": change(TRANSFORMER, rope_theta=10000),
    "rope_theta 0": change(TRANSFORMER, rope_theta=0),
    "eps 0.1": change(TRANSFORMER, eps=0.1),
    "axes_dims_rope other": change(TRANSFORMER, axes_dims_rope=[4, 4, 4, 4]),
    "axes_dims_rope short": change(TRANSFORMER, axes_dims_rope=[4, 6, 6]),
    "axes_dims_rope sum": change(TRANSFORMER, axes_dims_rope=[2, 6, 4, 2]),
    "axes_dims_rope odd": change(TRANSFORMER, axes_dims_rope=[1, 7, 4, 4]),
    "guidance_embeds true": change(TRANSFORMER, guidance_embeds=True),
    "transformer _use_default_values": change(TRANSFORMER, eps=0.1, _use_default_values=["eps"]),
    "transformer unknown field": change(TRANSFORMER, made_up=7),
    # the VAE's fields
    **{
        f"vae {field} {'missing' if value is REMOVED else 'null'}": change(VAE, **{field: value})
        for field in ["act_fn", "block_out_channels", "down_block_types", "up_block_types", "latent_channels",
                      "layers_per_block", "mid_block_add_attention", "norm_num_groups", "patch_size", "sample_size",
                      "batch_norm_eps", "batch_norm_momentum", "use_quant_conv", "use_post_quant_conv", "in_channels",
                      "out_channels", "decoder_block_out_channels"]
        for value in [REMOVED, None]
    },
    "batch_norm_eps 0.5": change(VAE, batch_norm_eps=0.5),
    "vae patch_size 1": change(VAE, patch_size=[1, 1]),
    "vae patch_size number": change(VAE, patch_size=2),
    "vae scaling_factor": change(VAE, scaling_factor=0.5, shift_factor=0.5),
    "decoder channels": change(VAE, decoder_block_out_channels=[4, 8, 8, 8]),
    "vae force_upcast": change(VAE, force_upcast=True),
    # the text encoder's fields
    "tie_word_embeddings": change(TEXT, tie_word_embeddings=False),
    "27 layers": change(TEXT, num_hidden_layers=27, layer_types=["full_attention"] * 27),
    "rope theta": change(TEXT, rope_parameters={"rope_type": "default", "rope_theta": 700.0}),
    "rms_norm_eps": change(TEXT, rms_norm_eps=0.1),
    "is_causal": change(TEXT, is_causal=False),
    "text pad_token_id": change(TEXT, pad_token_id=5),
    # the tokenizer: prompts are padded
    "padding_side": change(TOKENIZER, padding_side="left"),
    "pad_token": change(TOKENIZER, pad_token="<|im_end|>"),
    "pad_token missing": change(TOKENIZER, pad_token=REMOVED),
    "pad_token null": change(TOKENIZER, pad_token=None),
    "pad_token new": change(TOKENIZER, pad_token="made up"),
    "model_max_length": change(TOKENIZER, model_max_length=16),
    "template without thinking": change(TOKENIZER, chat_template="{{ messages[0].content }}"),
    # the scheduler's fields: the pipeline gives a shift of its own
    "static": change(SCHEDULER, use_dynamic_shifting=False),
    "shift": change(SCHEDULER, shift=1.0),
    "max_shift": change(SCHEDULER, max_shift=9.0, base_shift=-3.0),
    "linear": change(SCHEDULER, time_shift_type="linear"),
    "shift_terminal": change(SCHEDULER, shift_terminal=0.1),
    "invert_sigmas": change(SCHEDULER, invert_sigmas=True),
    "use_karras_sigmas": change(SCHEDULER, use_karras_sigmas=True),
    "stochastic_sampling": change(SCHEDULER, stochastic_sampling=True),
    "num_train_timesteps": change(SCHEDULER, num_train_timesteps=500),
}


def is_klein(folder):
    with open(os.path.join(folder, INDEX)) as f:
        return "Klein" in json.load(f)["_class_name"]


def text_encoder_of(folder):
    """transformers 4 does not know rope_parameters: the number moves to its field rope_theta."""
    with open(os.path.join(folder, "config.json")) as f:
        fields = json.load(f)
    if transformers.__version__.startswith("4."):
        fields["rope_theta"] = fields.pop("rope_parameters")["rope_theta"]
    return Qwen3ForCausalLM.from_pretrained(folder, config=Qwen3Config.from_dict(fields))


def save_again(model, folder):
    """Saves the folder by the installed versions."""
    if is_klein(model):
        Flux2KleinPipeline.from_pretrained(model, dtype=torch.float32).save_pretrained(folder)
        return
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(model + "/scheduler"),
        vae=AutoencoderKL.from_pretrained(model + "/vae"),
        text_encoder=text_encoder_of(model + "/text_encoder"),
        tokenizer=Qwen2TokenizerFast.from_pretrained(model + "/tokenizer"),
        transformer=ZImageTransformer2DModel.from_pretrained(model + "/transformer"),
    ).save_pretrained(folder)


def by_reference(folder, klein):
    """[H, W, 3] bytes, or the reference's error. The program guides by default as the pipeline of klein does."""
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(SEED)
        settings = dict(height=HEIGHT, width=WIDTH, num_inference_steps=STEPS)
        settings |= {} if klein else {"guidance_scale": 0.0}
        image = pipe(prompt=PROMPT, generator=generator, output_type="np", **settings).images[0]
        if np.isnan(image).any():
            return "the image is not a number"
        return (image * 255).round().astype("uint8")
    except Exception as e:
        return f"{type(e).__name__}: {e}".replace("\n", " ")[:160]


def by_zimage(zimage, folder):
    path = folder + ".png"
    words = [zimage, "generate", PROMPT, "-m", folder, "-o", path, "--seed", SEED, "--steps", STEPS]
    words += ["-W", WIDTH, "-H", HEIGHT, "--compute", "f32", "--quiet"]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    said = done.stderr.replace(os.path.dirname(folder) + "/", "").strip().replace("\n", " | ")
    return (np.asarray(Image.open(path).convert("RGB")) if done.returncode == 0 else None), said


def compare(reference, image, said):
    if image is None:
        return "refused", f"{said}   [reference: {reference if isinstance(reference, str) else 'an image'}]"
    if isinstance(reference, str):
        return "lenient", f"{said}   [reference: {reference}]"
    worst = np.abs(reference.astype(int) - image.astype(int)).max()
    return ("equal" if worst <= 1 else "WRONG"), f"by at most {worst}   {said}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--zimage", help="the program")
    p.add_argument("--save", help="only save the model by the installed versions, to this folder")
    p.add_argument("--as-is", action="store_true", help="do not save the model again")
    p.add_argument("--model", default=os.path.join(os.path.dirname(__file__), "../../tests/golden/tiny"))
    p.add_argument("--only", default="", help="only changes whose name holds this word")
    a = p.parse_args()
    if a.save:
        save_again(a.model, a.save)
        return
    if not a.zimage:
        p.error("--zimage is missing")
    wrong = 0
    with tempfile.TemporaryDirectory() as top:
        saved = os.path.join(top, "saved")
        if a.as_is:
            shutil.copytree(a.model, saved)
        else:
            save_again(a.model, saved)
        klein = is_klein(saved)
        for name, apply in (KLEIN_CHANGES if klein else CHANGES).items():
            if a.only not in name:
                continue
            folder = os.path.join(top, "model")
            shutil.copytree(saved, folder)
            apply(folder)
            verdict, words = compare(by_reference(folder, klein), *by_zimage(os.path.abspath(a.zimage), folder))
            print(f"{verdict:8} {name:38} {words}", flush=True)
            wrong += verdict == "WRONG"
            shutil.rmtree(folder)
    print("FAIL" if wrong else "PASS")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
