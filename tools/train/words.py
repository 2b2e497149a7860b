#!/usr/bin/env python3
"""Writes words.txt, the list beside the model of what it can draw (src/shared/vocabulary.h describes the file).

    words.py --work WORK --out models/emoji/words.txt            of a model that was trained on labels and tags only
    words.py --work WORK --out models/emoji/words.txt --lexicon  of a model that was trained on WORK's lexicon.json as well
    words.py --out models/emoji/words.txt --plain                writes the first line anew, and leaves the things as they are

A thing's known names are its labels, the tags that no other thing has, and with --lexicon the words that mean it. The words of
the lexicon that a model does not know are there as well, marked, so that `zimage` can say what is nearest.
"""
import argparse
import re
from pathlib import Path

import captions
from captions import Captioner
from splits import LANGUAGES, STYLES

HEADER = "zimage words 1"


def listed_words():
    """The words of plain_words.txt."""
    lines = [line.split() for line in (Path(__file__).parent / "plain_words.txt").read_text().splitlines()]
    return {word.replace("_", " ") for line in lines if line and line[0] != "#" for word in line[2:]}


def heads(names):
    """Words that stand before a colon in labels, "flag" of "flag: Japan": captions say them behind the name as well."""
    parts = [re.split(r" ?[:：] ?", name) for name in names if not name.startswith("~")]
    return {part[0] for part in parts if len(part) > 1 and all(part) and " " not in part[0]}


def plain_words(names):
    """What captions say beside things, and what says nothing about a drawing. names: of all things."""
    found = set(STYLES) | listed_words() | heads(names)
    for table in (captions.STYLE_FORMS, captions.BACKGROUND_FORMS, captions.COUPLE_FORMS, captions.PICTURE_FORMS,
                  captions.ARTICLES, *captions.COUNT_FORMS.values(), *captions.PAINT_FORMS.values(), captions.SMALL_FORMS,
                  captions.BIG_FORMS, *captions.PLACE_FORMS.values()):
        for forms in table.values():
            for form in [forms] if isinstance(forms, str) else forms:
                found.update(part.strip(" ,.:()，、（）&-") for part in re.split(r"\{.\}", form))
    for colours in captions.COLOUR_WORDS.values():
        found.update(word for words in colours.values() for word in words)
    found.update(captions.GERMAN_DATIVE.values())
    found.update(["a", "an", "the"])
    # Each word of a wording alone, too: "on the left and" is "on", "the", "left", "and".
    return sorted({word for part in found for word in (part, *part.split()) if word})


def things(captioner, with_lexicon):
    owner = {word: code for lang in LANGUAGES for word, code in captioner.words_of[lang]}
    for code, thing in captioner.things.items():
        known = [thing["labels"][lang] for lang in LANGUAGES]
        for lang in LANGUAGES:  # not French "car" for a bus: who types it means an automobile
            known += [tag for tag in captioner.unique_tags[lang, code] if owner.get(tag.casefold(), code) == code]
        words = [word for lang in LANGUAGES for word in captioner.names_of[lang].get(code, [])]
        if with_lexicon:
            known += words
        known = list(dict.fromkeys(known))
        folded = {name.casefold() for name in known}
        others = [f"~{word}" for word in dict.fromkeys(words) if word not in folded]
        yield "\t".join([name for name in known if not name.startswith("~")] + others)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lexicon", action="store_true")
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    if args.plain == bool(args.work):
        parser.error("expected --work or --plain")
    lines = (args.out.read_text().split("\n")[2:-1] if args.plain else
             list(things(Captioner.load(args.work), args.lexicon)))
    plain = plain_words([name for line in lines for name in line.split("\t")])
    text = "".join(line + "\n" for line in [HEADER, "\t".join(["=", *plain]), *lines])
    args.out.write_text(text)
    print(f"{args.out}: {text.count(chr(9)):,} names, {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
