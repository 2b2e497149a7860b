#!/bin/bash
# Shows that an image fits a machine with little memory: makes it in a memory cgroup, in which the page cache of the
# model's files counts as well, and once more without a limit. Prints the memory and the time of both, and whether the
# images are equal. Needs Linux and root.
set -eu
limit=6144 mem="" size=1024x1024 steps=8 compute=auto python=python3
here=$(CDPATH="" cd "$(dirname "$0")/.." && pwd)

usage() {
    cat <<END
usage: bench/low_memory.sh [OPTIONS] ZIMAGE_PROGRAM MODEL
  MODEL           a model folder. If there is none, tools/golden/make_6b.py writes one there: random numbers in
                  Z-Image-Turbo's shapes, in 4 bits, 6 GB
  --limit MIB     memory of the cgroup (default: $limit)
  --mem MIB       the program's --mem (default: 256 less than the limit: page tables and the kernel's buffers count)
  --size WxH      (default: $size)
  --steps N       (default: $steps)
  --compute KIND  (default: $compute)
  --python P      a Python with what tools/golden/requirements.txt lists, for make_6b.py (default: $python)
  --small         a model of 2 layers, 256x256 and 1000 MiB instead: tries this script
END
}

small=""
while [ $# -gt 0 ]; do
    case $1 in
    --small) small=1 limit=1000 size=256x256 steps=2; shift; continue ;;
    --limit) limit=$2 ;;
    --mem) mem=$2 ;;
    --size) size=$2 ;;
    --steps) steps=$2 ;;
    --compute) compute=$2 ;;
    --python) python=$2 ;;
    -h | --help) usage; exit 0 ;;
    --*) usage >&2; exit 2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# = 2 ] || { usage >&2; exit 2; }
program=$1 model=$2
mem=${mem:-$((limit - 256))}
fail() { echo "low_memory.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "only root may make a cgroup"
# The folder of the memory controller, and the names of its files: version 2, or 1.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount=/sys/fs/cgroup limit_file=memory.max peak_file=memory.peak
    echo +memory >$mount/cgroup.subtree_control 2>/dev/null || true
else
    mount=/sys/fs/cgroup/memory limit_file=memory.limit_in_bytes peak_file=memory.max_usage_in_bytes
fi
group=$mount/zimage-low-memory-$$
mkdir "$group" 2>/dev/null || fail "$group can't be made: is the memory controller of cgroups mounted?"
work=$(mktemp -d)
trap 'rmdir "$group" 2>/dev/null; rm -rf "$work"' EXIT
[ -e "$group/$limit_file" ] || fail "$group has no $limit_file: the memory controller is not there"

if [ ! -e "$model/transformer" ]; then
    # shellcheck disable=SC2086 # several words, or none
    "$python" "$here/tools/golden/make_6b.py" "$model" --tokenizer "$here/models/emoji/tokenizer" --bits 4 \
        ${small:+--layers 2 --text-layers 2} >&2 || fail "make_6b.py could not make $model"
fi

# run NAME LIMIT [OPTIONS]: makes $work/NAME.png in the group; sets seconds, peak and rss (MiB).
# Files are taken out of the page cache first: pages that are there already would count for nobody.
run() {
    local name=$1 bytes=$2 start
    shift 2
    sync
    find -L "$model" -type f -exec dd if={} iflag=nocache count=0 status=none \;
    echo "$bytes" >"$group/$limit_file" || fail "$limit_file can't be set to $bytes"
    # No swap: version 2 forbids it, version 1 avoids it.
    { [ ! -e "$group/memory.swap.max" ] || echo 0 >"$group/memory.swap.max"; } 2>/dev/null
    { [ ! -e "$group/memory.swappiness" ] || echo 0 >"$group/memory.swappiness"; } 2>/dev/null
    [ "$peak_file" = memory.peak ] || echo 0 >"$group/$peak_file"
    start=$(date +%s.%N)
    # shellcheck disable=SC2016 # for the inner shell
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$program" generate "a red apple" -m "$model" \
        --size "$size" --steps "$steps" --compute "$compute" --device cpu -s 7 -q --json --no-cache \
        -o "$work/$name.png" "$@" >"$work/$name.json" || fail "the image $name was not made: code $?"
    seconds=$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    peak=$(($(cat "$group/$peak_file") >> 20))
    rss=$(($(sed 's/.*"peak_rss_bytes":\([0-9]*\).*/\1/' "$work/$name.json") >> 20))
    printf '| %-10s | %9s | %14s | %14s | %7s |\n' "$name" "$([ "$bytes" = "$most" ] && echo - || echo "$limit")" \
        "$peak" "$rss" "$seconds"
    [ "$peak_file" != memory.peak ] || { rmdir "$group" && mkdir "$group"; } # a peak can't be reset before Linux 6.12
}

most=9223372036854771712
[ "$limit_file" != memory.max ] || most=max
echo "$size, $steps steps, $compute, $(du -shL "$model" | cut -f1) model, --mem ${mem}M; MiB and seconds"
echo "| run        | limit     | peak of group  | peak resident  | seconds |"
echo "|------------|-----------|----------------|----------------|---------|"
run limited $((limit << 20)) --mem "${mem}M"
[ "$peak" -le "$limit" ] || fail "the group had $peak MiB, more than its limit"
run unlimited "$most"
cmp -s "$work/limited.png" "$work/unlimited.png" || fail "the images differ"
echo "both files are equal, byte for byte"
