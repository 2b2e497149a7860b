#!/usr/bin/env python3
"""Trains the encoder or the decoder of an exported folder further, beside the other, which is frozen.

    train_encoder.py --work WORK --model models/emoji --out DIR --minutes 3.5
    train_encoder.py --work WORK --model models/emoji --out DIR --minutes 3.5 --part decoder --drawings 512

The decoder learns to draw crisp edges at all of scenes.CANVASES, from latents that noise made slightly wrong, as
train_vae.py does it; half of a batch are scenes of drawings. Latents mean what they did, so the transformer stays right. The
encoder is trained on images that are no drawings too:

Half of a batch are the drawings of train_vae.py; the encoder keeps to the latents that it had for them, from which the
transformer learned. The rest are drawings anywhere on anything, colours, gradients and clouds; 2 of 5 batches have other
sizes than 256 x 256. The length is a time budget, as train_vae.py's. Started again with the same --out it goes on where
it stopped. Writes DIR/vae.safetensors (all of the autoencoder; export.py --vae takes it, or the
folder's vae/) and DIR/PART-state.pt; prints measure_vae.py's rows before and after.
"""
import argparse
import copy
import math
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import data
import export
import measure_vae
import networks
from optim import Average, Muon, schedule
from scenes import CANVAS_WEIGHTS, CANVASES, FIELDS, own_colour, picture
from train_vae import random_batch, reconstruction

SIZES = [(96, 96), (128, 128), (192, 256), (256, 192), (320, 320), (256, 384)]  # rows, columns


def plain(n, height, width, device):
    """Images in 0..255 without a drawing: a colour, a gradient, clouds."""
    colour = (torch.rand(n, 3, 1, 1, device=device) * 255).expand(n, 3, height, width)
    kind = torch.rand(n, 1, 1, 1, device=device)
    x = torch.where(kind < 0.4, colour, data.gradients(n, height, width, device=device))
    return torch.where(kind > 0.9, data.clouds(n, height, width, device=device), x)


def mixed_batch(drawings, trained, n, height, width, palette):
    """(images in -1..1, the number of drawings of train_vae.py among them, which come first)."""
    device = drawings.device
    anchored = n // 2 if (height, width) == (networks.SIZE, networks.SIZE) else 0
    parts = [random_batch(drawings, trained, anchored, palette)] if anchored else []
    x = plain(n - anchored, height, width, device)
    placed = (n - anchored) // 2
    which = trained[torch.randint(len(trained), (placed,), device=device)]
    x[:placed] = data.place(drawings, which, x[:placed])
    parts.append(x / 127.5 - 1)
    return torch.cat(parts).contiguous(memory_format=torch.channels_last), anchored


def scene_batch(drawings, own, trained, n, canvas, palette):
    """Images in -1..1 of one canvas: half of them scenes of one or two drawings, half as in mixed_batch."""
    device, half = drawings.device, (n + 1) // 2
    rows = torch.zeros(half, FIELDS, dtype=torch.int32, device=device)
    rows[:, :3] = -1
    rows[:, 0] = trained[torch.randint(len(trained), (half,), device=device)]
    rows[:half // 4, 1] = trained[torch.randint(len(trained), (half // 4,), device=device)]
    rows[:, 3] = torch.randint(len(palette), (half,), device=device) * (torch.rand(half, device=device) < 0.5)
    rows[:, 4], rows[half // 2:, 6] = canvas, (torch.rand(half - half // 2, device=device) < 0.2).int()
    width, height = CANVASES[canvas]
    others = plain(n - half, height, width, device)
    placed = (n - half) // 2
    which = trained[torch.randint(len(trained), (placed,), device=device)]
    others[:placed] = data.place(drawings, which, others[:placed])
    x = torch.cat([picture(drawings, own, rows, palette), others]) / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def decoder_losses(encoder, decoder, x, noise):
    """noise: the most that is added to the latents, whose deviation is 1."""
    with torch.no_grad():
        mean = encoder(x).float().chunk(2, 1)[0]
        z = mean + noise * torch.rand(len(x), 1, 1, 1, device=x.device).square() * torch.randn_like(mean)
    loss, l1, mse = reconstruction(x, decoder(z).float())
    return loss, l1, mse, mse.new_zeros(())


def losses(encoder, former, decoder, x, anchored, hold):
    """hold: the weight of the difference from the former encoder's latents of the first `anchored` images."""
    mean, logvar = encoder(x).float().chunk(2, 1)
    logvar = logvar.clamp(-30, 20)
    kl = 0.5 * (logvar.exp() - 1 - logvar).mean()
    y = decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)).float()
    loss, l1, mse = reconstruction(x, y)
    moved = mean.new_zeros(())
    if anchored:
        with torch.no_grad():
            before = former(x[:anchored]).float().chunk(2, 1)[0]
        moved = (mean[:anchored] - before).square().mean()
    return loss + 1e-4 * kl + hold * moved, l1, mse, moved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.5)
    parser.add_argument("--batch", type=int, default=32, help="images of 256 x 256; as many pixels of other sizes")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--hold", type=float, default=0.5)
    parser.add_argument("--count", type=int, default=24, help="images of a kind that are measured")
    parser.add_argument("--part", choices=["encoder", "decoder"], default="encoder")
    parser.add_argument("--noise", type=float, default=0.25, help="of the decoder's latents")
    parser.add_argument("--drawings", type=int, choices=[256, 512], default=256, help="as in train.py; for the decoder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True

    decoder = args.part == "decoder"
    drawings = data.load_drawings(args.work, device, args.drawings if decoder else networks.SIZE)
    own = [torch.cat(parts) for parts in zip(*(own_colour(part) for part in drawings.split(256)))] if decoder else None
    trained = torch.tensor(data.trained_and_held(args.work)[0], device=device)
    palette = data.PALETTE.to(device)
    images = measure_vae.load_images(args.work, args.count, torch.Generator().manual_seed(1), device)
    vae = networks.Autoencoder()
    weights, scaling, shift = export.read_vae(args.model)
    vae.load_state_dict(weights)
    vae.to(device, memory_format=torch.channels_last).requires_grad_(False)
    live = vae.decoder if decoder else vae.encoder
    live.requires_grad_(True)
    former = copy.deepcopy(vae.encoder).requires_grad_(False)
    optimizer = Muon(live.named_parameters(), adam_only=("conv_in", "conv_out", "shortcut"), betas=(0.9, 0.99))
    average = Average(live.parameters(), 0.998)
    step, spent = 0, 0.0
    state_file = args.out / f"{args.part}-state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        live.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow = state["average"]
        step, spent = state["step"], state["spent"]
        print(f"going on at step {step}, {spent:.0f} s")

    def measure():
        with torch.no_grad():
            measure_vae.report(vae, images, torch.Generator(device).manual_seed(1))

    def save():
        torch.save({"weights": live.state_dict(), "optimizer": optimizer.state_dict(), "average": average.shadow,
                    "step": step, "spent": spent}, args.out / "state.new")
        (args.out / "state.new").rename(state_file)
        average.swap()
        rounded = {k: v.bfloat16().float().contiguous() for k, v in vae.state_dict().items()}  # as the folder has them
        average.swap()
        save_file(rounded, args.out / "vae.safetensors",
                  {"scaling_factor": str(scaling), "shift_factor": str(shift)})
        return rounded

    if not step:
        measure()
    budget = args.minutes * 60
    begun, before, saved = time.time(), spent, time.time()
    report, images_shown = time.time(), 0
    while spent < budget:
        if decoder:
            canvas = random.choices(range(len(CANVASES)), CANVAS_WEIGHTS)[0]
            width, height = CANVASES[canvas]
        else:
            height, width = SIZES[torch.randint(len(SIZES), ())] if torch.rand(()) < 0.4 else (networks.SIZE, networks.SIZE)
        n = max(4, min(2 * args.batch, args.batch * networks.SIZE ** 2 // (height * width)))
        if decoder:
            x = scene_batch(drawings, own, trained, n, canvas, palette)
        else:
            x, anchored = mixed_batch(drawings, trained, n, height, width, palette)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            if decoder:
                loss, l1, mse, moved = decoder_losses(vae.encoder, vae.decoder, x, args.noise)
            else:
                loss, l1, mse, moved = losses(vae.encoder, former, vae.decoder, x, anchored, args.hold)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(live.parameters(), 1.0, foreach=True)
        optimizer.step(args.lr * schedule(spent / budget, flat=0.3))
        optimizer.zero_grad()
        average.update(step)
        step += 1
        images_shown += n
        if step % 50 == 0 and cuda:
            torch.cuda.synchronize()
        spent = before + time.time() - begun
        if step % 100 == 0 or (not cuda and step % 5 == 0):
            print(f"step {step} {spent:.0f} s, {images_shown / (time.time() - report):.0f} images/s, {height} x {width}: "
                  f"loss {loss.item():.4f} l1 {l1.item():.4f} mse {mse.item() / 4:.6f} moved {moved.item():.5f}", flush=True)
            report, images_shown = time.time(), 0
            if not math.isfinite(loss.item()):
                raise SystemExit("the loss is not finite: try a lower --lr")
        if time.time() - saved > 60:
            save()
            saved = time.time()
    vae.load_state_dict(save())
    measure()


if __name__ == "__main__":
    main()
