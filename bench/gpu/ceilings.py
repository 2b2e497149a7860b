"""Rates of PyTorch's products and attention at the sizes of the network, on random numbers.

Products are [tokens, in] x [out, in]^T in bf16 and in fp8 with a scale for each row of both; attention has 30 heads of 128.
Each call uses other weights, so that they come from device memory, as in the network. The product `largest`, 8192 cubed,
shows the best rate of the GPU.
"""

import itertools

import harness
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [(3840, 3840), (3840, 10240), (10240, 3840)]  # in, out
HEADS, HEAD_DIM = 30, 128
COPIES = 4


def bf16_product(tokens, inputs, outputs, device):
    x = torch.randn(tokens, inputs, device=device, dtype=torch.bfloat16)
    w = itertools.cycle([torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16) for _ in range(COPIES)])
    return lambda: torch.mm(x, next(w).t())


def fp8_product(tokens, inputs, outputs, device):
    x = harness.to_fp8(torch.randn(tokens, inputs, device=device))
    w = []
    for _ in range(COPIES):
        values, scale = harness.to_fp8(torch.randn(outputs, inputs, device=device))
        w.append((values, scale.t().contiguous()))
    w = itertools.cycle(w)
    return lambda: harness.multiply_fp8(*x, *next(w))


def attention(tokens, device, backend, heads=HEADS, head_dim=HEAD_DIM):
    q, k, v = (torch.randn(1, heads, tokens, head_dim, device=device, dtype=torch.bfloat16) for _ in range(3))

    def run():
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    return run


def main():
    p = harness.parser(__doc__)
    p.add_argument("--small", action="store_true", help="toy sizes, to try the script")
    a = p.parse_args()
    divide, side = (60, 128) if a.small else (1, 8192)

    def measure(what, flops, make, *arguments):
        def run():
            taken = harness.seconds(make(*arguments), a.device, a.repeats, inner=8, warm=3)
            harness.record(a.out, "ceiling", what=what, seconds=taken, tflops=flops / taken * 1e-12)

        harness.attempt(a.out, what, run)

    with torch.inference_mode():
        for name, make in (("bf16", bf16_product), ("fp8", fp8_product)):
            measure(f"{name} largest", 2 * side**3, make, side, side, side, a.device)
        for size in a.sizes:
            tokens = harness.tokens_of(size)
            for inputs, outputs in SHAPES:
                inputs, outputs = inputs // divide, outputs // divide
                for name, make in (("bf16", bf16_product), ("fp8", fp8_product)):
                    flops = 2 * tokens * inputs * outputs
                    measure(f"{name} {size} {inputs}->{outputs}", flops, make, tokens, inputs, outputs, a.device)
            backends = [("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)]
            for name, backend in backends if a.device != "cpu" else backends[1:]:
                flops = 4 * tokens * tokens * HEADS * HEAD_DIM
                measure(f"attention {name} {size}", flops, attention, tokens, a.device, backend)


if __name__ == "__main__":
    main()
