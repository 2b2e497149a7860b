"""What a training picture shows, as a row of numbers, and the picture of it at any size.

A row is int32 [8]: up to three drawings (-1: none; all of one size, side by side), the background (splits.BACKGROUNDS), the
canvas (CANVASES), the colour that the drawing is painted in (0: its own, else 1 + index in PAINTS), whether it is small (1), and
where it is (PLACES). A drawing alone fills the square in the middle of the canvas; n drawings fill n equal parts of its
width, each in the middle of its part. The canvas beyond is background.
"""
import torch
import torch.nn.functional as F

from splits import BACKGROUNDS

# Width and height in pixels. Tokens of 32 x 32 pixels are padded to 32, 64, 96, 128, 160 or 256: few shapes to compile.
CANVASES = [(256, 256), (128, 128), (128, 192), (192, 128), (128, 256), (256, 128), (192, 192), (192, 256), (256, 192),
            (192, 320), (320, 192), (256, 384), (384, 256), (320, 320), (320, 384), (384, 320), (256, 512), (512, 256),
            (384, 384), (512, 512)]
# How often each is trained; the first is where the old tests are.
CANVAS_WEIGHTS = [24] + [1] * 5 + [2] + [1] * 2 + [1] * 2 + [2] * 2 + [1] * 3 + [2] * 2 + [5, 5]
PLACES = ["middle", "left", "right", "top", "bottom"]
# What an adjective paints a thing in: the colours of the palette.
PAINTS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "white", "black"]
# White things are a little gray, or nobody would see them on white.
SHADES = {name: BACKGROUNDS[name] for name in PAINTS} | {"white": (226, 226, 233)}
SMALL = 2  # a small thing has half the side
FIELDS = 8


def keys(rows):
    """Rows (a tensor) as NumPy integers, equal where the rows are."""
    key = 0
    for field, bits in zip(rows.long().unbind(1), (13, 13, 13, 4, 5, 4, 1, 3)):
        key = key << bits | (field + (bits == 13))  # -1 is no drawing
    return key.numpy()


def tokens(canvas):
    """Image tokens of a canvas, padded."""
    width, height = canvas
    return -(-(width // 32) * (height // 32) // 32) * 32


def to_hsv(rgb):
    """[n, 3, ...] in 0..1 -> the same in 0..1."""
    most, where = rgb.max(1)
    least = rgb.min(1).values
    span = (most - least).clamp_min(1e-6)
    r, g, b = rgb.unbind(1)
    hue = torch.where(where == 0, ((g - b) / span) % 6, torch.where(where == 1, (b - r) / span + 2, (r - g) / span + 4)) / 6
    return torch.stack([hue, (most - least) / most.clamp_min(1e-6), most], 1)


def to_rgb(hsv):
    hue, saturation, value = hsv.unbind(1)
    k = torch.stack([(n + hue * 6) % 6 for n in (5, 3, 1)], 1)
    shade = torch.minimum(torch.minimum(k, 4 - k), torch.ones_like(k)).clamp_min(0)
    return value[:, None] * (1 - saturation[:, None] * shade)


def near(hue, centre):
    """Is the hue at most 35 degrees from the other?"""
    return ((hue - centre + 0.5) % 1 - 0.5).abs() < 35 / 360


def own_colour(drawings):
    """(hue [n], share [n], saturation [n], value [n]) of the colour that most of a drawing's opaque area has; uint8 [n, 4, S, S]."""
    x = F.avg_pool2d(drawings.float(), max(1, drawings.shape[-1] // 64)) / 255
    hsv, alpha = to_hsv(x[:, :3]).flatten(2), x[:, 3].flatten(1)
    weight = alpha * (hsv[:, 1] > 0.2) * (hsv[:, 2] > 0.15)
    bins = torch.zeros(len(x), 36, device=x.device)
    bins.scatter_add_(1, (hsv[:, 0] * 36).long().clamp(0, 35), weight)
    smooth = bins + bins.roll(1, 1) + bins.roll(-1, 1)
    hue = (smooth.argmax(1) + 0.5) / 36
    chosen = weight * near(hsv[:, 0], hue[:, None])
    total = chosen.sum(1).clamp_min(1e-6)
    return hue, total / alpha.sum(1).clamp_min(1e-6), (chosen * hsv[:, 1]).sum(1) / total, (chosen * hsv[:, 2]).sum(1) / total


def paint(drawings, paints, own):
    """Drawings (floats 0..255, straight alpha) whose own colour is replaced; paints [n]: 0 for those that stay."""
    hue, _, saturation, value = (part[:, None, None] for part in own)
    palette = torch.tensor([SHADES[name] for name in PAINTS], device=drawings.device, dtype=torch.float32) / 255
    target = to_hsv(palette[..., None]).squeeze(-1)[(paints - 1).clamp_min(0)][..., None, None]
    hsv = to_hsv(drawings[:, :3] / 255)
    changed = torch.stack([
        target[:, 0].expand_as(hsv[:, 0]), (hsv[:, 1] * target[:, 1] / saturation.clamp_min(0.05)).clamp(0, 1),
        (hsv[:, 2] * target[:, 2] / value.clamp_min(0.05)).clamp(0, 1)], 1)
    use = (near(hsv[:, 0], hue) & (hsv[:, 1] > 0.15) & (paints > 0)[:, None, None])[:, None]
    return torch.cat([torch.where(use, to_rgb(changed) * 255, drawings[:, :3]), drawings[:, 3:]], 1)


def boxes(count, small, place, canvas):
    """[(left, top, side)] of each of `count` drawings on a canvas."""
    width, height = canvas
    side = min(width // count, height) // (SMALL if small else 1)
    part = width // count
    left = [i * part + (part - side) // 2 for i in range(count)]
    top = (height - side) // 2
    name = PLACES[place]
    if name in ("left", "right"):
        left = [0 if name == "left" else width - side]
    elif name in ("top", "bottom"):
        top = 0 if name == "top" else height - side
    return [(x, top, side) for x in left]


def resize(drawings, side):
    """Straight alpha, floats -> premultiplied colours 0..255 and alpha 0..1 at side x side."""
    alpha = drawings[:, 3:] / 255
    x = torch.cat([drawings[:, :3] * alpha, alpha], 1)
    if side == x.shape[-1]:
        return x
    if side > x.shape[-1]:
        return F.interpolate(x, (side, side), mode="bicubic", align_corners=False).clamp_min(0)
    return F.adaptive_avg_pool2d(x, side)


def picture(drawings, own, rows, palette):
    """[n, 3, height, width] in 0..255 of rows that have one canvas; own: own_colour(drawings)."""
    rows = rows.long()
    width, height = CANVASES[int(rows[0, 4])]
    out = palette[rows[:, 3]][:, :, None, None].expand(-1, -1, height, width).clone()
    count = (rows[:, :3] >= 0).sum(1)
    layout = (count * 2 + rows[:, 6]) * len(PLACES) + rows[:, 7]
    for key in layout.unique().tolist():
        chosen = (layout == key).nonzero()[:, 0]
        first = rows[chosen[0]]
        pictures = out[chosen]
        for slot, (left, top, side) in enumerate(boxes(int(count[chosen[0]]), int(first[6]), int(first[7]), (width, height))):
            which = rows[chosen, slot]
            d = drawings[which].float()
            paints = rows[chosen, 5]
            painted = (paints > 0).nonzero()[:, 0]
            if len(painted):
                d[painted] = paint(d[painted], paints[painted], [part[which[painted]] for part in own])
            d = resize(d, side)
            area = pictures[:, :, top:top + side, left:left + side]
            area.copy_(d[:, :3] + area * (1 - d[:, 3:]))
        out[chosen] = pictures
    return out.clamp(0, 255)
