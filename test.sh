#!/bin/sh
# Builds a release and runs its tests: ./test.sh [options of ctest]
set -eu
cd "$(dirname "$0")"
. tools/install-dependencies.sh
install_dependencies build test
cmake --preset release >/dev/null
cmake --build --preset release
echo "parity table: stage, largest relative error, tolerance"
exec ctest --preset release --output-on-failure "$@"
