#!/bin/sh
# Makes Debian packages of this source: packaging/deb.sh [FOLDER]. Prints their names. FOLDER: build/deb
set -eu
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
folder=${1:-$source/build/deb}
. "$source/tools/install-dependencies.sh"
install_dependencies build
for program in dpkg-shlibdeps file; do
    command -v $program >/dev/null || { echo "deb.sh: no $program; install dpkg-dev and file" >&2; exit 1; }
done
mkdir -p "$folder"
{
    # /usr is said here: CMake then puts libraries where Debian has them.
    cmake -S "$source" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr -DZIMAGE_TESTS=OFF
    cmake --build "$folder"
    (cd "$folder" && rm -f ./*.deb && cpack -G DEB)
} >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
ls "$folder"/*.deb
