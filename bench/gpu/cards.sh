#!/bin/bash
# One GPU beside several: times and errors of evaluations with random weights, what kill -9 leaves, and diffusers'
# context parallel.
#
#   bench/gpu/cards.sh BUILD GPUS [PART...]     BUILD: with bench_cards and libzimage-cuda.so; GPUS: "cuda:0,1"
#
# Parts: z-image klein guided fp8 before kill peer. `before` times one GPU in turn with another build, whose bench_cards
# the variable BEFORE names. Results are lines of JSON; each part ends after at most 150 s.
set -u
here=$(CDPATH="" cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
build=$1 gpus=$2
shift 2
[ $# -gt 0 ] || set -- z-image klein guided fp8 kill peer
python=${PYTHON:-python3}

cards() { timeout 150 "$build/bench_cards" "$@"; }

# One GPU with the two builds, in turn.
compare_before() {
    for _ in 1 2; do
        for program in "${BEFORE:?names the bench_cards of the other build}" "$build/bench_cards"; do
            echo "$program"
            timeout 60 "$program" z-image-turbo bf16 "1024 512" 1 2 errors cuda:0
        done
    done
}

# A process that is killed in the middle of an evaluation leaves no memory in use, and the GPUs compute afterwards.
kill_in_the_middle() {
    local log pid
    log=$(mktemp)
    "$build/bench_cards" z-image-turbo bf16 1024 1 1000 times "$gpus" >"$log" &
    pid=$!
    for _ in $(seq 60); do
        grep -q '"time"' "$log" && break
        sleep 1
    done
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    tail -n 1 "$log"
    rm -f "$log"
    sleep 3
    nvidia-smi --query-gpu=index,memory.used --format=csv
    cards klein-4b bf16 512 1 1 times "$gpus"
}

for part in "$@"; do
    echo "== $part"
    case $part in
    z-image) cards z-image-turbo bf16 "1024 512 2048" 1 3 errors cuda:0 "$gpus" ;;
    klein) cards klein-4b bf16 "1024 512 2048" 1 3 errors cuda:0 "$gpus" ;;
    guided) cards z-image-turbo bf16 1024 2 3 errors cuda:0 "$gpus" ;;
    fp8) cards z-image-turbo fp8 "1024 512 2048" 1 3 errors cuda:0 "$gpus" ;;
    before) compare_before ;;
    kill) kill_in_the_middle ;;
    peer)
        numbers=${gpus#cuda:}
        count=$(($(tr -cd , <<<"$numbers" | wc -c) + 1))
        for compiled in "" --compile; do
            CUDA_VISIBLE_DEVICES=$numbers timeout 150 "$python" -m torch.distributed.run --nproc-per-node "$count" \
                "$here/cards_peer.py" --sizes 1024 2048 $compiled
        done
        ;;
    *) echo "no part \"$part\"" >&2; exit 2 ;;
    esac
    echo "exit status $?"
done
