# Makes MLX's CUDA backend usable beside the installed PyTorch, whose NVIDIA libraries it loads. To be sourced, by bash:
#
#     . bench/mlx/unpack.sh PACKED FOLDER     # PACKED: made by bench/mlx/pack.sh
#
# Afterwards `python3` imports mlx and mflux, and programs linked to libmlx.so run. MLX compiles some kernels when they
# are first needed and keeps them in FOLDER/kernels; PACKED/kernels.tar.xz, if it exists, has those of an earlier run.

unpack_mlx() { # PACKED FOLDER
    local packed=$1 folder=$2 site=$2/site
    mkdir -p "$site" "$folder/kernels" || return
    tar -C "$site" -xJf "$packed/mlx.tar.xz" || return
    [ ! -e "$packed/kernels.tar.xz" ] || tar -C "$folder/kernels" -xJf "$packed/kernels.tar.xz" || return
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$packed"/wheels/*.whl || return
    link_nvidia "$site" || return
    CUDA_HOME=$(find_cuda) || return
    export CUDA_HOME MLX_PTX_CACHE_DIR=$folder/kernels
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
    export LD_LIBRARY_PATH=$site/mlx/lib:$site/mlx_cuda_13.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# libmlx.so looks for each library in nvidia/NAME/lib beside its own package. There is no nvidia/cu13 on purpose: MLX
# would take its headers, which lack those that quantised products include (crt/mma.h), instead of the toolkit's.
link_nvidia() { # SITE
    python3 - "$1" <<'END'
import glob
import os
import sys

LIBRARIES = {
    "cublas": "libcublasLt.so.13",
    "cuda_nvrtc": "libnvrtc.so.13",
    "cudnn": "libcudnn.so.9",
    "cufft": "libcufft.so.12",
    "cusolver": "libcusolver.so.12",
    "nccl": "libnccl.so.2",
}
for name, library in LIBRARIES.items():
    found = [f for p in sys.path for f in sorted(glob.glob(f"{p}/nvidia/*/lib/{library}")) if p != sys.argv[1]]
    if not found:
        sys.exit(f"{library}: expected in nvidia/*/lib of an installed Python package")
    folder = f"{sys.argv[1]}/nvidia/{name}"
    os.makedirs(folder, exist_ok=True)
    if not os.path.islink(f"{folder}/lib"):
        os.symlink(os.path.dirname(found[0]), f"{folder}/lib")
END
}

find_cuda() {
    local folder nvcc
    nvcc=$(command -v nvcc) && nvcc=$(readlink -f "$nvcc")
    for folder in "${CUDA_HOME:-}" "${nvcc%/bin/nvcc}" /usr/local/cuda; do
        if [ -n "$folder" ] && [ -e "$folder/include/crt/mma.h" ]; then
            echo "$folder"
            return
        fi
    done
    echo "CUDA_HOME: expected a folder of the CUDA Toolkit with include/crt/mma.h" >&2
    return 1
}

unpack_mlx "$1" "$2"
