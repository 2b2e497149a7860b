#!/bin/bash
# Packs MLX with its CUDA backend, and mflux, for a machine that has a GPU and PyTorch but reaches no package registry.
# bench/mlx/unpack.sh unpacks the folder there.
set -eu
here=$(CDPATH="" cd "$(dirname "$0")" && pwd)
usage="usage: bench/mlx/pack.sh FOLDER    (PYTHON_VERSION=3.12, ARCHITECTURE=90: those of the other machine)"
target=${1:?$usage}
mlx=$(sed -n 's/^version=//p' "$here/../../tools/mlx.sh") mflux=0.24.0
version=${PYTHON_VERSION:-3.12} architecture=${ARCHITECTURE:-90}

mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # FOLDER PACKAGE...
    local folder=$1
    shift
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
        --platform manylinux_2_35_x86_64 --platform manylinux_2_17_x86_64 -d "$folder" "$@"
}

fetch "$work/mlx" "mlx==$mlx" "mlx-cuda-13==$mlx"
# mflux, and what it imports that comes with neither PyTorch nor transformers.
fetch "$target/wheels" "mflux==$mflux" platformdirs piexif toml
for wheel in "$work"/mlx/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/site"
done
python3 "$here/trim.py" "$work/site/mlx/lib/libmlx.so" "$architecture" "$work/trimmed.so"
mv "$work/trimmed.so" "$work/site/mlx/lib/libmlx.so"
tar -C "$work/site" -c . | xz -6 >"$target/mlx.tar.xz"
du -sh "$target"
