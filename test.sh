#!/bin/sh
# Builds a release, runs its tests and prints the parity table (largest errors relative to the reference libraries):
#   ./test.sh [options of ctest]
set -eu
cd "$(dirname "$0")"
. tools/install-dependencies.sh
install_dependencies build test
cmake --preset release >/dev/null
cmake --build --preset release
status=0
ctest --preset release --output-on-failure -j "$(getconf _NPROCESSORS_ONLN)" "$@" || status=$?

log=build/release/Testing/Temporary/LastTest.log
if [ -f "$log" ]; then
    echo
    echo "parity with the reference"
    echo "       | stage                                        | largest relative error | tolerance |"
    sed -n 's/^parity/      /p' "$log"
    grep -E '^tiers|strings, .*mismatch|exported symbols|^skipped' "$log" || true
fi
exit $status
