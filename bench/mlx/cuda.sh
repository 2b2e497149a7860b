#!/bin/bash
# What MLX's CUDA build shows of zimage, on a machine with an NVIDIA GPU and MLX made ready by unpack.sh:
#   bench/mlx/cuda.sh BUILD OUT [PART...]
# BUILD: a build with -DZIMAGE_MLX=ON and its tests. OUT: a folder for logs. PARTs, by default all of them:
#   tests    the operations' cases in float32 and bf16, and the toy images, side by side: MLX compiles each kernel when
#            it is first used, which takes minutes the first time
#   steps    a step in bf16 and from 4 bits, at 512x512 and 1024x1024, beside mflux, in turn
#   stages   the other stages at 1024x1024
# Each part has a limit of time (LIMIT_TESTS, LIMIT_STEP, LIMIT_PEER: seconds), so that one of them does not cost the
# others. ROUNDS: of the steps (default: 2); PEER_MODES: what mflux is timed in (default: bf16 q4).
set -u -o pipefail
here=$(CDPATH="" cd "$(dirname "$0")" && pwd)
build=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- tests steps stages
mkdir -p "$out"

limited() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 begin=$SECONDS
    shift 2
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    echo "$name: exit code $?, $((SECONDS - begin)) s"
}

run_tests() {
    local name
    for name in float32_cases bf16_cases; do
        limited "$name" "${LIMIT_TESTS:-240}" "$build/tests/mlx/test_mlx_table" "$name" &
    done
    for name in pipeline klein; do
        limited "$name" "${LIMIT_TESTS:-240}" "$build/tests/mlx/test_mlx_$name" &
    done
    wait
    for name in float32_cases bf16_cases pipeline klein; do
        grep -aE 'allowed|FAILED|PASSED|cases,|exceeds' "$out/$name.log" | tail -n 8
    done
}

step() { # SIZE FORMAT STAGE
    local name=$3-$2-$1
    limited "$name" "${LIMIT_STEP:-100}" "$build/zimage" bench --synthetic z-image-turbo --device mlx --format "$2" \
        --size "$1x$1" --tokens 64 --steps 9 --stage "$3" --cache-dir "$out/choices" --json
    tail -n 1 "$out/$name.log" | python3 "$here/table.py" tell "$3"
}

run_steps() {
    local mode size
    for _ in $(seq "${ROUNDS:-2}"); do
        for mode in bf16 q4; do
            for size in 512 1024; do step "$size" "$mode" transformer_step; done
        done
        for mode in ${PEER_MODES:-bf16 q4}; do
            limited "mflux-$mode" "${LIMIT_PEER:-150}" python3 "$here/peers.py" --modes "$mode" --sizes 512 1024 \
                --repeats 9
            tail -n 2 "$out/mflux-$mode.log"
        done
    done
}

run_stages() {
    local stage
    for stage in text_encoder vae_decode vae_encode; do step 1024 bf16 "$stage"; done
}

for part; do "run_$part"; done
