#!/usr/bin/env python3
"""Do several processes train together here, with recorded CUDA graphs? It takes fifteen seconds, a training half an hour.

    python3 -m torch.distributed.run --standalone --nproc-per-node 2 check_team.py

A small network, with train.py's own functions: each process records its gradients' computation, all average them, and
new graphs are recorded while they do. Exit code 0: all processes have the same weights in the end, and graphs work."""
from functools import partial

import torch

from train import Team, gradient_buffer, record

STEPS, WIDTHS = 60, (64, 128, 256)  # a graph for each width, as train.py has one for each size of images


def main():
    team = Team()
    team.join()
    cuda = team.device.type == "cuda"
    torch.manual_seed(team.rank)
    network = torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.GELU(), torch.nn.Linear(512, 32)).to(team.device)
    params = list(network.parameters())
    team.share([p.data for p in params])
    gradient = gradient_buffer(params)

    def gradients(width, batch):
        gradient.zero_()
        loss = (network(batch[0]) - torch.randn_like(batch[0])).square().mean() * width / WIDTHS[0]
        loss.backward()
        return [loss.detach()]

    replays, memory = {}, torch.cuda.graph_pool_handle() if cuda else None
    for step in range(STEPS):
        width = WIDTHS[step * len(WIDTHS) // STEPS]  # the later graphs are recorded when NCCL works already
        batch = [torch.randn(width, 32, device=team.device)]
        if cuda and width not in replays:
            replays[width] = record(partial(gradients, width), batch, memory)
            if not replays[width]:
                raise SystemExit(f"process {team.rank}: no CUDA graph could be recorded at step {step}")
        if cuda:
            replays[width](batch)
        else:
            gradients(width, batch)
        team.mean(gradient)
        with torch.no_grad():
            for p in params:
                p -= 0.1 * p.grad
    mine = torch.cat([p.detach().flatten() for p in params])
    first = mine.clone()
    team.share([first])
    if not torch.equal(mine, first) or not mine.isfinite().all():
        raise SystemExit(f"process {team.rank}: other weights than the first process has, by {(mine - first).abs().max()}")
    print(f"process {team.rank} of {team.count} on {team.device}: the same weights after {STEPS} steps", flush=True)
    team.leave()


if __name__ == "__main__":
    main()
