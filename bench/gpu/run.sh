#!/bin/bash
# Builds zimage for this machine's GPU, tests it, and times it beside PyTorch; prints one table. bench/gpu/README.md
# says more.
set -u
here=$(CDPATH="" cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/build/gpu-results build="" models="" python=python3 device=cuda tiny="" drawings="" prompts="" formats=""
all="environment build tests images ceilings attention bench folder errors"
all="$all peers-compiled peers-fp8 peers-eager warm vram scores sanitizer"
all="$all klein-bench klein-ceilings klein-compiled klein-fp8 klein-encode klein-errors"
parts=$all skipped="" limit=""

usage() {
    cat <<END
usage: bench/gpu/run.sh [OPTIONS]
  --out DIR       results.jsonl, table.txt and logs (default: build/gpu-results); results are added to the ones there
  --build DIR     a build to use instead of building one in build/gpu
  --parts "A B"   only these, in this order: $all
  --skip "A B"    all but these
  --limit N       at most so many seconds for each part, instead of its own limit
  --models DIR    folder for the model folders of the real sizes, 27 GB (default: in memory, else build/gpu-models)
  --formats "A B" only these of bf16, fp8, q4, q8 in the part bench; without q4 it makes no 4-bit folder
  --python P      a Python with torch, diffusers and transformers (default: $python)
  --prompts FILE  for the part scores, made by tools/train/evaluate prompts --every 8
  --drawings DIR  made by tools/train/prepare.py, to score the images here
  --tiny          tries the scripts on the CPU, with a toy model
END
}

while [ $# -gt 0 ]; do
    case $1 in
    --tiny) tiny=1 device=cpu models=$root/build/gpu-tiny; shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --out | --build | --parts | --skip | --limit | --models | --formats | --python | --prompts | --drawings)
        [ $# -ge 2 ] || { usage >&2; exit 2; } ;;
    *) usage >&2; exit 2 ;;
    esac
    case $1 in
    --out) out=$2 ;;
    --build) build=$2 ;;
    --parts) parts=$2 ;;
    --skip) skipped=$2 ;;
    --limit) limit=$2 ;;
    --models) models=$2 ;;
    --formats) formats=$2 ;;
    --python) python=$2 ;;
    --prompts) prompts=$2 ;;
    --drawings) drawings=$2 ;;
    esac
    shift 2
done

# A folder in memory if 28 GB fit there, else on disk (then the page cache holds it).
choose_models() {
    local free
    free=$(df --output=avail -BG /dev/shm 2>/dev/null | tail -n 1 | tr -dc 0-9)
    if [ -d /dev/shm/zimage-gpu ] || [ "${free:-0}" -ge 28 ]; then
        echo /dev/shm/zimage-gpu
    else
        echo "$root/build/gpu-models"
    fi
}

models=${models:-$(choose_models)}
mkdir -p "$out" "$models" || exit 1
out=$(cd "$out" && pwd)
[ -n "$build" ] && parts=" $parts " && parts=${parts/ build / }
build=${build:-$root/build/gpu}
model=$models/bf16 packed=$models/q4
common=(--out "$out" --device "$device")
if [ -n "$tiny" ]; then
    common+=(--sizes 128 64 --repeats 1)
    small=(--small) klein=klein-small
    synthetic=(--synthetic small)
else
    small=() klein=klein-4b synthetic=()
fi
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false

py() { # SCRIPT ARGUMENTS...
    local script=$1
    shift
    "$python" "$here/$script" "${common[@]}" "$@"
}

do_environment() { py environment.py; }

# The cuDNN of Python's packages, for when CMake finds no other.
python_cudnn() { "$python" -c 'import nvidia.cudnn as c; print(list(c.__path__)[0])' 2>/dev/null; }

do_build() {
    [ -n "${CUDNN_ROOT:-}" ] || [ -e "${CUDA_HOME:-/usr/local/cuda}/include/cudnn.h" ] || [ -e /usr/include/cudnn.h ] ||
        CUDNN_ROOT=$(python_cudnn)
    export CUDNN_ROOT
    cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DZIMAGE_CUDA=ON \
        -DCMAKE_CUDA_ARCHITECTURES="$(architecture)" &&
        cmake --build "$build" --target zimage zimage_cuda test_cuda velocity
}

# The GPU's architecture; for Hopper with its architecture-specific instructions.
architecture() {
    local found
    found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    case $found in
    "" | 90) echo 90a-real ;;
    *) echo "$found-real" ;;
    esac
}

do_tests() { py checks.py --build "$build" --limit 150 tests; }
do_images() { py checks.py --build "$build" images; }
do_sanitizer() { py checks.py --build "$build" --limit 120 sanitizer; }
do_ceilings() { py ceilings.py ${small[@]+"${small[@]}"}; }
do_attention() {
    [ -n "$tiny" ] || cmake --build "$build" --target bench_attention || return
    py attention.py --library "$build/libbench_attention.so"
}
do_bench() { # shellcheck disable=SC2086 # formats are words
    py program.py --zimage "$build/zimage" ${synthetic[@]+"${synthetic[@]}"} bench $formats
}
do_klein-bench() { # shellcheck disable=SC2086 # formats are words
    py program.py --zimage "$build/zimage" --synthetic "$klein" bench $formats
}
do_klein-ceilings() { py klein.py ${small[@]+"${small[@]}"} ceilings; }
do_klein-eager() { py klein.py ${small[@]+"${small[@]}"} eager; }
do_klein-compiled() { py klein.py ${small[@]+"${small[@]}"} compiled; }
do_klein-fp8() { py klein.py ${small[@]+"${small[@]}"} fp8; }
do_klein-encode() { py klein.py ${small[@]+"${small[@]}"} encode; }
do_klein-errors() {
    [ -x "$build/velocity" ] || cmake --build "$build" --target velocity || return
    py klein.py ${small[@]+"${small[@]}"} folder "$models/klein" &&
        py klein.py ${small[@]+"${small[@]}"} --velocity "$build/velocity" --work "$out/exchange" errors "$models/klein"
}
do_vram() { py program.py --zimage "$build/zimage" ${synthetic[@]+"${synthetic[@]}"} vram 4G; }

needs_packed() { case " ${formats:-q4} " in *" q4"*) ;; *) return 1 ;; esac }

do_folder() {
    if [ -n "$tiny" ]; then
        rm -rf "$model" && cp -r "$root/models/emoji" "$model"
    else
        "$python" "$root/tools/golden/make_6b.py" "$model" --tokenizer "$root/models/emoji/tokenizer"
    fi && rm -rf "$packed" && { ! needs_packed || "$python" "$here/pack.py" "$model" "$packed" --device "$device"; }
}

do_errors() {
    [ -x "$build/velocity" ] || cmake --build "$build" --target velocity || return
    local four=()
    needs_packed && four=(--packed "$packed")
    py errors.py --model "$model" ${four[@]+"${four[@]}"} --velocity "$build/velocity" --work "$out/exchange"
}
do_peers-eager() { py peers.py --model "$model" eager; }
do_peers-compiled() { py peers.py --model "$model" compiled; }
do_peers-fp8() { py peers.py --model "$model" fp8; }

do_warm() {
    py program.py --zimage "$build/zimage" images "$model" bf16 &&
        { ! needs_packed || py program.py --zimage "$build/zimage" images "$packed" q4; }
}

do_scores() {
    [ -n "$prompts" ] || { echo "no --prompts"; return 0; }
    py checks.py --build "$build" --limit 60 --prompts "$prompts" ${drawings:+--drawings "$drawings"} scores
}

# The limit of each part in seconds.
limit_of() {
    case $1 in
    environment) echo 60 ;;
    build) echo 300 ;;
    tests) echo 180 ;;
    images) echo 60 ;;
    ceilings) echo 60 ;;
    bench) echo 180 ;;
    folder) echo 180 ;;
    errors) echo 150 ;;
    peers-eager) echo 100 ;;
    peers-compiled | peers-fp8 | klein-compiled | klein-fp8) echo 300 ;;
    klein-bench | klein-encode | klein-errors) echo 180 ;;
    warm) echo 200 ;;
    vram) echo 60 ;;
    scores) echo 120 ;;
    sanitizer) echo 380 ;;
    *) echo 60 ;;
    esac
}

# Runs a part in a process group of its own, so that a part that runs too long ends with all its children.
run_part() {
    local name=$1 begin=$SECONDS seconds status pid waited=0
    seconds=${limit:-$(limit_of "$name")}
    echo "== $name (at most $seconds s)"
    set -m
    "do_$name" >"$out/$name.log" 2>&1 &
    pid=$!
    set +m
    while kill -0 "$pid" 2>/dev/null && [ $((waited++)) -lt $((seconds * 2)) ]; do sleep 0.5; done
    if kill -0 "$pid" 2>/dev/null; then
        kill -TERM -- "-$pid" 2>/dev/null
        sleep 1
        kill -KILL -- "-$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
        status="too long"
    else
        wait "$pid" && status=ok || status="exit status $?"
    fi
    printf '{"kind": "part", "name": "%s", "status": "%s", "seconds": %d}\n' "$name" "$status" $((SECONDS - begin)) \
        >>"$out/results.jsonl"
    [ "$status" = ok ] || { echo "$name: $status; the end of its log:"; tail -n 5 "$out/$name.log"; }
}

for part in $parts; do
    case " $skipped " in *" $part "*) continue ;; esac
    declare -F "do_$part" >/dev/null || { echo "no part \"$part\"; there are: $all" >&2; exit 2; }
    run_part "$part"
done
echo
"$python" "$here/table.py" "$out/results.jsonl" | tee "$out/table.txt"
