#!/bin/sh
# Builds zimage if needed and makes an image in the current folder: ./run.sh "a red apple" [options of zimage generate]
set -eu
source=$(cd "$(dirname "$0")" && pwd)
build=$source/build/run
. "$source/tools/install-dependencies.sh"
install_dependencies build
if [ ! -f "$build/build.ninja" ]; then
    mkdir -p "$build"
    cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DZIMAGE_TESTS=OFF \
        >"$build/configure.log" 2>&1 ||
        { cat "$build/configure.log" >&2; exit 1; }
fi
cmake --build "$build" >"$build/build.log" 2>&1 || { cat "$build/build.log" >&2; exit 1; }
[ $# -gt 0 ] || set -- "a red apple"
exec "$build/zimage" generate "$@"
