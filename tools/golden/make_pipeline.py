"""pipeline.safetensors: whole runs of the tiny model, from prompt to bytes."""

import argparse

from common import load_pipeline, save, text_tensor, torch, trace

LONG = "a red apple and a blue cat, 红苹果 und ein Mädchen 🐱, " * 40  # > 512 tokens: truncated on the right
CASES = {  # name: prompt, width, height, steps, seed
    "en": ("a red apple on a wooden table", 64, 48, 8, 42),
    "zh": ("红苹果和一只猫，蓝色背景", 64, 48, 8, 7),
    "empty": ("", 64, 48, 8, 1234567890123),
    "wide": ("Ein roter Apfel, déjà vu 🐱 ", 112, 80, 8, 1),
    "one": ("a cat", 16, 16, 3, 0),
    "tall": ("  two  spaces\nand a line", 32, 96, 4, 2**63 + 5),
    "long": (LONG, 32, 32, 2, 3),
}


def make(out):
    pipe = load_pipeline(f"{out}/tiny")
    tensors = {}
    for name, (prompt, width, height, steps, seed) in CASES.items():
        templated = pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        ids = pipe.tokenizer(templated, max_length=512, truncation=True).input_ids
        embeds = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)[0][0]
        assert len(ids) == len(embeds)
        noise, after, rgb = trace(pipe, prompt, width, height, steps, seed)
        tensors |= {
            f"{name}.prompt": text_tensor(prompt),
            f"{name}.ids": torch.tensor(ids, dtype=torch.int32),
            f"{name}.prompt_embeds": embeds,
            f"{name}.settings": torch.tensor([width, height, steps], dtype=torch.int32),
            f"{name}.seed": torch.tensor([seed], dtype=torch.uint64),
            f"{name}.noise": noise,
            f"{name}.after": after,
            f"{name}.latents": after[-1:],
            f"{name}.rgb": rgb,
        }
        print(f"{name}: {len(ids)} tokens, latents std {after[-1].std():.3f}, rgb {rgb.shape} std {rgb.std():.1f}")
    save(f"{out}/pipeline.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
