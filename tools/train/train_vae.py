#!/usr/bin/env python3
"""Trains the autoencoder on the drawings (those held back excepted).

    train_vae.py --work WORK --out DIR --minutes 5

The length is a time budget: the learning rate follows the share of it that is spent, so any machine ends with a finished
model. Started again with the same --out it goes on where it stopped. Writes DIR/vae.safetensors (float32; metadata:
scaling_factor, shift_factor, errors), DIR/vae-state.pt.
"""
import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import data
import export
import networks
from optim import Average, Muon, schedule
from splits import BACKGROUNDS


def random_batch(drawings, allowed, n, palette):
    """Pictures in -1..1: three quarters single drawings, the rest side by side; white, palette or any background."""
    device = drawings.device
    left = allowed[torch.randint(len(allowed), (n,), device=device)]
    right = allowed[torch.randint(len(allowed), (n,), device=device)]
    right = torch.where(torch.arange(n, device=device) < n * 3 // 4, -1, right)
    r = torch.rand(n, 1, device=device)
    colour = palette[torch.randint(len(palette), (n,), device=device)]
    colour = torch.where(r < 0.45, torch.full_like(colour, 255), colour)
    colour = torch.where(r > 0.85, torch.rand_like(colour) * 255, colour)
    x = data.compose(drawings, left, right, colour) / 127.5 - 1
    if torch.rand(()) < 0.5:
        x = x.flip(3)
    return x.contiguous(memory_format=torch.channels_last)


def edges(x, y):
    """L1 distance of the horizontal and vertical differences at three scales: blur and ringing cost here."""
    loss = 0
    d = x - y
    for scale in range(3):
        loss = loss + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        if scale < 2:
            d = F.avg_pool2d(d, 2)
    return loss


def reconstruction(x, y):
    """(loss, smoothed L1, mean squared error) of the decoded images."""
    difference = y - x
    l1 = torch.sqrt(difference.square() + 1e-6).mean()
    mse = difference.square().mean()
    return l1 + 4 * mse + edges(y, x), l1, mse


def losses(vae, x, noise):
    mean, logvar = vae.encode(x)
    mean, logvar = mean.float(), logvar.float()
    # Every latent channel is normalised over the batch, so that all are of one size for the transformer; fold() moves the
    # average of these statistics into the encoder's last convolution.
    deviation, average = torch.std_mean(mean, (0, 2, 3), keepdim=True)
    z = (mean - average) / (deviation + 1e-4) + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    # The transformer's latents are never exact: the decoder must draw clean edges from slightly wrong ones.
    level = noise * torch.rand(len(x), 1, 1, 1, device=x.device).square()
    z = z + level * torch.randn_like(z)
    y = vae.decode(z).float()
    kl = 0.5 * (logvar.exp() - 1 - logvar).mean()
    loss, l1, mse = reconstruction(x, y)
    return loss + 1e-4 * kl, l1, mse


@torch.no_grad()
def statistics(vae, batches, autocast):
    """Per-channel average and deviation of the encoder's means."""
    sums, squares, count = 0, 0, 0
    for x in batches:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            mean = vae.encode(x)[0].double()
        sums, squares, count = sums + mean.sum((0, 2, 3)), squares + mean.square().sum((0, 2, 3)), count + mean[:, 0].numel()
    average = sums / count
    return average.float(), (squares / count - average.square()).sqrt().float()


def fold(weights, average, deviation):
    """The same encoder with every latent channel at average 0 and deviation 1."""
    w, b = weights["encoder.conv_out.weight"], weights["encoder.conv_out.bias"]
    channels = len(deviation)
    w[:channels] /= deviation[:, None, None, None]
    b[:channels] = (b[:channels] - average) / deviation


@torch.no_grad()
def measure(vae, drawings, chosen, autocast):
    """Mean squared error (values 0..1) of the given drawings on white."""
    total = 0.0
    for start in range(0, len(chosen), 64):
        left = chosen[start:start + 64]
        white = torch.full((len(left), 3), 255.0, device=drawings.device)
        x = data.compose(drawings, left, torch.full_like(left, -1), white) / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            y = vae.decode(vae.encode(x)[0])
        total += ((y.float().clamp(-1, 1) - x) * 0.5).square().mean((1, 2, 3)).sum().item()
    return total / len(chosen)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--noise", type=float, default=0.25)
    parser.add_argument("--start", type=Path, help="begin from these weights, or from an exported folder")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 128

    drawings = data.load_drawings(args.work, device)
    trained, held = (torch.tensor(part, device=device) for part in data.trained_and_held(args.work))
    palette = data.PALETTE.to(device)
    assert len(palette) == len(BACKGROUNDS)

    vae = networks.Autoencoder().to(device, memory_format=torch.channels_last)
    for module in vae.modules():  # residual branches start small
        if isinstance(module, networks.ResnetBlock):
            module.conv2.weight.data.mul_(0.2)
    if args.start:
        vae.load_state_dict(export.read_vae(args.start)[0])
    optimizer = Muon(vae.named_parameters(), adam_only=("coder.conv_in", "coder.conv_out", "shortcut"), betas=(0.9, 0.99))
    average = Average(vae.parameters(), 0.998)
    step, spent = 0, 0.0
    state_file = args.out / "vae-state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow = state["average"]
        step, spent = state["step"], state["spent"]
        print(f"going on at step {step}, {spent:.0f} s")

    def save():
        torch.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": average.shadow, "step": step,
                    "spent": spent}, state_file)
        weights = {k: v.clone() for k, v in vae.state_dict().items()}
        average.swap()
        batches = (random_batch(drawings, trained, 64 if cuda else 4, palette) for _ in range(40 if cuda else 2))
        fold(vae.state_dict(), *statistics(vae, batches, cuda))
        chosen = trained[:: max(1, len(trained) // (1000 if cuda else 16))]
        mse = measure(vae, drawings, chosen, cuda)
        unseen = measure(vae, drawings, held if cuda else held[:8], cuda)
        print(f"mean squared error {mse:.6f} (PSNR {-10 * math.log10(mse):.2f} dB), held-back drawings {unseen:.6f} "
              f"(PSNR {-10 * math.log10(unseen):.2f} dB)", flush=True)
        save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, args.out / "vae.safetensors",
                  {"scaling_factor": "1.0", "shift_factor": "0.0", "mse": f"{mse:.6f}", "mse_held_back": f"{unseen:.6f}"})
        average.swap()
        vae.load_state_dict(weights)

    if not args.no_compile and cuda:
        networks.compile_blocks(vae)
    budget = args.minutes * 60
    begun, before = time.time(), spent
    report, shown = time.time(), step
    while spent < budget:
        x = random_batch(drawings, trained, args.batch, palette)
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            loss, l1, mse = losses(vae, x, args.noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0, foreach=True)
        optimizer.step(args.lr * schedule(spent / budget, flat=0.3))
        optimizer.zero_grad()
        average.update(step)
        step += 1
        if step % 50 == 0 and cuda:
            torch.cuda.synchronize()
        spent = before + time.time() - begun
        if step % 200 == 0 or (not cuda and step % 2 == 0):
            rate = (step - shown) * args.batch / (time.time() - report)
            print(f"step {step} {spent:.0f} s, {rate:.0f} pictures/s: loss {loss.item():.4f} l1 {l1.item():.4f} "
                  f"mse {mse.item() / 4:.6f}", flush=True)
            report, shown = time.time(), step
            if not math.isfinite(loss.item()):
                raise SystemExit("the loss is not finite: try a lower --lr")
    save()


if __name__ == "__main__":
    main()
