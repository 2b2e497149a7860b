#!/bin/sh
# Tests the CPU backend on arm64, in an emulator: tests/arm64.sh SOURCE BUILD
# Builds test_cases, test_ops and test_packed. The emulated CPUs:
#   max           has every instruction that a packed gemm needs: all of test_packed, and the contract's cases
#   neoverse-n1   has the dot product only:                       the tiles of test_packed
#   cortex-a53    has none of them:                               the tiles of test_packed, and test_ops
# The arm64 libraries come from tools/arm64-root.sh SOURCE/build/arm64-root.
# The tests are brief (tests/support.h).
# Exit code: 0 all passed, 1 a test failed, 77 skipped because a tool or the libraries are missing.
set -eu
source=$1 build=$2/arm64 root=$1/build/arm64-root
for program in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v $program >/dev/null || { echo "skipped: arm64 (no $program)" && exit 77; }
done
[ -e "$root/complete" ] || { echo "skipped: arm64 (needs tools/arm64-root.sh build/arm64-root)" && exit 77; }

libraries=$root/usr/lib/aarch64-linux-gnu
export CFLAGS="-isystem $root/usr/include/aarch64-linux-gnu" # jconfig.h; pkg-config does not name this folder
export PKG_CONFIG_LIBDIR="$libraries/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
export LDFLAGS="-Wl,--disable-new-dtags,-rpath,$libraries" # also searched for the libraries that these libraries need
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_TOOLCHAIN_FILE="$source/cmake/aarch64-linux.cmake" >/dev/null
cmake --build "$build" --target test_cases test_ops test_packed

run() { # TEST CPU [PATTERN]
    qemu-aarch64 -cpu "$2" -L /usr/aarch64-linux-gnu "$build/tests/test_$1" ${3:+"$3"} >"$build/$1.$2.log" 2>&1
}

check_packed() { # CPU NUMBER_OF_PACKED_GEMMS [PATTERN]
    log=$build/packed.$1.log
    run packed "$1" ${3:+"$3"} || status=1
    cat "$log"
    echo "tiers on arm64 $1: $(grep -E '^(bf16|int8) [^:]*$' "$log" | paste -sd, -)"
    [ "$(grep -cE '^(bf16|int8) [^:]*$' "$log")" = "$2" ] || { echo "expected $2" && status=1; }
}

export ZIMAGE_BRIEF_TESTS=1
status=0
run cases max every_set_of_kernels_is_right & # takes longest
cases=$!
run ops cortex-a53 || status=1
cat "$build/ops.cortex-a53.log"
check_packed neoverse-n1 3 test_tiles
check_packed cortex-a53 2 test_tiles
check_packed max 5
wait $cases || status=1
cat "$build/cases.max.log"
exit $status
