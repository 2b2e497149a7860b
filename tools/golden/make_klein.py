"""tiny-klein/, a random FLUX.2-klein folder, and klein.safetensors: whole runs of the pipelines of FLUX.2-klein."""

import argparse
import json
import os
import shutil
import tempfile

from common import fill, np, randn, save, text_tensor, torch

from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinInpaintPipeline,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu, retrieve_timesteps
from PIL import Image
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

PROMPT = "a red apple on a wooden table"
LONG = "a red apple and a blue cat, 红苹果 und ein Mädchen 🐱, " * 40  # > 512 tokens: truncated on the right
TEXT = {"en": PROMPT, "zh": "红苹果和一只猫，蓝色背景", "empty": "", "long": LONG}
DISTILLED = {  # name: prompt, width, height, steps, seed
    "square": ("a red apple on a wooden table", 64, 64, 4, 42),
    "wide": ("Ein roter Apfel, déjà vu 🐱 ", 112, 80, 4, 1),
    "tall": ("  two  spaces\nand a line", 32, 96, 4, 2**63 + 5),
    "one": ("a cat", 16, 16, 3, 0),
}
BASE = {  # the same, and the guidance scale
    "base.square": ("a red apple on a wooden table", 48, 48, 5, 42, 4.0),
    "base.wide": ("a cat and a dog", 80, 48, 5, 7, 2.5),
    "base.tall": ("蓝色背景", 32, 64, 6, 3, 4.0),
    "base.unguided": ("a cat and a dog", 80, 48, 5, 7, 1.0),
}
REFERENCES = {  # prompt, width and height or None, steps, seed, sizes of the references
    "references.size": ("a red apple", None, None, 4, 42, [(90, 70)]),
    "references.one": ("a red apple", 48, 80, 4, 5, [(64, 100)]),
    "references.two": ("a cat and a dog", 64, 32, 4, 6, [(90, 70), (64, 100)]),
    "references.order": ("a cat and a dog", 64, 32, 4, 6, [(64, 100), (90, 70)]),
}
INPAINT = {  # prompt, size of image and mask, strength, steps, seed, guidance scale, size of the reference or None
    "inpaint.default": ("a red apple", (75, 58), 0.8, 5, 42, 1.0, None),
    "inpaint.half": ("a cat", (64, 80), 0.5, 4, 9, 1.0, None),
    "inpaint.full": ("a cat", (100, 33), 1.0, 3, 10, 1.0, None),
    "inpaint.reference": ("a red apple", (75, 58), 0.8, 5, 42, 1.0, (90, 70)),
    "inpaint.base": ("a red apple", (50, 66), 0.7, 5, 43, 3.0, (64, 100)),
}
FITTED = [(1500, 1100), (2100, 300), (64, 512), (1030, 1024), (77, 65)]  # sizes of references
STEPS = (1, 2, 3, 4, 5, 8, 20, 28, 50, 200)
TOKENS = (1, 16, 255, 1024, 2304, 4096, 4300, 4301, 8192, 16384)


# ---- the folder ------------------------------------------------------------------------------------------------------


def make_text_encoder(vocab_size):
    """28 layers: the pipeline reads the output of layer 27, and a 28th is what keeps it from being the last one."""
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rms_norm_eps=1e-6,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        tie_word_embeddings=True,
        bos_token_id=vocab_size - 5,
        eos_token_id=vocab_size - 3,
    )
    return fill(Qwen3ForCausalLM(config))


def make_transformer():
    model = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=36,
        timestep_guidance_channels=32,
        mlp_ratio=1.7,
        axes_dims_rope=(2, 6, 4, 4),
        rope_theta=500,
        guidance_embeds=False,
    )
    # Sharp attention, so that a few tokens of references are noticed beside 512 of text.
    sharp = {"norm_q": 2.0, "norm_k": 2.0, "norm_added_q": 2.0, "norm_added_k": 2.0}
    return fill(model, 1.0, {"modulation": 0.7, "timestep_embedder.linear_2": 1.5, **sharp})


def make_vae():
    model = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        batch_norm_eps=1e-3,
    )
    model.bn.running_mean.copy_(0.3 * randn("klein.mean", 16))
    model.bn.running_var.copy_(torch.exp(0.5 * randn("klein.variance", 16)))
    return fill(model, 1.0, {"decoder.conv_out": 0.6})


def make_folder(out):
    """Saved by the pipeline itself, in bf16, since the file would be twice as large in float32."""
    folder = f"{out}/tiny-klein"
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(f"{out}/tiny/tokenizer")
    pipe = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
        vae=make_vae(),
        text_encoder=make_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=make_transformer(),
        is_distilled=True,
    )
    pipe.to(torch.bfloat16).save_pretrained(folder)
    os.remove(f"{folder}/text_encoder/generation_config.json")
    shutil.rmtree(f"{folder}/tokenizer")
    shutil.copytree(f"{out}/tiny/tokenizer", f"{folder}/tokenizer")


# ---- inputs ----------------------------------------------------------------------------------------------------------


def picture(width, height):
    """An image that a formula makes, since large ones can't be stored (tests/test_klein.c has the same formula)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    waves = [(x * 3 + y * 5) // 2, x * y // 7 + 40, (x - y) * (x - y) // 11]
    return np.stack([np.abs(w % 510 - 255) for w in waves], axis=-1).astype(np.uint8)


def mask_of(width, height):
    """White on the right, with a slanted, uneven edge."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    return np.clip((x * 2 + y - width) * 9 + ((x * 5 + y * 3) % 16 - 8) * 40, 0, 255).astype(np.uint8)


# ---- runs ------------------------------------------------------------------------------------------------------------


def load(cls, folder, dtype=torch.float32, **kwargs):
    pipe = cls.from_pretrained(folder, dtype=dtype, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, seed, **kwargs):
    """The latents after each step [steps, C, h, w], and the image."""
    after = []

    def on_step(pipe, i, t, tensors):
        after.append(tensors["latents"][0].float().clone())
        return tensors

    image = pipe(
        generator=torch.Generator("cpu").manual_seed(seed), callback_on_step_end=on_step, output_type="pil", **kwargs
    ).images[0]
    image = np.array(image)
    rows, columns = image.shape[0] // 16, image.shape[1] // 16
    return torch.stack([a.T.reshape(-1, rows, columns) for a in after]), image


def result(tensors, name, prompt, seed, steps, ran):
    after, image = ran
    tensors |= {
        f"{name}.prompt": text_tensor(prompt),
        f"{name}.settings": torch.tensor([image.shape[1], image.shape[0], steps], dtype=torch.int32),
        f"{name}.seed": torch.tensor([seed], dtype=torch.uint64),
        f"{name}.latents": after[-1:],
        f"{name}.rgb": image,
    }
    print(f"{name}: {image.shape}, latents std {after[-1].std():.3f}, rgb std {image.std():.1f}")


def distilled(pipe, tensors, prefix=""):
    for name, (prompt, width, height, steps, seed) in DISTILLED.items():
        ran = run(pipe, seed, prompt=prompt, width=width, height=height, num_inference_steps=steps, guidance_scale=1.0)
        result(tensors, prefix + name, prompt, seed, steps, ran)


def references(pipe, tensors, prefix="", **kwargs):
    for name, (prompt, width, height, steps, seed, sizes) in REFERENCES.items():
        images = [Image.fromarray(picture(*size)) for size in sizes]
        ran = run(
            pipe, seed, prompt=prompt, image=images, width=width, height=height, num_inference_steps=steps, **kwargs
        )
        result(tensors, prefix + name, prompt, seed, steps, ran)
        tensors[f"{prefix}{name}.images"] = torch.tensor(sizes, dtype=torch.int32)


def inpaint(pipes, tensors):
    for name, (prompt, size, strength, steps, seed, guidance, reference) in INPAINT.items():
        ran = run(
            pipes[guidance > 1], seed, prompt=prompt, image=Image.fromarray(picture(*size)),
            mask_image=Image.fromarray(mask_of(*size)), strength=strength, num_inference_steps=steps,
            guidance_scale=guidance, image_reference=reference and Image.fromarray(picture(*reference)),
        )  # fmt: skip
        result(tensors, name, prompt, seed, steps, ran)
        sizes = [size] + ([reference] if reference else [])
        tensors[f"{name}.images"] = torch.tensor(sizes, dtype=torch.int32)
        tensors[f"{name}.strength"] = torch.tensor([strength], dtype=torch.float64)
        if guidance > 1:
            tensors[f"{name}.guidance"] = torch.tensor([guidance], dtype=torch.float32)


def text_features(pipe, tensors):
    for name, prompt in TEXT.items():
        templated = pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ids = pipe.tokenizer(templated, max_length=512, truncation=True).input_ids
        embeds = pipe.encode_prompt(prompt)[0][0]
        rows = torch.unique(torch.tensor([0, 5, len(ids) - 1, min(len(ids), 511), 100, 300, 511]))
        tensors |= {
            f"text.{name}.prompt": text_tensor(prompt),
            f"text.{name}.ids": torch.tensor(ids, dtype=torch.int32),
            f"text.{name}.rows": rows.to(torch.int32),
            f"text.{name}.features": embeds[rows],
        }
        print(f"text.{name}: {len(ids)} tokens, std {embeds.std():.3f}")


def fitted(pipe, tensors):
    """References and start images as the pipelines fit them: every 997th byte."""
    processor = pipe.image_processor
    for width, height in FITTED:
        image = Image.fromarray(picture(width, height))
        processor.check_image_input(image)
        scaled = processor._resize_if_exceeds_area(image)
        w, h = (side // 16 * 16 for side in scaled.size)
        for role, mode in (("reference", "crop"), ("start", "default")):
            values = processor.preprocess(scaled, height=h, width=w, resize_mode=mode)[0]
            pixels = ((values + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
            assert pixels.shape == (h, w, 3)
            name = f"fitted.{role}.{width}x{height}"
            tensors[f"{name}.size"] = torch.tensor([w, h], dtype=torch.int32)
            tensors[f"{name}.bytes"] = pixels.flatten()[::997].clone()


def masks(pipe, tensors):
    for (width, height), (w, h) in (((75, 58), (64, 48)), ((64, 80), (64, 80)), ((33, 70), (96, 64))):
        mask = pipe.mask_processor.preprocess(Image.fromarray(mask_of(width, height)), height=h, width=w)
        weights = pipe.prepare_mask_latents(mask, 1, 1, h, w, torch.float32, "cpu")
        tensors[f"mask.{width}x{height}.{w}x{h}"] = weights[0, :, 0].reshape(h // 16, w // 16)


def schedules(tensors):
    """As Flux2KleinPipeline.__call__ does it."""
    for kind in ("exponential", "linear", "static"):
        scheduler = FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=kind != "static", time_shift_type="linear" if kind == "linear" else "exponential"
        )
        for tokens in TOKENS if kind == "exponential" else (1024,):
            for steps in STEPS if kind == "exponential" else (4, 50):
                mu = compute_empirical_mu(image_seq_len=tokens, num_steps=steps)
                sigmas = np.linspace(1.0, 1 / steps, steps)
                retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=mu)
                name = f"schedule.{kind}.tokens{tokens}.steps{steps}"
                if steps <= 50:
                    tensors[f"{name}.sigmas"] = scheduler.sigmas.clone()
                tensors[f"{name}.mu"] = np.array([mu], np.float64)


def bf16(folder, tensors):
    """A run in bf16, with the timesteps that its transformer sees, in float32."""
    pipe = load(Flux2KleinPipeline, folder, torch.bfloat16)
    seen = []
    embed = pipe.transformer.time_guidance_embed
    embed.register_forward_pre_hook(lambda module, args: seen.append(args[0].float()))
    distilled_one = DISTILLED["square"]
    prompt, width, height, steps, seed = distilled_one
    ran = run(pipe, seed, prompt=prompt, width=width, height=height, num_inference_steps=steps, guidance_scale=1.0)
    result(tensors, "bf16.square", prompt, seed, steps, ran)
    tensors["bf16.square.timesteps"] = torch.cat(seen)
    tensors["bf16.square.sigmas"] = pipe.scheduler.sigmas.clone()
    noise = torch.randn(
        (1, 16, height // 16, width // 16), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.bfloat16
    )
    tensors["bf16.square.noise"] = noise


def variant(folder, changes):
    """A copy of the folder with another model_index.json."""
    other = tempfile.mkdtemp()
    shutil.copytree(folder, other, dirs_exist_ok=True)
    with open(f"{other}/model_index.json") as f:
        index = json.load(f)
    index |= changes
    if index["_class_name"] == "Flux2KleinKVPipeline":
        del index["is_distilled"]
    with open(f"{other}/model_index.json", "w") as f:
        json.dump(index, f)
    return other


def make(out):
    make_folder(out)
    folder, tensors = f"{out}/tiny-klein", {}
    pipe = load(Flux2KleinPipeline, folder)
    text_features(pipe, tensors)
    distilled(pipe, tensors)
    references(pipe, tensors, guidance_scale=1.0)
    fitted(pipe, tensors)
    schedules(tensors)

    base_folder = variant(folder, {"is_distilled": False})
    base = load(Flux2KleinPipeline, base_folder)
    for name, (prompt, width, height, steps, seed, guidance) in BASE.items():
        kwargs = dict(prompt=prompt, width=width, height=height, num_inference_steps=steps, guidance_scale=guidance)
        result(tensors, name, prompt, seed, steps, run(base, seed, **kwargs))
        tensors[f"{name}.guidance"] = torch.tensor([guidance], dtype=torch.float32)
    prompt, _, _, steps, seed, sizes = REFERENCES["references.one"]
    images = [Image.fromarray(picture(*size)) for size in sizes]
    kwargs = dict(prompt=prompt, image=images, num_inference_steps=steps, guidance_scale=3.0)
    result(tensors, "base.reference", prompt, seed, steps, run(base, seed, **kwargs))
    tensors["base.reference.images"] = torch.tensor(sizes, dtype=torch.int32)
    tensors["base.reference.guidance"] = torch.tensor([3.0])

    kv_folder = variant(folder, {"_class_name": "Flux2KleinKVPipeline"})
    kv = load(Flux2KleinKVPipeline, kv_folder)
    references(kv, tensors, "kv.")

    pipes = [load(Flux2KleinInpaintPipeline, folder), load(Flux2KleinInpaintPipeline, base_folder)]
    inpaint(pipes, tensors)
    masks(pipes[0], tensors)
    bf16(folder, tensors)
    for temporary in (base_folder, kv_folder):
        shutil.rmtree(temporary)
    save(f"{out}/klein.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
