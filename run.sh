#!/bin/sh
# Builds zimage if needed and makes an image: ./run.sh "a red apple" [options of zimage generate]
# Another command of the program comes first: ./run.sh serve [options of zimage serve]
# Files are read and written as seen from the current folder. The program itself is build/run/zimage.
# It prints to stderr; stdout is the program's.
set -eu
script=$(readlink -f -- "$0" 2>/dev/null) || script=$0
source=$(CDPATH='' cd -- "$(dirname -- "$script")" && pwd -P)
. "$source/tools/install-dependencies.sh"
. "$source/tools/build-folder.sh"

# The folder holds a build of other sources (it was moved), or by another compiler than CC names.
made_otherwise() {
    [ -f "$build/made_of" ] || return 1
    [ "$(sed -n 1p "$build/made_of")" = "$source" ] || return 0
    [ -n "${CC:-}" ] && [ "$(sed -n 2p "$build/made_of")" != "$CC" ]
}

# Sets mlx to MLX's folder, for the GPU of Apple's chips; elsewhere, and where MLX can't be had, to nothing.
find_mlx() {
    mlx=""
    [ "$(uname -sm)" = "Darwin arm64" ] || return 0
    echo "zimage: fetches MLX for the GPU (45 MB), unless it is there ..." >&2
    mlx=$("$source/tools/mlx.sh" "$build/mlx") || echo "zimage: images are computed on the CPU" >&2
}

build_program() {
    install_dependencies build
    made_otherwise && rm -rf "$build"
    if [ ! -f "$build/build.ninja" ]; then
        find_mlx
        configure_folder -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DZIMAGE_TESTS=OFF \
            ${mlx:+-DZIMAGE_MLX=ON "-DMLX_DIR=$mlx"}
        printf '%s\n' "$source" "${CC:-}" >"$build/made_of"
    fi
    if is_current "$build/zimage"; then
        cmake --build "$build" >"$build/build.log" 2>&1 || { cat "$build/build.log" >&2; return 1; }
    else
        echo "zimage: builds $build/zimage (half a minute on two cores) ..." >&2
        # shellcheck disable=SC2119
        build_in_folder
        echo "zimage: $build/zimage is ready; it has more commands: $build/zimage --help" >&2
    fi
}

build=$source/build/run
if mine "$build" || ! is_current "$build/zimage"; then # the program of another user is as good as one's own
    build_folder run
    build_program
fi
[ $# -gt 0 ] || set -- "a red apple"
case $1 in
    -*) set -- generate "$@" ;;
    *) "$build/zimage" help "$1" >/dev/null 2>&1 || set -- generate "$@" ;; # the program has no such command
esac
exec "$build/zimage" "$@"
