#!/usr/bin/env python3
"""Teaches the text encoder what captions name, before any picture is drawn.

    pretrain_text.py --work WORK --out DIR --seconds 70 [--start FOLDER]

Trains the text encoder and the transformer's caption path (cap_embedder, padding token, context refiner) to name the first
thing, the second thing or none, the style and the background of random captions. The names are read from the refined caption
tokens by one attention query each and one linear layer, so what the joint layers attend to already tells all six languages'
words apart. A caption that fits several things is drawn with each of them, so the classifier learns their shares. Thousands
of captions take the time of one picture.

Without --start everything begins from random weights; with it (an exported folder, or one that train.py or this wrote) the
rest of the transformer is kept as it is. Writes DIR/model-<n>.safetensors, from which train.py --start goes on, and prints
how many plain prompts of each kind are understood in all parts.
"""
import argparse
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

import data
import export
import networks
from captions import TEMPLATE, Captioner
from optim import Average, Muon, schedule
from splits import BACKGROUNDS, COLOURS, LANGUAGES, STYLES

ADAM_ONLY = ("embed", "final_layer", "pad_token", "t_embedder", "naming")
CAPTION_PATH = ("text_encoder.", "transformer.cap_", "transformer.context_refiner.", "naming.")


class Naming(nn.Module):
    """Scores for the first thing, the second thing (the last class: none), the style and the background."""

    def __init__(self, things, dim):
        super().__init__()
        self.query = nn.Parameter(torch.randn(4, dim) * dim ** -0.5)
        self.norm = networks.RMSNorm(dim, 1e-6)
        self.thing = nn.Linear(dim, things + 1)  # one for both: a thing means the same on either side
        self.style = nn.Linear(dim, len(STYLES))
        self.background = nn.Linear(dim, len(BACKGROUNDS))
        for layer in (self.thing, self.style, self.background):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, e, lengths):
        e = self.norm(e)
        padding = torch.arange(e.shape[1], device=e.device) >= lengths[:, None]
        attention = (e @ self.query.T).float().masked_fill(padding[..., None], -torch.inf).softmax(1)
        first, second, style, background = (attention.to(e.dtype).mT @ e).unbind(1)
        return self.thing(first), self.thing(second), self.style(style), self.background(background)

    def loss(self, e, lengths, names):
        scores = self(e, lengths)
        return sum(weight * F.cross_entropy(s.float(), n)
                   for weight, s, n in zip((1, 1, 0.5, 0.5), scores, names.unbind(1)))


def make_model(start, things, device):
    """Transformer, text encoder and naming heads; `start` may lack the heads (an exported folder does)."""
    transformer = networks.Transformer()
    model = nn.ModuleDict({"transformer": transformer, "text_encoder": networks.TextEncoder(),
                           "naming": Naming(things, transformer.config["dim"])})
    if start:
        missing, unexpected = model.load_state_dict(export.read_model(start), strict=False)
        wrong = unexpected + [name for name in missing if not name.startswith("naming.")]
        if wrong:
            raise SystemExit(f"{start}: missing or unexpected: {wrong[:5]}")
    # In the file because hidden_states[-2] is taken, never used.
    text = model["text_encoder"].model
    for p in (*text.layers[-1].parameters(), *text.norm.parameters()):
        p.requires_grad_(False)
    return model.to(device)


@torch.no_grad()
def measure(model, captioner, work, device, count):
    """Prints the share of plain prompts, up to `count` of a kind, whose names are all the likeliest."""
    splits = captioner.splits
    names = data.Names(splits, "cpu")
    tokenizer = Tokenizer.from_file(str(Path(work) / "tokenizer/tokenizer.json"))
    rng = random.Random(7)
    seen = [d for d in splits.drawings if d not in splits.held_pair_set]
    kinds = {}
    for lang in LANGUAGES:
        pairs = [d for d in seen if d[0] in captioner.unique_labels[lang]]
        kinds[f"labels {lang}"] = [(lang, code, style, None, None) for code, style in rng.sample(pairs, count)]

    def language(i):
        return LANGUAGES[i % len(LANGUAGES)]

    for lang in LANGUAGES:
        words = captioner.words_of[lang]
        kinds[f"words {lang}"] = [(lang, code, splits.default_style(code), None, None, word)
                                  for word, code in rng.sample(words, min(count, len(words)))]
    kinds["held-back styles"] = [(language(i), *d, None, None) for i, d in enumerate(splits.held_pairs[:count])]
    kinds["unseen backgrounds"] = [(language(i), code, style, rng.choice(splits.unseen_colours(code)), None)
                                   for i, (code, style) in enumerate(rng.sample(seen, count))]
    kinds["unseen couples"] = [(language(i), a, style, None, b)
                               for i, (a, b, style) in enumerate(splits.held_couples[:count])]
    for kind, prompts in kinds.items():
        if not prompts:
            continue
        right, widths = torch.zeros(5), {}
        for lang, code, style, background, second, *word in prompts:
            prompt = word[0] if word else captioner.prompt(rng, lang, code, style, background, second)
            row = (splits.index[code, style], splits.index[second, style] if second else -1, -1,
                   list(BACKGROUNDS).index(background or "white"), 0, 0, 0, 0)
            ids = tokenizer.encode(TEMPLATE.format(prompt=prompt)).ids
            widths.setdefault(-(-len(ids) // 32) * 32, []).append((ids, row))
        for width, batch in widths.items():
            lengths = torch.tensor([len(ids) for ids, _ in batch], device=device)
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch], device=device)
            e = model["transformer"].refine(model["text_encoder"](ids), lengths)
            found = torch.stack([s.argmax(1) for s in model["naming"](e, lengths)], 1).cpu()
            same = found == names(torch.tensor([row for _, row in batch]))
            right += torch.cat([same, same.all(1, keepdim=True)], 1).sum(0)
        shares = (100 * right / len(prompts)).tolist()
        print(f"{kind:20s} all {shares[4]:5.1f} %; first {shares[0]:5.1f}, second {shares[1]:5.1f}, style {shares[2]:5.1f}, "
              f"background {shares[3]:5.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, nargs="+", help="begin from these weights, or from a folder of weights")
    parser.add_argument("--seconds", type=float, default=70)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--captions", type=int, default=1_600_000)
    parser.add_argument("--measure", type=int, default=200, help="prompts of each kind to measure at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True

    captioner = Captioner.load(args.work)
    names = data.Names(captioner.splits, "cpu")
    ids, lengths, rows = data.caption_pool(args.work, args.captions, 1, args.seed)
    short, _ = data.bucket((ids, lengths, names(rows)), device)
    sampler = data.Sampler(short)
    model = make_model(args.start, names.count, device)
    live = [(n, p) for n, p in model.named_parameters() if p.requires_grad and n.startswith(CAPTION_PATH)]
    optimizer = Muon(live, adam_only=ADAM_ONLY)
    average = Average([p for _, p in live], 0.99)
    if cuda and not args.no_compile:
        networks.compile_blocks(model)
    step, spent, begun = 0, 0.0, time.time()
    n, total, terms, shown = min(args.batch, len(short[0])), torch.zeros((), device=device), 0, 0.0
    while spent < args.seconds:
        ids, lengths, targets = sampler(n)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            e = model["transformer"].refine(model["text_encoder"](ids), lengths)
            loss = model["naming"].loss(e, lengths, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in live], 1.0, foreach=True)
        optimizer.step(args.lr * schedule(spent / args.seconds, 0.05, 0.4))
        optimizer.zero_grad()
        average.update(step)
        step += 1
        total += loss.detach()
        terms += 1
        if step % 20 == 0 and cuda:
            torch.cuda.synchronize()
        spent = time.time() - begun
        if spent - shown > 5:
            print(f"step {step} {spent:.0f} s, {terms * n / (spent - shown):.0f} captions/s: loss "
                  f"{total.item() / terms:.4f}", flush=True)
            if not total.isfinite():
                raise SystemExit("the loss is not finite: try a lower --lr")
            shown, terms = spent, 0
            total.zero_()
    average.swap()
    export.save_parts(model, args.out)
    print(f"done: {step} steps, {spent:.0f} s", flush=True)
    with torch.compiler.set_stance("force_eager"):
        measure(model, captioner, args.work, device, args.measure)


if __name__ == "__main__":
    main()
