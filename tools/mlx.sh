#!/bin/sh
# Gets MLX for building and testing the MLX backend: tools/mlx.sh FOLDER
# pip unpacks it in FOLDER and nowhere else. Prints the folder for -DMLX_DIR. Exit code 1, with a sentence: MLX can't be
# had.
set -eu
version=0.32.4
case $(uname -s) in
    Darwin) package=mlx-metal ;; # for the GPU
    *) package=mlx-cpu ;;        # enough for tests
esac

mkdir -p "$1"
folder=$(CDPATH='' cd -- "$1" && pwd)
if [ "$(cat "$folder/complete" 2>/dev/null)" != "$package $version" ]; then
    rm -rf "$folder/complete" "$folder/mlx"
    python3 -m pip --version >/dev/null 2>&1 ||
        { echo "zimage: MLX is left out: python3 with pip is not here" >&2; exit 1; }
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: \
        --target "$folder" "$package==$version" >"$folder/pip.log" 2>&1 ||
        { echo "zimage: MLX is left out: pip can't install $package $version ($(tail -n 1 "$folder/pip.log"))" >&2
          exit 1; }
    echo "$package $version" >"$folder/complete"
fi
echo "$folder/mlx/share/cmake/MLX"
