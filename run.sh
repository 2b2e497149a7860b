#!/bin/sh
# Builds zimage if needed and makes a picture: ./run.sh "a red apple" [options of zimage generate]
set -eu
cd "$(dirname "$0")"
. tools/install-dependencies.sh
install_dependencies build
if [ ! -f build/run/build.ninja ]; then
    cmake -S . -B build/run -G Ninja -DCMAKE_BUILD_TYPE=Release -DZIMAGE_TESTS=OFF >build-run.log 2>&1 ||
        { cat build-run.log >&2; exit 1; }
    mv build-run.log build/run/configure.log
fi
cmake --build build/run >build/run/build.log 2>&1 || { cat build/run/build.log >&2; exit 1; }
[ $# -gt 0 ] || set -- "a red apple"
exec build/run/zimage generate "$@"
