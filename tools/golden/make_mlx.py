"""mlx/: model folders and tensors packed by MLX's own quantiser, and the outputs of MLX and diffusers for them.

mlx/uqer1244   transformer/ and text_encoder/ in the layout of uqer1244/MLX-z-image: 4 bits, groups of 32
mlx/mflux      transformer/, text_encoder/ and vae/ as mflux saves them: 8 bits, groups of 64, shards; also the
               config.json files, which mflux leaves out
mlx/klein      transformer/ and vae/ of FLUX.2-klein as mflux saves them: 4 bits, groups of 64; with config.json files
mlx/tensors.safetensors    every bits x group x dtype: packed numbers, MLX's dequantised values and products
mlx/pictures.safetensors   images by diffusers' pipelines with each folder's weights, dequantised by MLX in float32

The first two folders begin with the same random networks. A matrix whose rows are no whole number of groups stays float, as with
a class_predicate that says so. The rest of a model (the tokenizer, the first folder's vae, the text encoder of klein) comes from tiny/ and tiny-klein/.
"""

import argparse
import json
import os
import shutil

from common import fill, load_pipeline, randn, save, text_tensor, torch, trace

import mlx.core as mx
import numpy as np
import make_klein
from diffusers import AutoencoderKL, Flux2KleinPipeline, Flux2Transformer2DModel, ZImageTransformer2DModel
from PIL import Image
from transformers import Qwen3Config, Qwen3ForCausalLM

mx.set_default_device(mx.cpu)

BITS, GROUPS = (1, 2, 3, 4, 5, 6, 8), (32, 64, 128)
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
PROMPT = "a red apple on a wooden table"


def to_mlx(tensor, dtype=mx.float32):
    return mx.array(tensor.detach().float().contiguous().numpy()).astype(dtype)


def to_torch(array):
    if array.dtype == mx.bfloat16:
        return to_torch(array.astype(mx.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def dequantised(packed, scales, biases, group, bits):
    """MLX's dequantize, always in float32."""
    return mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits)


# ---- tensors


def make_tensors(out):
    rows, columns = 2, 128
    x = to_mlx(randn("mlx.x", 2, columns))
    tensors = {"x": to_torch(x)}
    for bits in BITS:
        for group in GROUPS:
            for kind, dtype in DTYPES.items():
                name = f"b{bits}.g{group}.{kind}"
                w = to_mlx(randn(name, rows, columns), dtype)
                packed, scales, biases = mx.quantize(w, group_size=group, bits=bits)
                assert scales.dtype == dtype and packed.shape == (rows, columns * bits // 32)
                values = dequantised(packed, scales, biases, group, bits)
                product = mx.quantized_matmul(
                    x, packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits
                )
                check_rounding(packed, scales, biases, group, bits, values)
                tensors |= {
                    f"{name}.weight": to_torch(packed),
                    f"{name}.scales": to_torch(scales),
                    f"{name}.biases": to_torch(biases),
                    f"{name}.values": to_torch(values),
                    f"{name}.product": to_torch(product),
                }
    save(f"{out}/mlx/tensors.safetensors", tensors)


def check_rounding(packed, scales, biases, group, bits, values):
    """MLX's own arithmetic: scale * q rounded, then + bias rounded, each to the dtype of the scales."""
    stream = np.unpackbits(np.array(packed).view(np.uint8), axis=1, bitorder="little")
    q = (stream.reshape(len(stream), -1, bits) << np.arange(bits)).sum(-1).astype(np.float32)
    scale, bias = (np.repeat(np.array(a.astype(mx.float32)), group, 1) for a in (scales, biases))
    assert (np.array(values) == scale * q + bias).all()
    product = mx.array(scale * q).astype(scales.dtype)
    own = mx.dequantize(packed, scales, biases, group_size=group, bits=bits)
    assert own.dtype == scales.dtype and mx.array_equal(own, product + mx.array(bias).astype(scales.dtype))


# ---- networks


def make_transformer():
    model = ZImageTransformer2DModel(
        in_channels=4,
        dim=64,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=64,
        rope_theta=300.0,
        axes_dims=[8, 12, 12],
        axes_lens=[640, 64, 64],
    )
    return fill(model, 1.0, {"t_embedder.mlp.2": 1.5, "adaLN_modulation.0": 0.7})


def make_text_encoder(vocab_size):
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-6,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        tie_word_embeddings=True,
    )
    return fill(Qwen3ForCausalLM(config))


def make_vae():
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 12, 12),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.47,
        shift_factor=0.093,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return fill(model, 1.0, {"decoder.conv_out": 0.6})


def pack(name, w, bits, group):
    """The stored tensors of an MLX array. MLX's quantiser packs a matrix whose rows hold whole groups."""
    if w.ndim != 2 or not name.endswith(".weight") or w.shape[1] % group != 0:
        return {name: w}
    packed, scales, biases = mx.quantize(w, group_size=group, bits=bits)
    stem = name.removesuffix("weight")
    return {name: packed, f"{stem}scales": scales, f"{stem}biases": biases}


def quantise(model, dtype, bits, group):
    """Packs the model's tensors; the model itself gets the dequantised values in float32."""
    stored, state = {}, model.state_dict()
    for name, value in list(state.items()):
        if name.startswith("lm_head."):
            continue  # tied
        w = to_mlx(value, dtype)
        parts = pack(name, w, bits, group)
        if len(parts) > 1:
            w = dequantised(*parts.values(), group, bits)
        stored |= parts
        state[name].copy_(to_torch(w.astype(mx.float32)))
    return stored


# ---- folders


def uqer1244_name(name):
    for old, new in (
        ("t_embedder.mlp.0", "t_embedder.linear1"),
        ("t_embedder.mlp.2", "t_embedder.linear2"),
        ("all_x_embedder.2-1", "x_embedder"),
        ("cap_embedder.0", "cap_embedder.layers.0"),
        ("cap_embedder.1", "cap_embedder.layers.1"),
        ("all_final_layer.2-1", "final_layer"),
        ("adaLN_modulation.1", "adaLN_modulation.layers.1"),
        ("attention.to_out.0", "attention.to_out"),
        ("adaLN_modulation.0", "adaLN_modulation"),
    ):
        name = name.replace(old, new)
    return name


def make_uqer1244(folder, transformer, text_encoder):
    """uqer1244's folder; its converters leave float16 scales in the transformer, float32 in the text encoder."""
    for part, model, dtype, rename in (
        ("transformer", transformer, mx.float16, uqer1244_name),
        ("text_encoder", text_encoder, mx.float32, str),
    ):
        os.makedirs(f"{folder}/{part}")
        stored = quantise(model, dtype, 4, 32)
        mx.save_safetensors(f"{folder}/{part}/model.safetensors", {rename(n): v for n, v in stored.items()})
    transformer.save_config(f"{folder}/transformer")
    with open(f"{folder}/transformer/config.json", encoding="utf-8") as f:
        config = json.load(f)
    config["nheads"] = config["n_heads"]
    with open(f"{folder}/transformer/config.json", "w", encoding="utf-8") as f:
        json.dump(config, f, indent=4)
    text_encoder.config.save_pretrained(f"{folder}/text_encoder")


def mflux_name(name):
    for old, new in (
        ("t_embedder.mlp.0", "t_embedder.linear1"),
        ("t_embedder.mlp.2", "t_embedder.linear2"),
        ("all_final_layer.2-1.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.0"),
        ("encoder.conv_in", "encoder.conv_in.conv2d"),
        ("encoder.conv_out", "encoder.conv_out.conv2d"),
        ("decoder.conv_in", "decoder.conv_in.conv"),
        ("decoder.conv_out", "decoder.conv_out.conv"),
        ("coder.conv_norm_out", "coder.conv_norm_out.norm"),
    ):
        if old in name:
            return name.replace(old, new)
    return name.removeprefix("model.")


def save_mflux(folder, stored, bits):
    """The tensors of a component in two shards."""
    os.makedirs(folder)
    metadata = {"quantization_level": str(bits), "mflux_version": "0.17.4"}
    stored = {n: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for n, v in stored.items()}
    names = list(stored)
    half = len(names) // 2
    shards = {"0.safetensors": names[:half], "1.safetensors": names[half:]}
    for file, inside in shards.items():
        mx.save_safetensors(f"{folder}/{file}", {n: mx.contiguous(stored[n]) for n in inside}, metadata)
    index = {"metadata": metadata, "weight_map": {n: file for file, inside in shards.items() for n in inside}}
    with open(f"{folder}/model.safetensors.index.json", "w", encoding="utf-8") as f:
        json.dump(index, f, indent=2)


def make_mflux(folder, transformer, text_encoder, vae):
    for part, model in (("transformer", transformer), ("text_encoder", text_encoder), ("vae", vae)):
        stored = {mflux_name(n): v for n, v in quantise(model, mx.bfloat16, 8, 64).items()}
        # No reader reads the encoder: two tensors of it are enough here.
        stored = {n: v for n, v in stored.items() if not n.startswith("encoder.") or "conv_in" in n}
        save_mflux(f"{folder}/{part}", stored, 8)
    transformer.save_config(f"{folder}/transformer")
    text_encoder.config.save_pretrained(f"{folder}/text_encoder")
    vae.save_config(f"{folder}/vae")


def mflux_klein_name(name):
    if name.startswith("transformer_blocks."):
        name = name.replace("attn.to_out.0", "attn.to_out")
    name = name.replace("attentions.0.to_out.0", "attentions.0.to_out")
    return name.replace("time_guidance_embed.timestep_embedder", "time_guidance_embed")


def make_klein_transformer():
    model = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=36,
        timestep_guidance_channels=32,
        mlp_ratio=1.0,
        axes_dims_rope=(2, 6, 4, 4),
        rope_theta=500,
        guidance_embeds=False,
    )
    return fill(model, 1.0, {"modulation": 0.7, "timestep_embedder.linear_2": 1.5})


def make_mflux_klein(folder, transformer, vae):
    for part, model in (("transformer", transformer), ("vae", vae)):
        stored = {mflux_klein_name(n): v for n, v in quantise(model, mx.bfloat16, 4, 64).items()}
        stored.pop("bn.num_batches_tracked", None)  # mflux has no such number
        save_mflux(f"{folder}/{part}", stored, 4)
        model.save_config(f"{folder}/{part}")


def klein_picture(pipe, steps, seed):
    """With a reference, so that the encoder is read, too."""
    size = (80, 64)
    image = Image.fromarray(make_klein.picture(*size))
    after, rgb = make_klein.run(
        pipe, seed, prompt=PROMPT, image=image, width=48, height=64, num_inference_steps=steps, guidance_scale=1.0
    )
    print(f"klein: latents std {after[-1].std():.3f}, rgb {rgb.shape} std {rgb.std():.1f}")
    return {
        "klein.prompt": text_tensor(PROMPT),
        "klein.settings": torch.tensor([48, 64, steps], dtype=torch.int32),
        "klein.seed": torch.tensor([seed], dtype=torch.uint64),
        "klein.images": torch.tensor([size], dtype=torch.int32),
        "klein.latents": after[-1:],
        "klein.rgb": rgb,
    }


def picture(pipe, name, width, height, steps, seed):
    noise, after, rgb = trace(pipe, PROMPT, width, height, steps, seed)
    print(f"{name}: latents std {after[-1].std():.3f}, rgb {rgb.shape} std {rgb.std():.1f}")
    return {
        f"{name}.settings": torch.tensor([width, height, steps], dtype=torch.int32),
        f"{name}.seed": torch.tensor([seed], dtype=torch.uint64),
        f"{name}.latents": after[-1:],
        f"{name}.rgb": rgb,
    }


def make(out):
    shutil.rmtree(f"{out}/mlx", ignore_errors=True)
    os.makedirs(f"{out}/mlx")
    make_tensors(out)
    pipe = load_pipeline(f"{out}/tiny")
    vocab_size = pipe.text_encoder.config.vocab_size
    tensors = {"prompt": text_tensor(PROMPT)}
    pipe.transformer, pipe.text_encoder = make_transformer(), make_text_encoder(vocab_size)
    make_uqer1244(f"{out}/mlx/uqer1244", pipe.transformer, pipe.text_encoder)
    tensors |= picture(pipe, "uqer1244", 64, 48, 4, 42)
    pipe.transformer, pipe.text_encoder, pipe.vae = make_transformer(), make_text_encoder(vocab_size), make_vae()
    make_mflux(f"{out}/mlx/mflux", pipe.transformer, pipe.text_encoder, pipe.vae)
    tensors |= picture(pipe, "mflux", 48, 64, 4, 7)
    pipe = make_klein.load(Flux2KleinPipeline, f"{out}/tiny-klein")
    pipe.transformer = make_klein_transformer()
    make_mflux_klein(f"{out}/mlx/klein", pipe.transformer, pipe.vae)
    tensors |= klein_picture(pipe, 4, 11)
    save(f"{out}/mlx/pictures.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
