#!/usr/bin/env python3
"""Trains the text encoder and the transformer together, on latents of the finished autoencoder.

    train.py --work WORK --vae vae.safetensors --start TEXT --out COARSE --size 128 --end 0.3 --minutes 7
    train.py --work WORK --vae vae.safetensors --start COARSE --out FINE --minutes 14

The first line learns which words mean which drawing on pictures of half the side, where a sample costs a third and tokens lie
in the middle of the full picture's that cover the same part; the second draws at full size. TEXT is what pretrain_text.py
wrote; --vae and --start also take an exported folder.

All pictures are encoded once at the start (every trained drawing on white and on its six colours, and --couples pairs side
by side); training then only looks latents up. Rectified flow: x = (1 - sigma) * clean + sigma * noise, the network sees
t = 1 - sigma and predicts clean - noise. The naming heads of pretrain_text.py stay, with a small weight.

The length is a time budget, as in train_vae.py. Started again with the same --out it goes on where it stopped. Writes
DIR/model-<n>.safetensors (averaged weights, bf16, in parts) every minute, DIR/state.pt every five minutes and at the end.
"""
import argparse
import time
from pathlib import Path

import torch

import analogies
import data
import export
import networks
from captions import MIX, Captioner
from networks import SHIFT
from optim import Average, Muon, schedule
from pretrain_text import ADAM_ONLY, make_model
from splits import BACKGROUNDS

# How often each of the sampler's eight noise levels is trained, from pure noise on. At pure noise the drawing follows from
# the words alone, and what is begun there the later steps continue.
LEVELS = [5, 3, 2, 2, 2, 2, 2, 2]


def build_pools(args, splits, device):
    """(latents bf16, which of them are of made-up drawings, per bucket (ids, lengths, latent index, names))."""
    begun = time.time()
    per_couple = max(1, round(args.captions * MIX["couple"] / args.couples))
    ids, lengths, rows = data.caption_pool(args.work, args.captions, per_couple, args.seed)
    print(f"{len(ids)} captions in {time.time() - begun:.0f} s", flush=True)
    drawings = data.load_drawings(args.work, device, args.size)
    print(f"drawings decoded after {time.time() - begun:.0f} s", flush=True)
    count = len(drawings)
    drawings = torch.cat([drawings, analogies.synthesise(drawings, splits, args.work)])
    print(f"{len(drawings) - count} absent drawings made up after {time.time() - begun:.0f} s", flush=True)
    # One picture for each distinct row; n captions can share one.
    key = (rows[:, 0].long() * 8192 + (rows[:, 1].long() + 1)) * 16 + rows[:, 2].long()
    unique, index = key.unique(return_inverse=True)
    pictures = torch.stack([unique // 16 // 8192, unique // 16 % 8192 - 1, unique % 16], -1)
    names = list(BACKGROUNDS)
    for left, right, background in pictures[::97].tolist():  # nothing held back may get here
        if left >= count:
            continue
        things = [splits.drawings[i] for i in (left, right) if i >= 0]
        assert not any(t in splits.held_pair_set for t in things)
        assert names[background] == "white" or all(names[background] in splits.seen_colours(t) for t, _ in things)
        assert right < 0 or splits.couple_allowed(things[0][0], things[1][0])
    weights, scaling, shift = export.read_vae(args.vae)
    vae = networks.Autoencoder().to(device, memory_format=torch.channels_last).eval()
    vae.load_state_dict(weights)
    if device.type == "cuda" and not args.no_compile:
        networks.compile_blocks(vae.encoder)
    latents = data.encode_pictures(vae, drawings, pictures, batch=256 if device.type == "cuda" else 16)
    for start in range(0, len(latents), 4096):
        part = latents[start:start + 4096]
        part.copy_((part.float() - shift) * scaling)
    print(f"{len(pictures)} pictures encoded after {time.time() - begun:.0f} s; latents {latents[::50].float().mean():.3f} "
          f"+- {latents[::50].float().std():.3f}", flush=True)
    return latents, (pictures[:, 0] >= count).to(device), data.bucket((ids, lengths, index, data.Names(splits, "cpu")(rows)), device)


def record(gradients, batch):
    """`gradients` as one CUDA graph: a step of this size is thousands of small kernels, which Python launches more slowly than
    the GPU runs them. None: it could not be recorded."""
    static = [part.clone() for part in batch]
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                gradients(static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = gradients(static)
    except RuntimeError as error:
        print(f"without a CUDA graph: {str(error).splitlines()[0]}", flush=True)
        return None

    def replay(batch):
        for mine, theirs in zip(static, batch):
            mine.copy_(theirs)
        graph.replay()
        return losses

    return replay


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, nargs="+", help="begin from these weights, or from a folder of weights")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--until", type=float, help="train up to this time (seconds since 1970) instead of --minutes")
    parser.add_argument("--size", type=int, choices=[128, 256], default=256, help="side of the training pictures")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--end", type=float, default=0.0, help="share of the learning rate that is left at the end")
    parser.add_argument("--levels", type=float, nargs=8, default=LEVELS, help="weights of the sampler's noise levels")
    parser.add_argument("--grid", type=float, default=0.75, help="share of samples at those levels, the rest between them")
    parser.add_argument("--begin", type=int, default=6,
                        help="at how many of the sampler's levels, from pure noise on, made-up drawings (analogies.py) are trained")
    parser.add_argument("--naming", type=float, default=0.02, help="weight of the naming loss; 0: without")
    parser.add_argument("--captions", type=int, default=1_600_000, help="captions in the pool")
    parser.add_argument("--couples", type=int, default=100_000, help="side-by-side pictures in the pool")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between checkpoints of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup", type=float, default=0.02)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graph", action="store_true", help="launch every kernel of a step from Python")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(args.seed)
    torch._dynamo.config.recompile_limit = 128
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    splits = Captioner.load(args.work).splits
    latents, made_up, buckets = build_pools(args, splits, device)
    model = make_model(args.start, len(splits.things), device)
    transformer, text, naming = model["transformer"], model["text_encoder"], model["naming"]
    naming.requires_grad_(args.naming > 0)
    transformer.spread = 256 // args.size
    live = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = Muon(live, adam_only=ADAM_ONLY)
    average = Average([p for _, p in live], 0.998)
    step, spent = 0, 0.0
    state_file = args.out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.shadow = state["average"]
        step, spent = state["step"], state["spent"]
        print(f"going on at step {step}, {spent:.0f} s")

    def save(state=True):
        if state:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.shadow,
                        "step": step, "spent": spent}, state_file)
        average.swap()
        export.save_parts(model, args.out)
        average.swap()

    if cuda and not args.no_compile:
        networks.compile_blocks(transformer, text)
    grid = networks.sigmas()[:-1].to(device)
    edges = (torch.tensor(args.levels).cumsum(0) / sum(args.levels))[:-1].to(device)
    samplers = [data.Sampler(b) for b in buckets]
    begun, before = time.time(), spent
    budget = before + args.until - begun if args.until else args.minutes * 60
    report, seen, terms, saved, saves = begun, 0, 0, begun, 0
    total, total_naming = torch.zeros((), device=device), torch.zeros((), device=device)
    params = [p for _, p in live]

    def gradients(batch, stance="default"):
        """Leaves the gradients of one batch in the parameters; returns its two losses."""
        ids, lengths, index, names = batch
        n = len(ids)
        clean = latents[index].float()
        noise = torch.randn_like(clean)
        # Mostly one of the eight noise levels that the sampler visits, else any, in the sampler's density.
        u = torch.rand(n, device=device)
        sigma = torch.where(torch.rand(n, device=device) < args.grid,
                            grid[torch.searchsorted(edges, torch.rand(n, device=device), right=True)],
                            SHIFT * u / (1 + (SHIFT - 1) * u))
        # A drawing that was made up is only right in the large: it is begun with, never finished.
        begin = grid[(torch.rand(n, device=device) * args.begin).long()]
        sigma = torch.where(made_up[index] & (sigma < grid[args.begin - 1]), begin, sigma)
        s = sigma[:, None, None, None]
        x = (1 - s) * clean + s * noise
        with torch.compiler.set_stance(stance), \
                torch.autocast("cuda", torch.bfloat16, enabled=cuda, cache_enabled=False):
            e = transformer.refine(text(ids), lengths)
            out = transformer(x, 1 - sigma, e)
            named = naming.loss(e, lengths, names) if args.naming else torch.zeros((), device=device)
        loss = (out.float() - (clean - noise)).square().mean()
        if params[0].grad is not None:  # in place: a recorded graph writes to these
            torch._foreach_zero_([p.grad for p in params])
        ((loss + args.naming * named) * (n / args.batch)).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        return loss.detach(), named.detach()

    replay = None
    if cuda and not args.no_graph:
        replay = record(gradients, samplers[0](min(args.batch, len(buckets[0][0]))))
    print("training", flush=True)
    while spent < budget:
        long = step % 24 == 23 and len(buckets[1][0]) > 0
        n = min(args.batch // 4 if long else args.batch, len(buckets[long][0]))
        batch = samplers[long](n)
        if replay and not long:
            loss, named = replay(batch)
        else:  # few captions are long: not worth compiling for
            loss, named = gradients(batch, "force_eager" if long else "default")
        optimizer.step(args.lr * schedule(spent / budget, args.warmup, 0.4, args.end))
        average.update(step)
        step += 1
        seen += n
        total += loss
        total_naming += named
        terms += 1
        if step % 20 == 0 and cuda:
            torch.cuda.synchronize()
        spent = before + time.time() - begun
        if step % 200 == 0 or step in (5, 20, 50, 100) or not cuda:
            print(f"step {step} {spent:.0f} s, {seen / (time.time() - report):.0f} samples/s: loss "
                  f"{total.item() / terms:.4f}, naming {total_naming.item() / terms:.3f}", flush=True)
            if not total.isfinite():
                raise SystemExit("the loss is not finite: try a lower --lr")
            report, seen, terms = time.time(), 0, 0
            total.zero_()
            total_naming.zero_()
        if time.time() - saved > args.save_every:
            saves += 1
            save(state=saves % 5 == 0)
            saved = time.time()
    save()
    print(f"done: {step} steps, {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
