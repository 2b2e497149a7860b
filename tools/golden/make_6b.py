"""Writes a random bf16 model folder of the published Z-Image-Turbo shapes (no real weights), for load and memory tests.

    python tools/golden/make_6b.py OUT_DIR --tokenizer DIR                 12.3 GB transformer, 8 GB text encoder, VAE
    python tools/golden/make_6b.py OUT_DIR --no-text-encoder --layers 2    smaller
    python tools/golden/make_6b.py OUT_DIR --tokenizer DIR --bits 4        matrices in groups as MLX stores them: 6 GB

Names and shapes come from the libraries' own classes. Several threads stream the data, so memory stays near 1 GB. The
values are normal: matrices scaled by 1/sqrt(inputs), norm weights near 1. Each tensor is cut from one long random block
at a random place, which is fast. Packed numbers are random bits; a group's bias centres them.
"""

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from common import np, torch

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM

BLOCK = 16_777_259  # a prime: rows of a large matrix never repeat


def standard(name, shape):
    """The deviation and the mean of a tensor's numbers."""
    if len(shape) < 2:
        return (0.1, 1.0) if name.endswith("weight") else (0.02, 0.0)
    return (1.0 if "pad_token" in name else 0.05 if "embed_tokens" in name else float(np.prod(shape[1:])) ** -0.5), 0.0


def stored(name, shape, bits, group):
    """The stored parts of a tensor: (name, shape, deviation, mean). Without a deviation the part is random bits."""
    deviation, mean = standard(name, shape)
    if not bits or len(shape) != 2 or shape[1] % group or not name.endswith(".weight"):
        return [(name, shape, deviation, mean)]
    stem, groups, steps = name.removesuffix("weight"), (shape[0], shape[1] // group), 2**bits - 1
    scale = deviation / ((steps * (steps + 2)) / 12) ** 0.5  # the numbers 0 to steps, all equally likely
    return [
        (name, (shape[0], shape[1] * bits // 32), None, None),
        (f"{stem}scales", groups, scale / 8, scale),
        (f"{stem}biases", groups, -steps / 2 * scale / 8, -steps / 2 * scale),  # cut from the same normal numbers
    ]


class Values:
    def __init__(self, seed):
        self.random = np.random.Generator(np.random.Philox(seed))
        self.normal = torch.from_numpy(self.random.standard_normal(BLOCK, dtype=np.float32))
        self.cache, self.place = {}, 0

    def block(self, deviation, mean):
        if (deviation, mean) not in self.cache:
            if len(self.cache) >= 6:
                self.cache.pop(next(iter(self.cache)))
            if deviation is None:
                values = self.random.integers(2**16, size=BLOCK, dtype=np.uint16)
            else:
                values = (self.normal * deviation + mean).to(torch.bfloat16).view(torch.int16).numpy()
            self.cache[(deviation, mean)] = memoryview(values).cast("B")
        return self.cache[(deviation, mean)]

    def pieces(self, name, size, deviation, mean):
        """Yields the tensor's data piece by piece, as memory."""
        block = self.block(deviation, mean)
        if not name.endswith(".biases"):
            self.place = 2 * int(self.random.integers(BLOCK))
        at, left = self.place, size
        while left:
            size = min(left, len(block) - at)
            yield block[at : at + size]
            left, at = left - size, 0


def write_at(fd, data, at):
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def write_file(path, header, shard, values, threads):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as f, ThreadPoolExecutor(threads) as pool:
        f.write(len(text).to_bytes(8, "little") + text)
        at, writes = 8 + len(text), []
        for name, size, deviation, mean in shard:
            for data in values.pieces(name, size, deviation, mean):
                writes.append(pool.submit(write_at, f.fileno(), data, at))
                at += len(data)
        for write in writes:
            write.result()


def write_sharded(folder, base, tensors, values, a, bits=None):
    """tensors: list of (name, shape)."""
    os.makedirs(folder, exist_ok=True)
    shards, entries, size = [[]], {}, 0
    for name, shape, deviation, mean in (part for name, shape in tensors for part in stored(name, shape, bits, a.group)):
        dtype = "BF16" if deviation else "U32"
        n = (2 if deviation else 4) * int(np.prod(shape))
        if shards[-1] and size + n > a.shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, n, deviation, mean))
        entries[name] = (dtype, shape)
        size += n
    names, total = {}, 0
    for i, shard in enumerate(shards):
        file = f"{base}.safetensors" if len(shards) == 1 else f"{base}-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, n, _, _ in shard:
            header[name] = {"dtype": entries[name][0], "shape": list(entries[name][1]), "data_offsets": [at, at + n]}
            names[name] = file
            at += n
        write_file(f"{folder}/{file}", header, shard, values, a.threads)
        total += at
    if len(shards) > 1:
        with open(f"{folder}/{base}.safetensors.index.json", "w") as f:
            json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}, f, indent=2)
    print(f"{folder}: {len(names)} tensors, {total:,} bytes in {len(shards)} file(s)", flush=True)


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
