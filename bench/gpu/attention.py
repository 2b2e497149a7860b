"""Times attention at the GPU's limit of power: cuDNN, by PyTorch, and our own kernels, on the same numbers.

    cmake --build BUILD --target bench_attention
    attention.py --out DIR --library BUILD/libbench_attention.so

For each size every way runs for a moment, in turns, several times. The first third of a turn is not timed: the GPU's clock
then belongs to the way before. Each result has TFLOP/s and the error: the distance from attention in float32, as a share of
its norm, of the first queries.
"""

import ctypes
import statistics
import time

import harness
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SIZES = [(4608, 24), (1536, 24), (4160, 30), (1088, 30)]  # tokens, heads: klein and Z-Image at 1024 and 512 pixels
HEAD_DIM = 128
CHECKED = 256  # queries
SCRATCH = 64 << 20  # bytes: ZI_WORKSPACE_BYTES of src/cuda/internal.h


class Arguments(ctypes.Structure):
    """zi_cuda_attention of src/cuda/kernels.h"""

    _fields_ = [(name, ctypes.c_void_p) for name in ("o", "q", "k", "v")] + [
        (name, ctypes.c_int64) for name in ("ldo", "ldq", "ldk", "ldv", "queries", "keys", "heads", "kv_heads", "head_dim")
    ] + [("causal", ctypes.c_int)]  # fmt: skip


def of_library(function, scratch, q, k, v):
    """A call of one of our kernels, and the tensor of its result. scratch: a tensor, or None for a kernel without."""
    o = torch.empty_like(q)
    tokens, heads, dim = q.shape
    a = Arguments(*(x.data_ptr() for x in (o, q, k, v)), *[heads * dim] * 4, tokens, tokens, heads, heads, dim, 0)
    room = [] if scratch is None else [ctypes.c_void_p(scratch.data_ptr()), ctypes.c_size_t(scratch.nbytes)]

    def run():
        code = function(ctypes.byref(a), *room, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
        if code != 0:
            raise RuntimeError(f"CUDA's error {code}")

    run.result = o
    return run


def of_torch(q, k, v):
    heads_first = [x.transpose(0, 1)[None] for x in (q, k, v)]

    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            run.result = torch.nn.functional.scaled_dot_product_attention(*heads_first)[0].transpose(0, 1)

    return run


def error(result, q, k, v):
    q, k, v = (x.float().transpose(0, 1) for x in (q[:CHECKED], k, v))
    expected = (torch.softmax(q @ k.transpose(1, 2) * HEAD_DIM**-0.5, -1) @ v).transpose(0, 1)
    return float((result[:CHECKED].float() - expected).norm() / expected.norm())


def rate(run, flops, seconds):
    """FLOP/s of the last two thirds of so many seconds."""
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    count = max(1, int(seconds / 3 / (time.perf_counter() - begin)))
    for _ in range(count):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(2 * count):
        run()
    end.record()
    end.synchronize()
    return 2 * count * flops / (start.elapsed_time(end) * 1e-3)


def measure(a, library, tokens, heads):
    q, k, v = (torch.randn(tokens, heads, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    scratch = torch.empty(SCRATCH, device="cuda", dtype=torch.uint8)
    ways = {
        "cudnn": of_torch(q, k, v),
        "flash_hopper": of_library(library.zi_cuda_flash_hopper, scratch, q, k, v),
        "flash": of_library(library.zi_cuda_flash, None, q, k, v),
    }
    rates, flops = {name: [] for name in ways}, 4 * tokens * tokens * heads * HEAD_DIM
    for _ in range(a.repeats):
        for name, run in ways.items():
            rates[name].append(rate(run, flops, a.seconds))
    for name, run in ways.items():
        harness.record(a.out, "attention", who=name, what=f"{tokens} tokens, {heads} heads",
                       tflops=statistics.median(rates[name]) * 1e-12, error=error(run.result, q, k, v))  # fmt: skip


def main():
    p = harness.parser(__doc__)
    p.add_argument("--library", required=True, help="libbench_attention.so of a build with -DZIMAGE_CUDA=ON")
    p.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    a = p.parse_args()
    if a.device == "cpu" or torch.cuda.get_device_capability() != (9, 0):
        print("attention: not timed, needs a GPU of compute capability 9.0")
        return
    library = ctypes.CDLL(a.library)
    with torch.inference_mode():
        for tokens, heads in SIZES:
            harness.attempt(a.out, f"attention {tokens} {heads}", measure, a, library, tokens, heads)


if __name__ == "__main__":
    main()
