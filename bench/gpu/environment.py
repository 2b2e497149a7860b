"""Records the GPU, driver, libraries, clocks and power of the measurements."""

import ctypes
import os
import platform
import subprocess

import harness
import torch


def output(*command):
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def blas_version():
    for name in ("libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"):
        try:
            version = ctypes.CDLL(name).cublasLtGetVersion
        except OSError:
            continue
        version.restype = ctypes.c_size_t
        return int(version())
    return 0


def main():
    a = harness.parser(__doc__).parse_args()
    fields = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit"
    gpu = output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    values = dict(zip(fields.split(","), (part.strip() for part in gpu.split("\n")[0].split(","))))
    nvcc = output("nvcc", "--version").replace("\n", " ").partition("release ")[2].partition(",")[0]
    harness.record(
        a.out, "environment", **values, nvcc=nvcc, cublaslt=blas_version(), torch=torch.__version__,
        torch_cuda=str(torch.version.cuda), torch_cudnn=torch.backends.cudnn.version() or 0, python=platform.python_version(),
        cores=os.cpu_count(), memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
    )  # fmt: skip


if __name__ == "__main__":
    main()
