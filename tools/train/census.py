#!/usr/bin/env python3
"""Counts what captions training saw of a word: why the model knows one word and not another.

    census.py --work WORK [--captions 400000] WORD...

Draws captions of one thing in the shares of captions.MIX with fixed seeds, takes style, background and picture wording off by
asking for none, and prints for each word: the captions that are the word alone (in any case, with or without an article),
how many different things those drew, the captions that contain the word beside others, and the things that those drew.
"""
import argparse
import random
import re
from collections import Counter
from pathlib import Path

from captions import MIX, Captioner

ARTICLE = re.compile(r"^(a|an|the|one|ein|eine|der|die|das|un|une|le|la|una|el) ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--captions", type=int, default=400_000)
    parser.add_argument("words", nargs="+")
    args = parser.parse_args()
    captioner = Captioner.load(args.work)
    rng = random.Random(1)
    names = Counter()
    for kind, share in MIX.items():
        if kind == "couple":  # each side is named as a label is
            continue
        for _ in range(round(args.captions * share)):
            code, _ = rng.choice(captioner.splits.drawings)
            by_tags = kind == "tags" or kind in ("background", "absent") and rng.random() < 0.1
            names[captioner.name(rng, captioner.random_language(rng), code, by_tags), code] += 1
    print(f"{sum(names.values())} names of things drawn")
    for word in args.words:
        alone, beside = Counter(), Counter()
        for (name, code), n in names.items():
            bare = ARTICLE.sub("", name.casefold())
            if bare == word.casefold():
                alone[code] += n
            elif re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", bare):
                beside[code] += n

        def most(counter):
            return ", ".join(f"{captioner.things[c]['labels']['en']} {n}" for c, n in counter.most_common(4))

        print(f"{word:14s} alone {sum(alone.values()):4d} ({len(alone)} things: {most(alone)}); "
              f"with other words {sum(beside.values()):4d} ({len(beside)} things: {most(beside)})")


if __name__ == "__main__":
    main()
