#!/usr/bin/env python3
"""Writes some of prepare.py's drawings into another folder, where only little can be sent to a GPU.

    pack_drawings.py --work WORK --out PACK --trained 300 --held 24

PACK has drawings.json and drawings.webp as WORK has; its drawings.json also says which drawings are held back.
"""
import argparse
import json
from pathlib import Path

import data


def spread(indices, count):
    """`count` of them, evenly from the whole list."""
    return [indices[i * len(indices) // count] for i in range(min(count, len(indices)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trained", type=int, default=300)
    parser.add_argument("--held", type=int, default=24)
    args = parser.parse_args()
    trained, held = data.trained_and_held(args.work)
    chosen = spread(trained, args.trained)
    first_held = len(chosen)
    chosen += spread(held, args.held)
    names = json.loads((args.work / "drawings.json").read_text())["drawings"]
    offsets = [0]
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "drawings.webp", "wb") as f:
        for piece in data.read_pieces(args.work, chosen):
            f.write(piece)
            offsets.append(f.tell())
    (args.out / "drawings.json").write_text(json.dumps({
        "drawings": [names[i] for i in chosen], "offsets": offsets, "held": list(range(first_held, len(chosen)))}))
    print(f"{len(chosen)} drawings, {offsets[-1]:,} bytes")


if __name__ == "__main__":
    main()
