"""Drawings as tensors, the pictures made of them, and the pools from which the transformer trains."""
import io
import json
import lzma
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from captions import MIX, TEMPLATE, Captioner
from networks import has_bf16
from scenes import FIELDS, picture
from splits import BACKGROUNDS, STYLES, Splits

SIZE = 256
PALETTE = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32)


def _decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def read_pieces(work, chosen=None):
    """The WebP files of the chosen drawings, of all by default."""
    offsets = json.loads((Path(work) / "drawings.json").read_text())["offsets"]
    blob = (Path(work) / "drawings.webp").read_bytes()
    return [blob[offsets[i]:offsets[i + 1]] for i in (range(len(offsets) - 1) if chosen is None else chosen)]


def trained_and_held(work):
    """Indices of the drawings that training may see, and of those kept back; pack_drawings.py says which in its file."""
    contents = json.loads((Path(work) / "drawings.json").read_text())
    if "held" in contents:
        held = contents["held"]
    else:
        splits = Splits(contents["drawings"])
        held = [splits.index[d] for d in splits.held_pairs]
    kept_back = set(held)
    return [i for i in range(len(contents["drawings"])) if i not in kept_back], held


def _render(job):
    """A drawing's SVG at size x size by resvg."""
    import resvg_py
    _, _, body, width, height, size = job
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" '
           f'height="{size}" viewBox="0 0 {width} {height}">{body}</svg>')
    pixels = _decode(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))).copy()
    if pixels.shape[:2] != (size, size):
        raise ValueError(f"a drawing of {width} x {height} rendered to {pixels.shape}")
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def render_drawings(work, device="cpu", size=512, workers=None, chosen=None):
    """As load_drawings, at any size, from WORK's icons.xz; needs PyPI's resvg_py."""
    icons = json.loads(lzma.open(Path(work) / "icons.xz").read())
    names = json.loads((Path(work) / "drawings.json").read_text())["drawings"]
    assert [icon[:2] for icon in icons] == names, "icons.xz and drawings.json are of different drawings"
    jobs = [(*icons[i], size) for i in (range(len(icons)) if chosen is None else chosen)]
    out = torch.empty(len(jobs), 4, size, size, dtype=torch.uint8, device=device)
    with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
        for n, pixels in enumerate(pool.imap(_render, jobs, chunksize=16)):
            out[n] = torch.from_numpy(pixels).permute(2, 0, 1)
    return out


def load_drawings(work, device="cpu", size=SIZE, workers=None, chosen=None):
    """uint8 [drawings, 4, size, size], straight alpha; of the chosen drawings, of all by default."""
    if size > SIZE or not (Path(work) / "drawings.webp").exists():
        return render_drawings(work, device, size, workers, chosen)
    pieces = read_pieces(work, chosen)
    out = torch.empty(len(pieces), 4, size, size, dtype=torch.uint8, device=device)
    with multiprocessing.get_context("fork").Pool(workers or os.cpu_count()) as pool:
        batch, start = [], 0
        for pixels in pool.imap(_decode, pieces, chunksize=16):
            batch.append(pixels)
            if len(batch) == 256 or start + len(batch) == len(pieces):
                stack = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(device)
                if size != SIZE:
                    stack = downscale(stack.float(), SIZE // size).round().byte()
                out[start:start + len(batch)] = stack
                start += len(batch)
                batch = []
    return out


def downscale(rgba, factor):
    """Area average of straight-alpha pictures (floats 0..255), colours weighted by their alpha."""
    alpha = rgba[:, 3:]
    rgb = F.avg_pool2d(rgba[:, :3] * alpha, factor)
    alpha = F.avg_pool2d(alpha, factor)
    return torch.cat([rgb / alpha.clamp_min(1e-3), alpha], 1)


def compose(drawings, left, right, background):
    """Pictures [B, 3, S, S] in 0..255: drawing `left` filling the square where right < 0, else the two side by side, each
    at half size and centred in its half. background: float [B, 3] in 0..255."""
    size = drawings.shape[-1]
    half, quarter = size // 2, size // 4
    b = len(left)
    out = background[:, :, None, None].expand(b, 3, size, size).clone()
    single, couple = (right < 0).nonzero()[:, 0], (right >= 0).nonzero()[:, 0]
    if len(single):
        d = drawings[left[single]].float()
        a = d[:, 3:] / 255
        out[single] = d[:, :3] * a + out[single] * (1 - a)
    if len(couple):
        pictures = out[couple]
        for side, which in ((0, left), (half, right)):
            d = drawings[which[couple]].float()
            a = d[:, 3:] / 255
            rgb, a = F.avg_pool2d(d[:, :3] * a, 2), F.avg_pool2d(a, 2)
            area = pictures[:, :, quarter:quarter + half, side:side + half]
            area.copy_(rgb + area * (1 - a))
        out[couple] = pictures
    return out


def gradients(n, height, width, generator=None, device="cpu"):
    """Images [n, 3, height, width] in 0..255: from one colour to another in any direction."""
    def random(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    angle = random(n, 1, 1, 1) * 2 * torch.pi
    ramp = (torch.cos(angle) * torch.linspace(-1, 1, width, device=device)
            + torch.sin(angle) * torch.linspace(-1, 1, height, device=device)[:, None])
    ramp = (ramp / ramp.amax((2, 3), keepdim=True) + 1) / 2
    first, last = random(n, 3, 1, 1) * 255, random(n, 3, 1, 1) * 255
    return first + (last - first) * ramp


def clouds(n, height, width, generator=None, device="cpu"):
    """Images [n, 3, height, width] in 0..255: smooth noise of two sizes, as a blurred photograph has."""
    def noise(places):
        return F.interpolate(torch.randn(n, 3, places, places, generator=generator, device=device), (height, width),
                             mode="bicubic")

    return (127.5 + 51 * noise(6) + 19 * noise(20)).clamp(0, 255)


def place(drawings, which, background):
    """Images in 0..255: each drawing at a random place and size, a part of it perhaps outside, over its background."""
    n, _, height, width = background.shape
    device = background.device
    side = (0.3 + 1.3 * torch.rand(n, device=device)) * min(height, width)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = width / side, height / side
    theta[:, :, 2] = (torch.rand(n, 2, device=device) * 2 - 1) * theta[:, (0, 1), (0, 1)] * 0.7
    d = drawings[which].float()
    d[:, :3] *= d[:, 3:] / 255
    smaller = F.avg_pool2d(d, 2)  # of drawings that shrink to less than half, no sample falls between pixels
    shrunk = (side < drawings.shape[-1] / 2)[:, None, None, None]
    size = (n, 4, height, width)
    grid = F.affine_grid(theta, size, align_corners=False)
    d = torch.where(shrunk, F.grid_sample(smaller, grid, align_corners=False), F.grid_sample(d, grid, align_corners=False))
    return d[:, :3] + background * (1 - d[:, 3:] / 255)


# ---- pools ---------------------------------------------------------------------------------------------------------
SQUARE_SHARE = 0.7  # of the captions are of 256 x 256, the others of the other canvases alike, if nothing else is said


def pool_shares(canvases):
    """The shares of the captions that are of each canvas."""
    others = (1 - SQUARE_SHARE) / max(1, canvases - 1)
    return [1.0] if canvases == 1 else [SQUARE_SHARE] + [others] * (canvases - 1)


def shown(drawing, canvas, thirds):
    """Of a canvas other than 256 x 256 a third of the drawings is shown, another third on each, so that fewer pictures are
    encoded; or two or all three thirds. thirds: some of 0, 1, 2."""
    return canvas == 0 or (drawing * 7919 + canvas * 104729) % 3 in thirds


def _captions(job):
    """(ids, lengths, rows) arrays of about `count` captions; a couple is drawn once for `per_couple` captions."""
    work, seed, count, per_couple, shares, thirds, mix = job
    from tokenizers import Tokenizer
    rng = random.Random(seed)
    captioner = Captioner.load(work)
    tokenizer = Tokenizer.from_file(str(Path(work) / "tokenizer/tokenizer.json"))
    texts, rows = [], []
    for kind, share in mix.items():
        for i in range(round(count * share)):
            canvas = rng.choices(range(len(shares)), shares)[0]
            if kind != "couple":
                text, row = captioner.random_scene(rng, kind, canvas)
                while not shown(row[0], canvas, thirds):
                    text, row = captioner.random_scene(rng, kind, canvas)
            else:
                if i % per_couple == 0:
                    left, right, background = captioner.random_couple(rng)
                    row = [left, right, -1, background, canvas, 0, 0, 0]
                text = captioner.couple_caption(rng, row[0], row[1], row[3])
            texts.append(text)
            rows.append(row)
    ids = np.zeros((len(texts), 64), np.int16)
    lengths = np.zeros(len(texts), np.int16)
    for i, encoding in enumerate(tokenizer.encode_batch([TEMPLATE.format(prompt=t) for t in texts])):
        n = min(len(encoding.ids), 64)
        if n < len(encoding.ids) or n > 32 and rows[i][4] > 0:
            lengths[i] = -1  # too long: dropped
            continue
        ids[i, :n] = encoding.ids
        lengths[i] = n
    rows = np.array(rows, np.int32).reshape(-1, FIELDS)
    keep = lengths > 0
    return ids[keep], lengths[keep], rows[keep]


def caption_pool(work, count, per_couple, seed, workers=None, shares=(1.0,), thirds=(0,), mix=MIX):
    """About `count` captions in the shares of `mix`, without those of more than 64 tokens (32 on canvases but the first):
    ids int16 [n, 64], lengths [n], rows [n, 8] of scenes.py. shares: how many are of each of its CANVASES; thirds: see
    shown()."""
    workers = workers or os.cpu_count()
    jobs = [(work, f"{seed}/{i}", count // workers, per_couple, shares, thirds, mix) for i in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        parts = pool.map(_captions, jobs)
    return [torch.from_numpy(np.concatenate(p)) for p in zip(*parts)]


def bucket(pool, device, quiet=False):
    """The pool by padded length, 32 and 64 tokens: each a tuple of tensors on the device, captions cut to the length.
    pool: ids, lengths, and anything else that has one row for each caption."""
    ids, lengths, *rest = pool
    buckets = []
    for width in (32, 64):
        chosen = (lengths <= width) & (lengths > width - 32)
        buckets.append((ids[chosen, :width].to(device), *(part[chosen].to(device) for part in (lengths, *rest))))
    if not quiet:
        print("captions of at most 32 and 64 tokens:", [len(b[0]) for b in buckets], flush=True)
    return buckets


class Sampler:
    """Goes through a bucket in random order, again and again."""

    def __init__(self, bucket):
        self.bucket, self.at, self.order = bucket, 0, None

    def __call__(self, n):
        if self.order is None or self.at + n > len(self.order):
            self.order, self.at = torch.randperm(len(self.bucket[0]), device=self.bucket[0].device), 0
        rows = self.order[self.at:self.at + n]
        self.at += n
        return [part[rows].long() for part in self.bucket]


class Names:
    """What the caption of a row (scenes.py) names, as class numbers."""

    def __init__(self, splits, device):
        self.count = len(splits.things)
        code = {thing: i for i, thing in enumerate(splits.things)}
        # The last row stands for "no second thing": index -1.
        self.thing = torch.tensor([code[thing] for thing, _ in splits.drawings + splits.absent] + [self.count], device=device)
        self.style = torch.tensor([STYLES.index(style) for _, style in splits.drawings + splits.absent], device=device)

    def __call__(self, rows):
        """[n, 4]: first thing, second thing or `count`, style, background."""
        left, right, background = rows.long()[:, (0, 1, 3)].unbind(1)
        return torch.stack([self.thing[left], self.thing[right], self.style[left], background], 1)


@torch.no_grad()
def encode_pictures(vae, drawings, own, rows, batch=256, autocast=True, factor=1):
    """Means [n, C, h, w] in bf16 of the pictures of rows (scenes.py) of one canvas, reduced by a factor; own:
    scenes.own_colour(drawings)."""
    device = drawings.device
    out = None
    palette = PALETTE.to(device)
    for part in rows.split(batch):
        x = picture(drawings, own, part.to(device), palette) / 127.5 - 1
        if factor > 1:
            x = F.avg_pool2d(x, factor)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast and has_bf16(device)):
            mean = vae.encode(x.to(memory_format=torch.channels_last))[0].bfloat16()
        if out is None:
            out, start = mean.new_empty(len(rows), *mean.shape[1:]), 0
        out[start:start + len(part)] = mean
        start += len(part)
    return out
