#!/usr/bin/env python3
"""Reads the drawings and labels, renders the drawings with librsvg, trains the tokenizer.

    prepare.py --data DATA --out WORK [--jobs 2] [--tokenizer models/emoji/tokenizer]

DATA holds the unpacked npm packages as folders:
    noto/icons.json, chars.json                 @iconify-json/noto 1.2.9               (Apache-2.0)
    fluent-emoji-flat/icons.json, chars.json    @iconify-json/fluent-emoji-flat 1.2.6  (MIT)
    twemoji/icons.json, chars.json              @iconify-json/twemoji 1.2.5            (CC BY 4.0)
    labels/<en|zh|ja|de|fr|es>/data.json        emojibase-data 17.0.0                  (MIT)
WORK receives
    things.json       every emoji without skin tone that at least one set draws, with labels and tags per language
    drawings.json     [[thing, style], ...] and the byte offsets into drawings.webp
    drawings.webp     the drawings, 256 x 256 RGBA, lossless WebP files one after another
    icons.xz          the drawings' SVG, from which data.py renders other sizes (3 MB instead of 34)
    painted.json      the drawings whose own colour an adjective can change: those that are mostly of one colour
    tokenizer/        tokenizer.json and the files transformers needs beside it
With --tokenizer the tokenizer of a trained model is kept: its ids mean what the model learned.
"""
import argparse
import io
import json
import lzma
import shutil
import subprocess
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from splits import LANGUAGES, STYLE_FOLDERS, STYLES

SIZE = 256


def key(hexcode):
    """Code points in lower case without the variation selector: the join key of all the sets."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def clean(text):
    """Labels use narrow no-break spaces and the like; a user types plain ones."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def read_things(data):
    labels = {lang: {key(e["hexcode"]): e for e in json.loads((data / "labels" / lang / "data.json").read_text())}
              for lang in LANGUAGES}
    bodies = {}
    for style in STYLES:
        icons = json.loads((data / STYLE_FOLDERS[style] / "icons.json").read_text())
        chars = json.loads((data / STYLE_FOLDERS[style] / "chars.json").read_text())
        for code, name in chars.items():
            if key(code) in labels["en"] and name in icons["icons"]:
                icon = icons["icons"][name]
                width = icon.get("width", icons.get("width", 16))
                height = icon.get("height", icons.get("height", 16))
                bodies[key(code), style] = (icon["body"], width, height)
    things = {}
    for code in sorted({code for code, _ in bodies}):
        things[code] = {
            "emoji": labels["en"][code]["emoji"],
            "labels": {lang: clean(labels[lang][code]["label"]) for lang in LANGUAGES},
            "tags": {lang: [clean(tag) for tag in labels[lang][code].get("tags", [])] for lang in LANGUAGES},
        }
    return things, bodies


def render(body, width, height):
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{SIZE}" '
           f'height="{SIZE}" viewBox="0 0 {width} {height}">{body}</svg>')
    png = subprocess.run(["rsvg-convert", "--unlimited", "-w", str(SIZE), "-h", str(SIZE)], input=svg.encode(),
                         stdout=subprocess.PIPE, check=True).stdout
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGBA"))
    if pixels.shape != (SIZE, SIZE, 4):
        raise SystemExit(f"a drawing rendered to {pixels.shape}")
    pixels[pixels[..., 3] == 0] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=60, method=3, exact=True)
    return out.getvalue()


PAINTED = 0.45  # share of a drawing's opaque area that has its own colour


def write_painted(out):
    """Flags have colours that mean something, and a drawing that is kept back is kept back in every colour."""
    import data
    import scenes
    trained, _ = data.trained_and_held(out)
    names = json.loads((out / "drawings.json").read_text())["drawings"]
    labels = {code: thing["labels"]["en"] for code, thing in json.loads((out / "things.json").read_text()).items()}
    share = scenes.own_colour(data.load_drawings(out, size=64))[1]
    painted = [i for i in trained if share[i] > PAINTED and not labels[names[i][0]].startswith("flag")]
    (out / "painted.json").write_text(json.dumps(painted))
    print(f"{len(painted)} drawings of mostly one colour")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-drawings", action="store_true", help="keep the drawings already rendered")
    parser.add_argument("--tokenizer", type=Path, help="the folder of a tokenizer to keep; without it: trained anew")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    things, bodies = read_things(args.data)
    (args.out / "things.json").write_text(json.dumps(things, ensure_ascii=False, indent=0))
    order = sorted(bodies)
    print(f"{len(things)} things, {len(order)} drawings")

    if not args.skip_drawings:
        offsets = [0]
        with ThreadPoolExecutor(args.jobs) as pool, open(args.out / "drawings.webp", "wb") as out:
            for n, data in enumerate(pool.map(lambda k: render(*bodies[k]), order)):
                out.write(data)
                offsets.append(offsets[-1] + len(data))
                if n % 500 == 0:
                    print(f"rendered {n}, {offsets[-1] / 1e6:.1f} MB", flush=True)
        (args.out / "drawings.json").write_text(json.dumps({"drawings": order, "offsets": offsets}))

    with lzma.open(args.out / "icons.xz", "w") as out:
        out.write(json.dumps([[*key, *bodies[key]] for key in order]).encode())
    write_painted(args.out)
    if args.tokenizer:
        shutil.copytree(args.tokenizer, args.out / "tokenizer", dirs_exist_ok=True)
    else:
        import captions
        captions.train_tokenizer(args.out)


if __name__ == "__main__":
    main()
