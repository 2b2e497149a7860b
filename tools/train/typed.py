"""What people do with the model beside the prompts of its test: everyday words, other sizes, start images.

`evaluate` makes prompts of these kinds and scores their pictures by the functions here.
"""
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(192, 192), (384, 384), (512, 512), (512, 256), (256, 384)]  # width, height
STRENGTHS = {0.3: "keeps", 0.8: "changes"}
FRAME = 16  # the border is 1 / FRAME of the shorter side wide
BARS = 0.01  # more edge energy than this beyond the drawing's own is seen as bars
TARGETS = {"word": 85, "size": 90, "keeps": 90, "changes": 90}
HERE = Path(__file__).resolve().parent


def word_rows(half):
    """Prompts of everyday_seen.tsv or everyday_held.tsv (see everyday.py)."""
    lines = (HERE / f"everyday_{half}.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    rows = []
    for line in lines[1:]:
        row = dict(zip(names, line.split("\t")))
        rows.append({"id": row["id"], "category": f"word/{row['group']}", "language": row["language"],
                     "word": row["word"], "prompt": row["prompt"], "seed": int(row["seed"]), "things": row["things"].split()})
    return rows


def label_pairs(captioner, lang):
    splits = captioner.splits
    return [d for d in splits.drawings if d not in splits.held_pair_set and d[0] in captioner.unique_labels[lang]]


def size_rows(captioner, languages, count=300):
    """`count` prompts of label and style for each of SIZES, all languages in turn; the same prompts at each size."""
    rows = []
    for n in range(count):
        lang = languages[n % len(languages)]
        rng = random.Random(f"sizes/{n}")
        code, style = rng.choice(label_pairs(captioner, lang))
        prompt, seed = captioner.prompt(rng, lang, code, style), rng.randrange(2 ** 31)
        for width, height in SIZES:
            rows.append({"id": f"size-{width}x{height}-{n:03d}", "category": f"size/{width} x {height}", "language": lang,
                         "prompt": prompt, "seed": seed, "style": style, "things": [code], "size": [width, height]})
    return rows


def start_rows(captioner, work, folder, count=60):
    """A drawing as the start image of a prompt that names another thing in its style, at each of STRENGTHS."""
    import data
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("starts")
    drawn = label_pairs(captioner, "en")
    rows = []
    for n in range(count):
        code, style = rng.choice(drawn)
        other = rng.choice([d for d in drawn if d[1] == style and d[0] != code])[0]
        pixels = data.load_drawings(work, chosen=[captioner.splits.index[code, style]], workers=1)[0].permute(1, 2, 0).numpy()
        image = (folder / f"start-{n:02d}.png").resolve()
        on_white(pixels).save(image)
        prompt, seed = captioner.prompt(rng, "en", other, style), rng.randrange(2 ** 31)
        for strength, outcome in STRENGTHS.items():
            rows.append({"id": f"start-{strength}-{n:02d}", "category": f"start/{strength} {outcome}", "language": "en",
                         "prompt": prompt, "seed": seed, "style": style, "image": str(image), "strength": strength,
                         "things": [code if outcome == "keeps" else other]})
    return rows


def on_white(pixels):
    """uint8 [S, S, 4] straight alpha -> Pillow image."""
    image = Image.fromarray(pixels, "RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def middle(image):
    """The square in the middle, 64 x 64 by area averages, floats 0..1 in one row."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((64, 64), Image.BOX)
    return np.asarray(square, np.float32).reshape(-1) / 255


def edge_energy(image):
    """The mean difference of neighbouring pixels, to the right and below, in the border and in all that lies outside of the
    square in the middle; 0..1."""
    pixels = np.asarray(image, np.float32) / 255
    height, width = pixels.shape[:2]
    side = min(width, height)
    border = np.ones((height, width), bool)
    left, top, frame = (width - side) // 2, (height - side) // 2, side // FRAME
    border[top + frame:top + side - frame, left + frame:left + side - frame] = False
    right = np.abs(np.diff(pixels, axis=1)).mean(2)[:-1]
    below = np.abs(np.diff(pixels, axis=0)).mean(2)[:, :-1]
    return float((right + below)[border[:-1, :-1]].mean())


def expected(pixels, width, height):
    """The drawing (uint8 [S, S, 4]) in the middle of a white picture of that size."""
    side = min(width, height)
    picture = Image.new("RGB", (width, height), (255, 255, 255))
    picture.paste(on_white(pixels).resize((side, side), Image.BICUBIC), ((width - side) // 2, (height - side) // 2))
    return picture


def kind(row):
    return row["category"].split("/")[0]


def score(rows, pictures, drawings, styles):
    """Sets "right", "found" and, of sizes, "bars" (edge energy beyond the drawing's own) of each row; pictures: a folder."""
    white = (255, 255, 255)
    for row in rows:
        image = Image.open(Path(pictures) / f"{row['id']}.png").convert("RGB")
        size = tuple(row.get("size", (256, 256)))
        if image.size != size:
            raise SystemExit(f"{row['id']}.png: {image.size} instead of {size}")
        row["vector"] = middle(image)
        if kind(row) == "size":
            own = drawings.full[drawings.index[row["things"][0], row["style"]]].permute(1, 2, 0).numpy()
            row["bars"] = edge_energy(image) - edge_energy(expected(own, *size))
    vectors = np.stack([row["vector"] for row in rows])
    near = {style: drawings.nearest(vectors, style, white) for style in styles}
    for n, row in enumerate(rows):
        asked = [row["style"]] if "style" in row else styles  # who names no style may get any
        style = min(asked, key=lambda s: near[s][1][n])
        found = near[style][0][n]
        row["found"] = [drawings.list[found][0]]
        row["right"] = [any(drawings.same(found, code, style) for code in row["things"] if (code, style) in drawings.index)]
        del row["vector"]


def table(rows):
    """Rows of the table of scores: (name, chosen rows, target)."""
    words = [r for r in rows if kind(r) == "word"]
    result = [("everyday words", words, TARGETS["word"])]
    for group, name in (("word", "that no label spells"), ("form", "labels in other forms")):
        result.append((f"everyday words, English, {name}", [r for r in words if r["category"] == f"word/{group}"], None))
    result.append(("everyday words, other languages", [r for r in words if len(r["category"]) == 7], None))
    for width, height in SIZES:
        result.append((f"label and style, {width} x {height}",
                       [r for r in rows if r["category"] == f"size/{width} x {height}"], TARGETS["size"]))
    for strength, outcome in STRENGTHS.items():
        result.append((f"start image, strength {strength} {outcome}",
                       [r for r in rows if r["category"] == f"start/{strength} {outcome}"], TARGETS[outcome]))
    return result


def bars(rows):
    """Lines about bars, one for each size."""
    lines = []
    for width, height in SIZES:
        chosen = [r["bars"] for r in rows if r["category"] == f"size/{width} x {height}"]
        if chosen:
            lines.append(f"{width} x {height}: edge energy at the border {np.mean(chosen):+.4f} beyond the drawing's own; "
                         f"bars (more than {BARS}) in {100 * np.mean(np.array(chosen) > BARS):.1f} % of {len(chosen)}")
    return lines


def load(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines() if line]
