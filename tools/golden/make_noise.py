"""noise.safetensors: the generators themselves (torch CPU, MLX, NumPy); CUDA from published numbers."""

import argparse

from common import np, save, torch

SEEDS = (0, 42, 1234567890123, 2**32 + 42, 2**63 + 5, 2**64 - 1)
LENGTHS = (1, 2, 7, 15, 16, 17, 20, 31, 32, 33, 1000)


def torch_randn(seed, *calls, dtype=torch.float32):
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=dtype) for n in calls]


def big(prefix, x):
    x = (x if isinstance(x, torch.Tensor) else torch.from_numpy(x)).reshape(-1)
    return {
        f"{prefix}.first": x[:16],
        f"{prefix}.last": x[-16:],
        f"{prefix}.every1021": x[::1021],
        f"{prefix}.sum": x.double().sum()[None],
        f"{prefix}.sum_abs": x.double().abs().sum()[None],
    }


def torch_cpu():
    out = {}
    for seed in SEEDS:
        for n in LENGTHS if seed == 42 else (7, 16, 33):
            out[f"torch_cpu.seed{seed}.n{n}"] = torch_randn(seed, n)[0]
    for i, (n, x) in enumerate(zip((8, 16, 20, 3, 5, 16), torch_randn(42, 8, 16, 20, 3, 5, 16))):
        out[f"torch_cpu.mixed.{i}.n{n}"] = x
    for i, (n, x) in enumerate(zip((1, 40, 1, 2), torch_randn(0, 1, 40, 1, 2))):
        out[f"torch_cpu.mixed0.{i}.n{n}"] = x
    for n in (262144, 262148):
        out |= big(f"torch_cpu.seed42.n{n}", torch_randn(42, n)[0])
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        for n in (8, 16, 32, 40):
            out[f"torch_cpu_{name}.seed42.n{n}"] = torch_randn(42, n, dtype=dtype)[0]
        out[f"torch_cpu_{name}.seed42.n4096"] = torch_randn(42, 4096, dtype=dtype)[0]
    return out


def mlx():
    import mlx.core as mx

    mx.set_default_device(mx.cpu)

    def numpy(x):
        return np.array(x)

    out = {}
    for seed in (0, 42, 2**40 + 7):
        key = mx.random.key(seed)
        out[f"mlx.key{seed}.split"] = numpy(mx.random.split(key)).astype(np.uint32)
        out[f"mlx.key{seed}.uniform.n9"] = numpy(mx.random.uniform(shape=[9], key=key))
        for n in (1, 8, 9, 1000):
            out[f"mlx.key{seed}.n{n}"] = numpy(mx.random.normal([n], key=key))
        mx.random.seed(seed)
        for i, n in enumerate((8, 9, 33)):
            out[f"mlx.seed{seed}.{i}.n{n}"] = numpy(mx.random.normal([n]))
    out |= big("mlx.key42.n262144", numpy(mx.random.normal([16, 1, 128, 128], key=mx.random.key(42))))
    x = mx.random.normal([64], key=mx.random.key(42), dtype=mx.bfloat16)
    out["mlx_bf16.key42.n64"] = torch.from_numpy(numpy(x.astype(mx.float32))).to(torch.bfloat16)
    return out


def numpy_legacy():
    out = {}
    for seed in (0, 42, 2**32 - 1):
        state = np.random.RandomState(seed)
        out[f"numpy.seed{seed}.n33"] = state.randn(33)
        out[f"numpy.seed{seed}.then.n4"] = state.randn(4)
    out |= big("numpy.seed42.n262144", np.random.RandomState(42).randn(1, 16, 128, 128).astype(np.float32))
    return out


def cuda_published():
    """Published numbers of a torch CUDA generator (seed 42, an H100, two calls); no GPU is used here."""
    return {
        "torch_cuda.seed42.n8.first": np.array([0.19401880, 2.16137362, -0.17205022, 0.84906012], np.float32),
        "torch_cuda.seed42.then.n262144.first": np.array(
            [0.13913755, -0.10821664, -0.71742225, 0.75664860], np.float32
        ),
    }


def make(out):
    save(f"{out}/noise.safetensors", torch_cpu() | mlx() | numpy_legacy() | cuda_published())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/golden")
    make(parser.parse_args().out)
