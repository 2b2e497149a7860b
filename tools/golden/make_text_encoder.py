"""text_encoder.safetensors: hidden states of the tiny Qwen3 at several lengths."""

import argparse

from common import randint, save, torch

from transformers import Qwen3ForCausalLM


def run(model, ids, mask=None):
    """All hidden states of one sequence; no mask means all tokens are real."""
    mask = torch.ones_like(ids) if mask is None else mask
    states = model(input_ids=ids[None], attention_mask=mask[None], output_hidden_states=True).hidden_states
    return [s[0] for s in states]


def make(out):
    model = Qwen3ForCausalLM.from_pretrained(f"{out}/tiny/text_encoder").eval()
    vocab = model.config.vocab_size
    tensors = {}
    for n in (1, 8, 77, 512):
        ids = randint(f"text_encoder.{n}", 0, vocab, n)
        tensors[f"n{n}.ids"] = ids.to(torch.int32)
        rows = torch.arange(n)
        states = run(model, ids)
        if n == 512:
            rows = torch.tensor([0, 1, 2, 63, 255, 256, 510, 511])
            tensors["n512.rows"] = rows.to(torch.int32)
            tensors["n512.prompt_embeds"] = states[-2]
        for k, s in enumerate(states):
            tensors[f"n{n}.hidden_states.{k}"] = s[rows]
    ids = randint("text_encoder.padded", 0, vocab - 5, 16)
    mask = (torch.arange(16) < 10).long()
    ids[10:] = vocab - 5  # <|endoftext|>
    tensors["padded.ids"], tensors["padded.mask"] = ids.to(torch.int32), mask.to(torch.int32)
    for k, s in enumerate(run(model, ids, mask)):
        tensors[f"padded.hidden_states.{k}"] = s
    alone = run(model, ids[:10])
    worst = max((a - tensors[f"padded.hidden_states.{k}"][:10]).abs().max().item() for k, a in enumerate(alone))
    assert worst < 5e-6, worst
    half = Qwen3ForCausalLM.from_pretrained(f"{out}/tiny-f16/text_encoder", dtype=torch.float32).eval()
    tensors["f16.n8.prompt_embeds"] = run(half, tensors["n8.ids"].long())[-2]
    save(f"{out}/text_encoder.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
