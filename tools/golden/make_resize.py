"""resize.safetensors: 8-bit images resized and turned grey by Pillow itself."""

import argparse

from common import np, save
from PIL import Image

# name: (mode, size of the input, sizes of the outputs), as (width, height): up, down, one side only, the same
CASES = {
    "rgb": ("RGB", (61, 47), [(1, 1), (7, 5), (23, 31), (17, 47), (61, 20), (101, 79), (90, 13), (61, 47)]),
    "grey": ("L", (33, 29), [(1, 1), (12, 64), (50, 11), (33, 40), (8, 29)]),
    "dot": ("RGB", (1, 1), [(5, 3), (1, 4)]),
    "few": ("RGB", (2, 3), [(31, 17), (1, 2)]),
    "line": ("L", (200, 1), [(3, 1), (33, 2), (201, 1)]),
}


def picture(name, mode, size):
    """A slope with noise; a third of the rows is black or white, so that Lanczos overshoots on both sides."""
    width, height = size
    random = np.random.Generator(np.random.Philox(sum(name.encode())))
    channels = len(mode)
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    pixels = 255 * (x + 2 * y + 5 * c) / (width + 2 * height + 10) + random.normal(0, 40, x.shape)
    pixels = np.where(3 * y < height, 255.0 * random.integers(0, 2, x.shape), pixels)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])


def make(out):
    tensors = {}
    for name, (mode, size, sizes) in CASES.items():
        image = picture(name, mode, size)
        assert image.mode == mode and image.size == size
        tensors[f"{name}.in"] = np.array(image)
        if mode == "RGB":
            tensors[f"{name}.luma"] = np.array(image.convert("L"))
        for width, height in sizes:
            resized = image.resize((width, height), Image.Resampling.LANCZOS)
            tensors[f"{name}.{width}x{height}"] = np.array(resized)
    save(f"{out}/resize.safetensors", tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
