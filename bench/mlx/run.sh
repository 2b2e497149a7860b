#!/bin/bash
# Times a step of zimage and of mflux on MLX in turn (A B A B) and prints a table. bench/mlx/README.md says more.
set -eu
here=$(CDPATH="" cd "$(dirname "$0")" && pwd)
sizes="512 1024" modes="q4 bf16" rounds=2 repeats=5 python=python3 device=mlx out="" tiny=""

usage() {
    cat <<END
usage: bench/mlx/run.sh [OPTIONS] ZIMAGE_PROGRAM
  --sizes "A B"   pixels a side (default: $sizes)
  --modes "A B"   of bf16, q4, q8 (default: $modes); bf16 needs 14 GB of free memory
  --rounds N      how often both run in turn (default: $rounds)
  --repeats N     steps of one run (default: $repeats); a run's figure is their median
  --python P      a Python with mlx and mflux (default: $python)
  --device D      zimage's device (default: $device)
  --out FILE      lines of JSON, one for each run (default: a temporary file)
  --tiny          tries this script: one layer of zimage, a toy model of mflux. Its figures mean nothing.
END
}

while [ $# -gt 1 ]; do
    case $1 in
    --tiny) tiny=1 sizes=64 rounds=1 repeats=1; shift; continue ;;
    --sizes) sizes=$2 ;;
    --modes) modes=$2 ;;
    --rounds) rounds=$2 ;;
    --repeats) repeats=$2 ;;
    --python) python=$2 ;;
    --device) device=$2 ;;
    --out) out=$2 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift 2
done
case ${1:-} in
"" | -h | --help) usage; exit 2 ;;
esac
zimage=$1
out=${out:-$(mktemp)}

for _ in $(seq "$rounds"); do
    for mode in $modes; do
        for size in $sizes; do
            echo "zimage, $size x $size, $mode" >&2
            "$zimage" bench --synthetic z-image-turbo --device "$device" --format "$mode" --size "${size}x$size" \
                --tokens 64 --steps "$repeats" --stage transformer_step ${tiny:+--layers 1} --json |
                "$python" "$here/table.py" add "$out" "$size" "$mode"
            echo "mflux, $size x $size, $mode" >&2
            "$python" "$here/peers.py" --sizes "$size" --modes "$mode" --repeats "$repeats" ${tiny:+--tiny} >>"$out"
        done
    done
done
"$python" "$here/table.py" show "$out"
