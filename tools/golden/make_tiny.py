"""The tiny random model folders, saved by the libraries themselves."""

import argparse
import json
import os
import shutil
import tempfile

from chat_template import CHAT_TEMPLATE
from common import fill, randn, torch

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

# The published Qwen3 pattern.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SENTENCES = """
user assistant
A red apple on a wooden table, soft light, highly detailed photograph of the fruit.
The quick brown fox jumps over the lazy dog; don't stop, it's what we'll do, they've said I'm here, you're there, he'd go.
a cat and a dog, a blue background, in the style of an old painting, with a red balloon and a yellow star
Le renard brun saute par-dessus le chien paresseux. Une pomme rouge sur la table en été, déjà vu, où est le garçon ?
Ein roter Apfel auf dem Tisch, schöne Grüße aus München, die Straße ist größer als früher, ein Mädchen läuft.
Una manzana roja sobre la mesa, el niño pequeño está aquí, ¿dónde está la mañana? ¡Qué día!
红苹果放在木桌上，柔和的光线，高清照片。一只猫和一只狗，蓝色背景，你好，世界！
赤いりんごが木のテーブルの上にあります。猫と犬、青い背景、こんにちは世界！かわいいネコ。
Красное яблоко на деревянном столе, мягкий свет, кошка и собака.
빨간 사과가 나무 테이블 위에 있습니다. 고양이와 강아지, 파란 배경.
تفاحة حمراء على الطاولة ، قطة وكلب
def main():\n    for i in range(10):\n        print(i, x[i] == 3.14)\n
int main(void) { return 0; } /* comment */  // line comment\r\n\r\n\tif (a != b && c >= d) {}
emoji 🐱🚀❤️👍🏽 and ... numbers 0 1 2 3 4 5 6 7 8 9
"""


def byte_characters():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(keep))
    return [c for c in sorted(table.values())]


def make_tokenizer(folder, merges=507):
    """The published file's structure: ids of 256 bytes, then one id a merge, then the added tokens."""

    def shell(model):
        t = Tokenizer(model)
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
            ]
        )
        byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
        t.post_processor = processors.ByteLevel(**byte_level)
        t.decoder = decoders.ByteLevel(**byte_level)
        return t

    trained = shell(BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    trained.train_from_iterator(SENTENCES.splitlines(), trainer)
    found = [tuple(m) for m in json.loads(trained.to_str())["model"]["merges"]]
    vocab = {c: i for i, c in enumerate(byte_characters())}
    for a, b in found:
        vocab.setdefault(a + b, len(vocab))
    final = json.loads(shell(BPE(vocab=vocab, merges=found)).to_str())
    model = final["model"]
    model["continuing_subword_prefix"] = model["end_of_word_suffix"] = ""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    final["added_tokens"] = [
        dict(id=len(vocab) + i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False,
             special=i < 3)
        for i, name in enumerate(names)
    ]  # fmt: skip
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(final, f, ensure_ascii=False, indent=1)
        f.write("\n")
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in final["added_tokens"]},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    with open(f"{folder}/tokenizer_config.json", "w", encoding="utf-8") as f:
        json.dump(config, f, ensure_ascii=False, indent=2)
        f.write("\n")
    return len(vocab) + len(names)


def make_transformer():
    model = ZImageTransformer2DModel(
        in_channels=4,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        rope_theta=300.0,
        axes_dims=[8, 12, 12],
        axes_lens=[640, 64, 64],
    )
    return fill(model, 1.0, {"t_embedder.mlp.2": 1.5, "adaLN_modulation.0": 0.7})


def make_text_encoder(vocab_size):
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-6,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        tie_word_embeddings=True,
        bos_token_id=vocab_size - 5,
        eos_token_id=vocab_size - 3,
    )
    return fill(Qwen3ForCausalLM(config))


def make_vae():
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 12, 24, 24),
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


def make_all(out):
    shutil.rmtree(f"{out}/tiny", ignore_errors=True)
    with tempfile.TemporaryDirectory() as tmp:
        size = make_tokenizer(tmp)
        tokenizer = AutoTokenizer.from_pretrained(tmp)
        with open(f"{tmp}/tokenizer.json", encoding="utf-8") as f:
            tokenizer_text = f.read()
        with open(f"{tmp}/tokenizer_config.json", encoding="utf-8") as f:
            config_text = f.read()
    transformer, text_encoder, vae = make_transformer(), make_text_encoder(size), make_vae()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = ZImagePipeline(
        scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer
    )
    pipe.save_pretrained(f"{out}/tiny")
    # transformers' own save writes a newer, smaller layout of the tokenizer. Keep the published layout.
    for name in os.listdir(f"{out}/tiny/tokenizer"):
        os.remove(f"{out}/tiny/tokenizer/{name}")
    with open(f"{out}/tiny/tokenizer/tokenizer.json", "w", encoding="utf-8") as f:
        f.write(tokenizer_text)
    with open(f"{out}/tiny/tokenizer/tokenizer_config.json", "w", encoding="utf-8") as f:
        f.write(config_text)

    shutil.rmtree(f"{out}/tiny-bf16-sharded", ignore_errors=True)
    transformer.to(torch.bfloat16).save_pretrained(f"{out}/tiny-bf16-sharded/transformer", max_shard_size="500KB")
    shutil.rmtree(f"{out}/tiny-f16", ignore_errors=True)
    text_encoder.to(torch.float16).save_pretrained(f"{out}/tiny-f16/text_encoder")
    vae.to(torch.float16).save_pretrained(f"{out}/tiny-f16/vae")
    shutil.rmtree(f"{out}/tiny-base", ignore_errors=True)
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True).save_pretrained(f"{out}/tiny-base/scheduler")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make_all(parser.parse_args().out)
