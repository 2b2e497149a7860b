#!/usr/bin/env python3
"""Trains the text encoder and the transformer together, on latents of the finished autoencoder.

    train.py --work WORK --vae vae.safetensors --start TEXT --out FINE --minutes 14 [--canvases 20]
    train.py --work WORK --vae vae.safetensors --start TEXT --out COARSE --size 128 --end 0.3 --minutes 7

The first line draws at 256 x 256, or with --canvases at the first so many sizes of scenes.CANVASES. The second learns which
words mean which drawing on pictures of half the side, where a sample costs a third and tokens lie in the middle of the full
picture's that cover the same part. TEXT is what pretrain_text.py wrote; --vae and --start also take an exported folder.

All pictures of a pool of captions are encoded once at the start; training then only looks latents up. Each batch has
one size of pictures and one padded length of captions. Rectified flow: x = (1 - sigma) * clean + sigma * noise, the network sees
t = 1 - sigma and predicts clean - noise. The naming heads of pretrain_text.py stay, with a small weight.

Several GPUs share the work if torchrun starts the program, one process each: each has captions and pictures of its own and a
batch of its own, gradients are averaged, and the first process decides about time and writes.

The length is a time budget, as in train_vae.py. Started again with the same --out it goes on where it stopped. Writes
DIR/model-<n>.safetensors (averaged weights, bf16, in parts) every minute, DIR/state.pt every five minutes and at the end.
"""
import argparse
import os
import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import analogies
import data
import export
import networks
import scenes
from captions import MIX, PLAIN, Captioner
from networks import SHIFT
from optim import Average, Muon, schedule
from pretrain_text import ADAM_ONLY, make_model
from scenes import CANVASES, CANVAS_WEIGHTS, own_colour, tokens
from splits import BACKGROUNDS

# How often each of the sampler's eight noise levels is trained, from pure noise on. At pure noise the drawing follows from
# the words alone, and what is begun there the later steps continue.
LEVELS = [5, 3, 2, 2, 2, 2, 2, 2]


def check_held_back(rows, splits):
    """Nothing held back may get into training."""
    names = list(BACKGROUNDS)
    for row in rows.tolist():
        drawn = {i for i in row[:3] if i >= 0}
        if max(drawn) >= len(splits.drawings):
            continue  # made up
        things = [splits.drawings[i] for i in drawn]
        background = names[row[3]]
        assert not any(t in splits.held_pair_set for t in things)
        assert background == "white" or all(background in splits.seen_colours(t) for t, _ in things)
        assert len(things) < 2 or splits.couple_allowed(things[0][0], things[1][0])


def load_scenes(args, splits, device):
    """(drawings with those that analogies.py makes up, how many are real, their own colours)."""
    drawings = data.load_drawings(args.work, device, args.drawings)
    count = len(drawings)
    if not args.plain:
        made_up = analogies.synthesise(drawings, splits, args.work)
        drawings = torch.cat([drawings, made_up])
        del made_up
    own = zip(*(own_colour(part) for part in drawings.split(256)))
    return drawings, count, [torch.cat(parts) for parts in own]


def build_pools(args, seed, splits, device):
    """({canvas: latents bf16}, {canvas: which of them are of made-up drawings}, {(canvas, width of captions): (ids, lengths,
    latent index, names)})."""
    begun = time.time()
    per_couple = max(1, round(args.captions * MIX["couple"] / args.couples))
    ids, lengths, rows = data.caption_pool(args.work, args.captions, per_couple, seed, shares=args.shares or
                                           data.pool_shares(args.canvases), thirds=args.thirds,
                                           mix=PLAIN if args.plain else MIX)
    print(f"{len(ids)} captions in {time.time() - begun:.0f} s", flush=True)
    drawings, count, own = load_scenes(args, splits, device)
    print(f"{count} drawings, {len(drawings) - count} made up, after {time.time() - begun:.0f} s", flush=True)
    weights, scaling, shift = export.read_vae(args.vae)
    vae = networks.Autoencoder().to(device, memory_format=torch.channels_last).eval()
    vae.load_state_dict(weights)
    if device.type == "cpu" and not args.no_compile:
        networks.compile_blocks(vae)
    latents, made_up, pools, pictures = {}, {}, {}, 0
    for canvas in range(args.canvases):
        chosen = (rows[:, 4] == canvas).nonzero()[:, 0]
        if not len(chosen):
            continue
        # One picture for each distinct row; n captions can share one.
        _, first, index = np.unique(scenes.keys(rows[chosen]), return_index=True, return_inverse=True)
        unique, index = rows[chosen][torch.from_numpy(first)], torch.from_numpy(index)
        check_held_back(unique[::97], splits)
        width, height = CANVASES[canvas]
        batch = max(4, (256 if device.type == "cuda" else 16) * 65536 // (width * height))
        found = data.encode_pictures(vae, drawings, own, unique, batch, factor=256 // args.size)
        for part in found.split(4096):
            part.copy_((part.float() - shift) * scaling)
        latents[canvas], made_up[canvas] = found, (unique[:, 0] >= count).to(device)
        pictures += len(unique)
        pool = (ids[chosen], lengths[chosen], index, data.Names(splits, "cpu")(rows[chosen]))
        for wide, bucket in enumerate(data.bucket(pool, device, quiet=canvas > 0)):
            if len(bucket[0]):
                pools[canvas, wide] = bucket
    part = latents[0][::50].float()
    print(f"{pictures} pictures encoded after {time.time() - begun:.0f} s; latents {part.mean():.3f} +- {part.std():.3f}",
          flush=True)
    return latents, made_up, pools


class Team:
    """The processes that train together, one for each GPU; one alone where torchrun did not start the program."""

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", self.rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)

    def join(self):
        """To be called once, when all helpers for preparing have ended: they are copies of this process."""
        if self.count > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def leave(self):
        if self.count > 1:
            dist.barrier()
            dist.destroy_process_group()

    def first(self, *values):
        """The first process' numbers."""
        if self.count == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.tolist()

    def common(self, keys):
        """The keys that all processes have, in order."""
        if self.count == 1:
            return sorted(keys)
        found = [None] * self.count
        dist.all_gather_object(found, sorted(keys))
        return sorted(set(found[0]).intersection(*found))

    def share(self, tensors):
        """The first process' tensors."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def mean(self, tensor):
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count


def gradient_buffer(params):
    """One tensor of which the parameters' gradients are parts."""
    buffer, at = torch.zeros(sum(p.numel() for p in params), device=params[0].device), 0
    for p in params:
        p.grad = buffer[at:at + p.numel()].view_as(p)
        at += p.numel()
    return buffer


def record(gradients, batch, pool):
    """`gradients` as one CUDA graph: a step of this size is thousands of small kernels, which Python launches more slowly than
    the GPU runs them. Graphs share `pool`, because one runs at a time. None: it could not be recorded."""
    static = [part.clone() for part in batch]
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                gradients(static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # NCCL's thread looks at its own events
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
    parser.add_argument("--start-end", type=Path, help="wait for this file before --start is read: it holds 0 if that was made well")
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--until", type=float, help="train up to this time (seconds since 1970) instead of --minutes")
    parser.add_argument("--size", type=int, choices=[128, 256], default=256, help="side of the training pictures")
    parser.add_argument("--canvases", type=int, choices=range(1, len(CANVASES) + 1), default=1, metavar="N",
                        help=f"how many of the sizes {', '.join(f'{w}x{h}' for w, h in CANVASES)} are trained, in this order")
    parser.add_argument("--drawings", type=int, choices=[256, 512], default=256,
                        help="side of the drawings that pictures are made of; 512 needs PyPI's resvg_py")
    parser.add_argument("--shares", type=float, nargs="+", help="how often each of these sizes is trained")
    parser.add_argument("--thirds", type=int, nargs="+", choices=range(3), default=[0],
                        help="which thirds of the drawings each size but 256 x 256 shows; each size has thirds of its own")
    parser.add_argument("--plain", action="store_true", help="only one thing on white, said by label, word or tags")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--end", type=float, default=0.0, help="share of the learning rate that is left at the end")
    parser.add_argument("--levels", type=float, nargs=8, default=LEVELS, help="weights of the sampler's noise levels")
    parser.add_argument("--grid", type=float, default=0.75, help="share of samples at those levels, the rest between them")
    parser.add_argument("--begin", type=int, default=6,
                        help="at how many of the sampler's levels, from pure noise on, made-up drawings (analogies.py) are trained")
    parser.add_argument("--naming", type=float, default=0.02, help="weight of the naming loss; 0: without")
    parser.add_argument("--astray", type=float, default=0.0,
                        help="share of the samples at the sampler's last three levels that get another one's caption")
    parser.add_argument("--captions", type=int, default=1_600_000, help="captions in the pool")
    parser.add_argument("--couples", type=int, default=100_000, help="side-by-side pictures in the pool")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between checkpoints of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup", type=float, default=0.02)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graph", action="store_true", help="launch every kernel of a step from Python")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    team = Team()
    device, cuda = team.device, team.device.type == "cuda"
    if args.shares and len(args.shares) != args.canvases:
        parser.error(f"--shares: {len(args.shares)} numbers, --canvases: {args.canvases}")
    torch.manual_seed(args.seed * team.count + team.rank)
    torch._dynamo.config.recompile_limit = 128
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    splits = Captioner.load(args.work).splits
    seed = f"{args.seed}/{team.rank}" if team.rank else args.seed
    latents, made_up, pools = build_pools(args, seed, splits, device)
    while args.start_end and not args.start_end.exists():
        time.sleep(0.2)
    if args.start_end and args.start_end.read_text() != "0":
        raise SystemExit(f"{args.start_end}: the weights to begin from were not made: {args.start_end.read_text()}")
    team.join()
    model = make_model(args.start, len(splits.things), device)
    transformer, text, naming = model["transformer"], model["text_encoder"], model["naming"]
    naming.requires_grad_(args.naming > 0)
    transformer.spread = 256 // args.size
    live = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    params = [p for _, p in live]
    team.share([p.data for p in params])
    gradient = gradient_buffer(params)
    optimizer = Muon(live, adam_only=ADAM_ONLY)
    average = Average(params, 0.998)
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
        if team.rank > 0:
            return
        if state:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.shadow,
                        "step": step, "spent": spent}, state_file)
        average.swap()
        export.save_parts(model, args.out)
        average.swap()

    if networks.has_bf16(device) and not args.no_compile:
        networks.compile_blocks(transformer, text)
    grid = networks.sigmas()[:-1].to(device)
    edges = (torch.tensor(args.levels).cumsum(0) / sum(args.levels))[:-1].to(device)
    common = team.common(pools)
    samplers = {key: data.Sampler(pools[key]) for key in common}
    squares = [c for c, wide in common if not wide]
    shares = [(args.shares or CANVAS_WEIGHTS)[c] for c in squares]
    dice = random.Random(f"{args.seed}/{step}")  # all processes draw the same sizes
    begun, before = time.time(), spent
    budget, = team.first(before + args.until - begun if args.until else args.minutes * 60)
    report, seen, terms, saved, saves = begun, 0, 0, begun, 0
    total, total_naming = torch.zeros((), device=device), torch.zeros((), device=device)
    skipped = torch.zeros((), dtype=torch.long, device=device)

    def gradients(canvas, batch, stance="default"):
        """Leaves the gradients of one batch in the parameters; returns its two losses."""
        ids, lengths, index, names = batch
        n = len(ids)
        clean = latents[canvas][index].float()
        noise = torch.randn_like(clean)
        # Mostly one of the eight noise levels that the sampler visits, else any, in the sampler's density.
        u = torch.rand(n, device=device)
        sigma = torch.where(torch.rand(n, device=device) < args.grid,
                            grid[torch.searchsorted(edges, torch.rand(n, device=device), right=True)],
                            SHIFT * u / (1 + (SHIFT - 1) * u))
        # A drawing that was made up is only right in the large: it is begun with, never finished.
        begin = grid[(torch.rand(n, device=device) * args.begin).long()]
        sigma = torch.where(made_up[canvas][index] & (sigma < grid[args.begin - 1]), begin, sigma)
        s = sigma[:, None, None, None]
        x = (1 - s) * clean + s * noise
        with torch.compiler.set_stance(stance), \
                torch.autocast(device.type, torch.bfloat16, enabled=networks.has_bf16(device), cache_enabled=False):
            e = transformer.refine(text(ids), lengths)
            # Under little noise the picture says what it is: another's caption teaches image-to-image to keep it. With
            # strength 0.3 it begins at the third level from the end: int(8 - 8 * 0.3) = 5.
            astray = (sigma <= grid[-3]) & (torch.rand(n, device=device) < args.astray)
            out = transformer(x, 1 - sigma, torch.where(astray[:, None, None], e.roll(1, 0), e))
            named = naming.loss(e, lengths, names) if args.naming else torch.zeros((), device=device)
        loss = (out.float() - (clean - noise)).square().mean()
        gradient.zero_()  # in place: a recorded graph writes to it
        ((loss + args.naming * named) * (n / args.batch)).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        return loss.detach(), named.detach()

    replays, memory = {}, torch.cuda.graph_pool_handle() if cuda else None
    if team.rank == 0:
        print("training", flush=True)
    while spent < budget:
        canvas = dice.choices(squares, shares)[0]
        long = step % 24 == 23 and (0, 1) in common
        if long:
            canvas = 0
        # Large pictures come in half batches: one width of captions, two of batches, six of tokens to compile for.
        n = args.batch // 4 if long else args.batch if tokens(CANVASES[canvas]) <= 128 else args.batch // 2
        n = min(n, len(pools[canvas, int(long)][0]))
        batch = samplers[canvas, int(long)](n)
        if not long and cuda and not args.no_graph and canvas not in replays:
            replays[canvas] = record(partial(gradients, canvas), batch, memory)
        if not long and replays.get(canvas):
            loss, named = replays[canvas](batch)
        else:  # few captions are long: not worth compiling for
            loss, named = gradients(canvas, batch, "force_eager" if long else "default")
        team.mean(gradient)
        # One bad batch must not cost the weights: its gradient counts as nothing, and the report says so.
        finite = gradient.isfinite().all()
        gradient.copy_(torch.where(finite, gradient, 0))
        skipped += ~finite
        optimizer.step(args.lr * schedule(spent / budget, args.warmup, 0.4, args.end))
        average.update(step)
        step += 1
        seen += n * team.count
        total += loss.nan_to_num()
        total_naming += named.nan_to_num()
        terms += 1
        if step % 20 == 0 and cuda:
            torch.cuda.synchronize()
        if team.count == 1 or step % 20 == 0 or not cuda:
            spent, = team.first(before + time.time() - begun)
        if step % 1000 == 0:  # the same sums in another order would let them drift apart
            team.share([p.data for p in params])
        if (step % 200 == 0 or step in (5, 20, 50, 100) or not cuda) and team.rank == 0:
            print(f"step {step} {spent:.0f} s, {seen / (time.time() - report):.0f} samples/s: loss "
                  f"{total.item() / terms:.4f}, naming {total_naming.item() / terms:.3f}"
                  + f"; {skipped.item()} steps so far had no finite gradient" * bool(skipped), flush=True)
            if skipped > 10 + step // 10:
                raise SystemExit("too few gradients are finite: try a lower --lr")
            report, seen, terms = time.time(), 0, 0
            total.zero_()
            total_naming.zero_()
        if time.time() - saved > args.save_every:
            saves += 1
            save(state=saves % 5 == 0)
            saved = time.time()
    save()
    if team.rank == 0:
        print(f"done: {step} steps, {spent:.0f} s", flush=True)
    team.leave()


if __name__ == "__main__":
    main()
