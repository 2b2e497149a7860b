#!/bin/sh
# Builds a release, runs its tests and prints how far its numbers are from those of the reference libraries.
#   ./test.sh [--quick] [--table] [options of ctest]
#   --quick  only the tests that take few seconds, and only what they need is built: 2 minutes on two cores.
#            Without it: about 9 minutes, of which one is for building. Missing packages take a minute more.
#   --table  prints every comparison with the reference, not only the worst of each stage
set -eu
source=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$source"
. tools/install-dependencies.sh
. tools/build-folder.sh

quick="" table=""
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1 ;;
        --table) table=--table ;;
        -h | --help) sed -n 's/^# \{0,1\}//p' test.sh | sed -n 2,8p; exit 0 ;;
        *) break ;;
    esac
    shift
done
if [ -n "$quick" ]; then
    set -- -L quick "$@"
    echo "zimage: builds and runs the quick tests (about 2 minutes on two cores)" >&2
else
    echo "zimage: builds and runs all tests (about 9 minutes on two cores; ./test.sh --quick: 2)" >&2
fi

install_dependencies build test
build_folder release
mlx=""
if [ -z "$quick" ]; then # MLX for the tests of its backend; without it they do not exist
    mlx=$(tools/mlx.sh "$build/mlx") || true
fi
configure_folder --preset release -B "$build" ${mlx:+"-DMLX_DIR=$mlx"}
build_in_folder ${quick:+--target quick_tests}
status=0
if [ -t 1 ]; then set -- --progress "$@"; fi
ctest --test-dir "$build" --output-on-failure -j "$(getconf _NPROCESSORS_ONLN)" "$@" || status=$?

log=$build/Testing/Temporary/LastTest.log
[ ! -f "$log" ] || tools/parity.sh "$log" $table
exit $status
