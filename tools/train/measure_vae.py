#!/usr/bin/env python3
"""Measures the autoencoder of an exported folder in float32: what img2img and inpainting can count on.

    measure_vae.py --work WORK [--model models/emoji] [--count 48]

Every kind of image, 256 x 256, is encoded and decoded. Columns: PSNR in dB of the decoded mean, its average and its
smallest; the same of a decoded sample, which img2img takes; the largest difference of the two in levels of 255; the
posterior's deviation; average and deviation of the latents, which are 0 and 1 over all that the transformer learned from.

Then inpainting's case: the latents of a rectangle are exchanged for those of another drawing, all others stay as they
are. Columns: by how much pixels change that are at least so many latents away from the rectangle, and how many change by
more than 2 levels. The decoder's normalisations and its attention see the whole image, so these are not zero.
"""
import argparse
from pathlib import Path

import torch

import data
import export
import networks

SIZE, CELL = networks.SIZE, networks.REDUCTION
RECTANGLES = {"corner of 4 x 4": (0, 0, 4, 4), "corner of 8 x 8": (0, 0, 8, 8), "middle of 6 x 6": (5, 5, 11, 11),
              "left half": (0, 0, 16, 8)}  # first row, first column, last row + 1, last column + 1
DISTANCES = (0, 1, 2, 4)


def kinds(trained, held, generator):
    """name -> images [n, 3, SIZE, SIZE] in -1..1, whole levels of 255."""
    n = len(held)

    def drawn(drawings, colours):
        every = torch.arange(n)
        return data.compose(drawings, every, torch.full_like(every, -1), colours)

    def colours():
        return torch.rand(n, 3, generator=generator) * 255

    images = {
        "drawings trained on, on white": drawn(trained, torch.full((n, 3), 255.0)),
        "drawings held back, on white": drawn(held, torch.full((n, 3), 255.0)),
        "drawings held back, on the palette": drawn(held, data.PALETTE[torch.arange(n) % len(data.PALETTE)]),
        "drawings held back, on any colour": drawn(held, colours()),
        "a colour of the palette": data.PALETTE[:, :, None, None].expand(-1, 3, SIZE, SIZE),
        "any colour": colours()[:, :, None, None].expand(n, 3, SIZE, SIZE),
        "a gradient of two colours": data.gradients(n, SIZE, SIZE, generator),
        "clouds of any colour": data.clouds(n, SIZE, SIZE, generator),
    }
    return {name: x.round() / 127.5 - 1 for name, x in images.items()}


def levels(y):
    return ((y.clamp(-1, 1) + 1) * 127.5).round()


def psnr(x, y):
    return -10 * torch.log10(((x - y.clamp(-1, 1)) / 2).square().mean((1, 2, 3)).clamp_min(1e-10))


def measure(vae, x, generator, batch=8):
    """The numbers of a kind's row."""
    parts = []
    for x in x.split(batch):
        mean, logvar = vae.encode(x)
        deviation = torch.exp(0.5 * logvar)
        y = vae.decode(mean)
        sample = vae.decode(mean + deviation * torch.randn(mean.shape, generator=generator, device=mean.device))
        parts.append((psnr(x, y), psnr(x, sample), (levels(y) - levels(sample)).abs().amax((1, 2, 3)),
                      deviation.flatten(1), mean.flatten(1)))
    of_mean, of_sample, apart, deviation, mean = map(torch.cat, zip(*parts))
    return (of_mean.mean(), of_mean.min(), of_sample.mean(), of_sample.min(), apart.max(), deviation.mean(),
            mean.mean(), mean.std())


def leaks(vae, x, rectangle, batch=8):
    """{distance in latents: (largest change, percent of pixels that change by more than 2)} outside of the rectangle."""
    top, left, bottom, right = rectangle
    changes = []
    for x in x.split(batch):
        mean = vae.encode(x)[0]
        other = mean.clone()
        other[..., top:bottom, left:right] = mean.roll(1, 0)[..., top:bottom, left:right]
        changes.append((levels(vae.decode(other)) - levels(vae.decode(mean))).abs().amax(1))
    change, result = torch.cat(changes), {}
    for distance in DISTANCES:
        outside = torch.ones(SIZE, SIZE, dtype=torch.bool, device=x.device)
        outside[max(0, (top - distance) * CELL):(bottom + distance) * CELL,
                max(0, (left - distance) * CELL):(right + distance) * CELL] = False
        seen = change[:, outside]
        result[distance] = (seen.max(), 100 * (seen > 2).float().mean())
    return result


def report(vae, images, generator):
    """Prints a row for each kind."""
    print(f"{'':36s}{'mean':>6s}{'least':>7s}{'sample':>8s}{'least':>7s}{'apart':>7s}{'deviation':>11s}"
          f"{'latents':>14s}")
    for name, x in images.items():
        row = measure(vae, x, generator)
        print(f"{name:36s}{row[0]:6.1f}{row[1]:7.1f}{row[2]:8.1f}{row[3]:7.1f}{row[4]:7.0f}{row[5]:11.4f}"
              f"{row[6]:8.3f}{row[7]:6.3f}", flush=True)


def load_images(work, count, generator, device):
    trained, held = data.trained_and_held(work)
    n = min(count, len(held))
    chosen = trained[::max(1, len(trained) // n)][:n]
    images = kinds(*(data.load_drawings(work, chosen=part) for part in (chosen, held[:n])), generator)
    return {name: x.to(device) for name, x in images.items()}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parents[2] / "models/emoji",
                        help="an exported folder, or a file of train_vae.py or train_encoder.py")
    parser.add_argument("--count", type=int, default=48, help="images of a kind; at most 220")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = networks.Autoencoder().eval()
    vae.load_state_dict(export.read_vae(args.model)[0])
    vae.to(device)
    images = load_images(args.work, args.count, torch.Generator().manual_seed(1), device)
    report(vae, images, torch.Generator(device).manual_seed(1))
    print("\nlatents exchanged in a        " + "".join(f"{f'{d} or more away':>20s}" for d in DISTANCES))
    for name, rectangle in RECTANGLES.items():
        found = leaks(vae, images["drawings held back, on white"], rectangle)
        print(f"{name:30s}" + "".join(f"{f'{most:.0f} ({share:.1f} % > 2)':>20s}" for most, share in found.values()),
              flush=True)


if __name__ == "__main__":
    main()
