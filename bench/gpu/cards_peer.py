"""Times diffusers' context parallel of FLUX.2-klein-4B's transformer with random weights, beside one GPU in the same run.

    torchrun --nproc-per-node 2 cards_peer.py [--sizes 1024 2048] [--compile]

Prints lines of JSON as cards.c does: one GPU first, then all GPUs by Ulysses (all-to-all of heads) and by a ring. diffusers
0.42.1 has no plan for Z-Image's transformer (`_cp_plan`), so there is no such figure of Z-Image.
"""

import argparse
import json
import os
import statistics
import time

import klein
import torch
from diffusers import ContextParallelConfig, Flux2Transformer2DModel

EVALUATIONS, ROUNDS = 8, 3


def new_model(compiled):
    with torch.device("meta"):
        model = Flux2Transformer2DModel.from_config(klein.CONFIG).bfloat16()
    model = model.to_empty(device="cuda")
    generator = torch.Generator("cuda").manual_seed(1)
    for value in model.parameters():
        value.data.normal_(0, value.shape[-1] ** -0.5, generator=generator) if value.ndim == 2 else value.data.fill_(1)
    model.eval().requires_grad_(False)
    if compiled:
        model.compile_repeated_blocks(fullgraph=True)
    return model


def milliseconds(step):
    for _ in range(3):
        step.evaluate()
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(EVALUATIONS):
            step.evaluate()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / EVALUATIONS * 1e3)
    return statistics.median(times)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sizes", nargs="+", type=int, default=[1024])
    p.add_argument("--compile", action="store_true")
    a = p.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", rank))
    kinds = {"one GPU": None, "ulysses": ContextParallelConfig(ulysses_degree=world), "ring": ContextParallelConfig(ring_degree=world)}
    for name, config in kinds.items():
        try:
            model = new_model(a.compile)
            model.set_attention_backend("_native_cudnn")
            if config:
                model.enable_parallelism(config=config)
            for size in a.sizes:
                step = klein.Step(model, size, "cuda")
                step.img_ids, step.txt_ids = step.img_ids[None], step.txt_ids[None]  # the plan divides these by dimension 1
                with torch.no_grad():
                    taken = milliseconds(step)
                if rank == 0:
                    print(json.dumps({"what": "time", "model": "klein-4b, diffusers", "compiled": a.compile, "size": size,
                                      "device": name if name == "one GPU" else f"{world} GPUs, {name}", "ms": round(taken, 3)}))  # fmt: skip
        except Exception as e:  # one kind that fails must not cost the others
            if rank == 0:
                print(json.dumps({"what": "failed", "device": name, "why": str(e)[:300]}))
        model = None
        torch.cuda.empty_cache()
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
