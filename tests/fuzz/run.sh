#!/bin/bash
# Fuzzes one target with libFuzzer: tests/fuzz/run.sh TARGET SECONDS [OPTIONS OF LIBFUZZER]
#
# TARGET is one of those in CMakeLists.txt. Builds build/fuzz with clang. Prints libFuzzer's lines (cov: edges reached,
# ft: features, exec/s) and its final figures. What it learns is kept in build/fuzz/corpus/TARGET; inputs that crash,
# leak, or take more than 1 s or 1 GiB are kept in build/fuzz/found. The corpus of the repository is read, not changed.
# On a busy machine FUZZ_TIMEOUT=20 lets an input wait; more than 1 s of CPU is a crash nevertheless.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
target=$1 seconds=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/fuzz
cd "$root"
[ -f "$build/build.ninja" ] || cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "fuzz_$target" >/dev/null

mkdir -p "$build/corpus/$target" "$build/found" "tests/fuzz/corpus/$target"
python3 tests/fuzz/make_seeds.py "$build/seeds"
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
dictionary=()
words=${target/generate/folder} # a toy model is a folder with weights
[ ! -f "tests/fuzz/$words.dict" ] || dictionary=("-dict=tests/fuzz/$words.dict")
"$build/tests/fuzz/fuzz_$target" -timeout="${FUZZ_TIMEOUT-1}" -rss_limit_mb=1024 -max_len=8192 \
    -max_total_time="$seconds" \
    -print_final_stats=1 -artifact_prefix="$build/found/$target-" "${dictionary[@]}" "$@" \
    "$build/corpus/$target" "tests/fuzz/corpus/$target" "$build/seeds/$target"
