#!/usr/bin/env python3
"""Drawings for the (thing, style) pairs that nobody drew, by analogy.

    analogies.py --work WORK        how often the made-up drawing of a kept-back pair is nearest to the right one

No style draws everything, and some drawings are kept back; a prompt may still ask for such a pair. What the drawing would
roughly look like follows from the drawings that training may see: begin with the mean of the thing's drawings in the other styles
and add what the style changes in similar things. That is kernel ridge regression (a Gaussian process' mean) of the
difference between a drawing and the mean of its thing's drawings in the other styles; things are similar when those
drawings are (at 16 x 16) and when their labels and tags share words.

The mean is timid: it lies close to the nearest drawing of that style, a sibling ("umbrella" for "umbrella with rain drops"),
and what makes the thing different is lost. So its difference to that sibling is enlarged by EXAGGERATION.

The results are soft and only right in the large. `train.py` uses them where the noise is strong, as what to begin with, never for details.
"""
import argparse
import json
import math
import re
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F

from splits import STYLES

KERNEL_WIDTH, TEXT_WEIGHT, RIDGE = 0.15, 0.3, 0.1
EXAGGERATION = 1.5


def word_vectors(things, names):
    """Unit vectors [len(names), words] of labels and tags (English, Chinese, German), weighted by rarity."""
    counts = []
    for name in names:
        words = Counter()
        for lang in ("en", "zh", "de"):
            for text, weight in [(things[name]["labels"][lang], 2)] + [(tag, 1) for tag in things[name]["tags"][lang]]:
                for word in re.findall(r"\w+", text.lower()):
                    words[lang, word] += weight
        counts.append(words)
    frequency = Counter(word for words in counts for word in words)
    column = {word: i for i, word in enumerate(frequency)}
    vectors = torch.zeros(len(names), len(column))
    for row, words in zip(vectors, counts):
        for word, count in words.items():
            row[column[word]] = math.log1p(count) * math.log(len(names) / frequency[word])
    return F.normalize(vectors)


def squared_distances(a, b):
    return (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp_min(0)


def premultiplied(drawings):
    """uint8 straight alpha [n, 4, S, S] -> float 0..1, colours times alpha."""
    d = drawings.float() / 255
    return torch.cat([d[:, :3] * d[:, 3:], d[:, 3:]], 1)


def on_white(drawings, factor):
    """[n, 3, S/factor, S/factor] in 0..1."""
    d = F.avg_pool2d(premultiplied(drawings), factor)
    return d[:, :3] + 1 - d[:, 3:]


def weights(drawings, splits, things, exaggeration=EXAGGERATION):
    """(targets, W): W [len(targets), drawings] such that row i times the premultiplied drawings is the drawing of the pair
    targets[i] = (thing, style); all pairs of splits.absent whose thing has a trained drawing."""
    device = drawings.device
    small = torch.cat([on_white(part, drawings.shape[-1] // 64) for part in drawings.split(512)])
    code = {name: i for i, name in enumerate(splits.things)}
    words = word_vectors(things, splits.things).to(device)
    features = F.avg_pool2d(small, 4).flatten(1)
    small = small.flatten(1)
    targets, rows = [], []
    for style in STYLES:
        others = [s for s in STYLES if s != style]
        for sources in (others, others[:1], others[1:]):
            asked = [t for t, s in splits.absent if s == style and [o for o in others if splits.trained(t, o)] == sources]
            known = [t for t in splits.things if all(splits.trained(t, s) for s in [style, *sources])]
            if not asked or not known:
                continue

            def index(names, s):
                return torch.tensor([splits.index[t, s] for t in names], device=device)

            def described(names):
                return (torch.cat([features[index(names, s)] for s in sources], 1),
                        words[torch.tensor([code[t] for t in names], device=device)])

            def kernel(a, b):
                distance = squared_distances(a[0], b[0]) / a[0].shape[1]
                return torch.exp(-distance / (2 * KERNEL_WIDTH ** 2)) + TEXT_WEIGHT * a[1] @ b[1].T

            def others_mean(names):
                """[names, drawings]: the mean of their drawings in the source styles."""
                w = torch.zeros(len(names), len(drawings), device=device)
                for s in sources:
                    w[torch.arange(len(names), device=device), index(names, s)] += 1 / len(sources)
                return w

            a, b = described(asked), described(known)
            ridge = RIDGE * torch.eye(len(known), device=device)
            k = torch.linalg.solve(kernel(b, b) + ridge, kernel(b, a)).T
            k = k + (1 - k.sum(1, keepdim=True)) / len(known)  # the mean difference, for what is like nothing known
            change = -others_mean(known)
            change[torch.arange(len(known), device=device), index(known, style)] += 1
            w = others_mean(asked) + k @ change
            trained = index([t for t in splits.things if splits.trained(t, style)], style)
            sibling = trained[squared_distances(w @ small, small[trained]).argmin(1)]
            w *= exaggeration
            w[torch.arange(len(asked), device=device), sibling] += 1 - exaggeration
            targets += [(t, style) for t in asked]
            rows.append(w)
    return targets, torch.cat(rows)


@torch.no_grad()
def synthesise(drawings, splits, work):
    """uint8 [len(splits.absent), 4, S, S], straight alpha, in the order of splits.absent."""
    things = json.loads((Path(work) / "things.json").read_text())
    targets, w = weights(drawings, splits, things)
    assert sorted(targets) == sorted(splits.absent)
    held = torch.tensor([splits.index[pair] for pair in splits.held_pairs], device=w.device)
    assert not w[:, held].any(), "a drawing that is kept back was used"
    w = w[torch.tensor([{t: i for i, t in enumerate(targets)}[pair] for pair in splits.absent], device=w.device)]
    n, channels, side, _ = drawings.shape
    out = torch.empty(len(w), channels, side, side, dtype=torch.uint8, device=w.device)
    for y in range(0, side, 16):  # a few rows of all drawings at a time, for memory
        rows = premultiplied(drawings[:, :, y:y + 16]).flatten(1)
        mixed = (w @ rows).view(len(w), channels, 16, side).clamp(0, 1)
        alpha = mixed[:, 3:]
        colour = (mixed[:, :3] / alpha.clamp_min(1e-3)).clamp(0, 1)
        out[:, :, y:y + 16] = (torch.cat([colour, alpha], 1) * 255).round().byte()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work

    import data
    from captions import Captioner

    splits = Captioner.load(work).splits
    things = json.loads((work / "things.json").read_text())
    drawings = data.load_drawings(work, size=64)
    flat = on_white(drawings, 1).flatten(1)
    of_style = {s: torch.tensor([i for i, d in enumerate(splits.drawings) if d[1] == s]) for s in STYLES}

    def right(pictures):
        """The share of splits.held_pairs whose picture [64 * 64 * 3] is nearest to the right drawing of its style."""
        hits = 0
        for pair, picture in zip(splits.held_pairs, pictures):
            candidates = of_style[pair[1]]
            hits += int(candidates[(flat[candidates] - picture).square().sum(1).argmin()]) == splits.index[pair]
        return 100 * hits / len(splits.held_pairs)

    def of_others(pair):
        return [flat[splits.index[pair[0], s]] for s in STYLES if s != pair[1]]

    print(f"another style's drawing {right([of_others(pair)[0] for pair in splits.held_pairs]):.1f} %, "
          f"the mean of both {right([sum(of_others(pair)) / 2 for pair in splits.held_pairs]):.1f} %")
    for exaggeration in (1, EXAGGERATION, 2):
        targets, w = weights(drawings, splits, things, exaggeration)
        row = {pair: i for i, pair in enumerate(targets)}
        print(f"by analogy, exaggeration {exaggeration}: {right((w @ flat)[[row[p] for p in splits.held_pairs]]):.1f} %")


if __name__ == "__main__":
    main()
