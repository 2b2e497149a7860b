#!/bin/bash
# Times two builds against each other on this machine: OLD NEW OLD NEW ..., then medians and ratios of every stage.
#
#   tools/compare/speed.sh OLD_PROGRAM NEW_PROGRAM [--pairs N] [--device cpu|cuda] [--case TEXT]... [-- BENCH_OPTIONS]
#
# Every run is one `zimage bench --synthetic z-image-turbo`. The cases are SIZE FORMAT COMPUTE:
#   on the CPU   "512 q4 bf16" and "512 q4 int8"
#   on a GPU     1024 and 512, each "bf16 bf16", "bf16 fp8" and "q4 bf16"
# --pairs N: runs of each program and case (default 7).  --case TEXT: this case instead, e.g. --case "1024 q4 bf16".
# BENCH_OPTIONS: further options of zimage bench for both; -- --layers 6: fewer layers of the same size, shorter runs.
# A ratio above 1 means that NEW is slower. "spread" is the larger of the two programs' (maximum - minimum) / median: a
# ratio nearer to 1 than the spread says little.
# On the CPU the instructions of one image are counted too: by perf where the machine has counters, else by valgrind on
# small models (there without AVX-512, which valgrind doesn't know), else not.
# Exit code: 0 measured, 1 a run failed, 2 wrong usage.
# shellcheck disable=SC2317 # functions are called by name
set -u

usage() { sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '/^set -u/d; /^shellcheck/d' >&2; exit 2; }

[ $# -ge 2 ] || usage
old_program=$(realpath -e "$1") && new_program=$(realpath -e "$2") || exit 2
shift 2
pairs=7 device=cpu cases=()
while [ $# -gt 0 ]; do
    case $1 in
    --pairs) pairs=$2; shift ;;
    --device) device=$2; shift ;;
    --case) cases+=("$2"); shift ;;
    --) shift; break ;;
    *) usage ;;
    esac
    shift
done
extra=("$@")
if [ ${#cases[@]} -eq 0 ]; then
    cases=("512 q4 bf16" "512 q4 int8")
    [ "$device" = cpu ] ||
        cases=("1024 bf16 bf16" "1024 bf16 fp8" "1024 q4 bf16" "512 bf16 bf16" "512 bf16 fp8" "512 q4 bf16")
fi

root=$(realpath "$(dirname "$0")/../..")
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
export XDG_CACHE_HOME=$scratch/cache # both programs read the same measurements of this machine

# ---- times ----------------------------------------------------------------------------------------------------------

runs=1 # of each stage in one bench; short stages take more by themselves
[ "$device" = cpu ] || runs=5

# bench PROGRAM SIZE FORMAT COMPUTE
bench() {
    "$1" bench --synthetic z-image-turbo -W "$2" -H "$2" --format "$3" --compute "$4" --device "$device" \
        --steps "$runs" --json -q "${extra[@]}"
}

# summary OLD_FILE NEW_FILE: each holds one JSON object of bench a line.
summary() {
    python3 - "$1" "$2" <<'PYTHON'
import json, statistics, sys

def columns(path):
    """{stage or memory: [one number a run]}, from each run's JSON."""
    result = {}
    for line in open(path):
        run = json.loads(line)
        for stage in run["stages"]:
            if stage["seconds"] is not None:
                result.setdefault(stage["name"] + ", s", []).append(stage["seconds"])
        for key in ("peak_rss_bytes", "peak_device_bytes"):
            if run.get(key):
                result.setdefault(key.replace("_bytes", ", MiB"), []).append(run[key] / 2**20)
    return result

old, new = columns(sys.argv[1]), columns(sys.argv[2])
for name in old:
    if name not in new:
        print(f"{name:24} only in OLD")
        continue
    a, b = statistics.median(old[name]), statistics.median(new[name])
    spread = max((max(x) - min(x)) / statistics.median(x) for x in (old[name], new[name]))
    print(f"{name:24} {a:12.4f} {b:12.4f} {b / a:8.4f} {100 * spread:7.1f} %  {len(old[name])} runs")
PYTHON
}

compare_times() {
    local size format compute which pair
    read -r size format compute <<<"$1"
    echo
    printf '%-24s %12s %12s %8s %9s\n' "$size x $size, $format, $compute" OLD NEW NEW/OLD spread
    : >"$scratch/old"
    : >"$scratch/new"
    for ((pair = 0; pair < pairs; pair++)); do
        for which in old new; do
            local program=${which}_program
            if ! bench "${!program}" "$size" "$format" "$compute" >>"$scratch/$which" 2>"$scratch/errors"; then
                echo "$which failed:"
                cat "$scratch/errors"
                return 1
            fi
        done
    done
    summary "$scratch/old" "$scratch/new"
}

# ---- instructions ---------------------------------------------------------------------------------------------------

# count_perf, count_valgrind COMMAND...: user instructions of one run, nothing where they can't be counted.
count_perf() {
    perf stat -x, -e instructions:u -o "$scratch/count" "$@" >/dev/null 2>&1
    sed -n 's/^\([0-9][0-9]*\),.*instructions.*/\1/p' "$scratch/count"
}
count_valgrind() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# count_case COUNTER MODEL COMPUTE: one thread, since waiting threads spin.
count_case() {
    local counter=$1 model=$2 compute=$3 program counts=()
    for program in "$old_program" "$new_program"; do
        counts+=("$("$counter" "$program" generate "a red apple" -m "$model" -W 64 -H 64 --steps 1 --seed 1 \
            --threads 1 --compute "$compute" -q -o "$scratch/image.png")")
    done
    if [ -z "${counts[0]}" ] || [ -z "${counts[1]}" ]; then
        echo "$(basename "$model"), $compute: not counted"
        return
    fi
    printf '%-24s %12d %12d %8s\n' "$(basename "$model"), $compute" "${counts[@]}" \
        "$(python3 -c 'import sys; print(f"{int(sys.argv[2]) / int(sys.argv[1]):.4f}")' "${counts[@]}")"
}

compare_instructions() {
    local counter='' model compute
    if [ -n "$(count_perf true 2>/dev/null)" ]; then
        counter=count_perf
    elif command -v valgrind >/dev/null 2>&1; then
        counter=count_valgrind
    fi
    echo
    [ -n "$counter" ] || { echo "instructions: not counted (neither perf's counter nor valgrind is there)"; return; }
    cp -r "$root/tests/golden/mlx/uqer1244" "$scratch/q4"
    cp -r "$root/tests/golden/tiny/tokenizer" "$root/tests/golden/tiny/vae" "$scratch/q4/"
    printf '%-24s %12s %12s %8s\n' "instructions, ${counter#count_}" OLD NEW NEW/OLD
    for model in "$root/tests/golden/tiny" "$scratch/q4"; do
        for compute in f32 bf16 int8; do
            count_case "$counter" "$model" "$compute"
        done
    done
}

status=0
for name in "${cases[@]}"; do
    compare_times "$name" || status=1
done
[ "$device" != cpu ] || compare_instructions
exit $status
