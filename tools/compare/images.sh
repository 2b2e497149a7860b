#!/bin/bash
# Compares the images of two builds byte by byte: final latents and pixels must be equal.
#
#   tools/compare/images.sh OLD_PROGRAM NEW_PROGRAM [--gpu | --no-gpu] [--only REGEX]
#
# The cases: every set of CPU features that --cpu-mask allows on this machine, every compute type, the C reference,
# plain and quantised models, guidance, memory limits small enough for bands of rows; then the emulated GPU of both
# builds (target zimage_cuda_emulated), with all of its memory and with little of it.
# --gpu: this machine's own GPU instead of the emulated one; both programs need their libzimage-cuda.so beside them.
# --no-gpu: no GPU cases; without it a missing emulated GPU is a failure.
# --only REGEX: only the cases whose name matches.
# Exit code: 0 all equal, 1 something differs or a program failed, 2 wrong usage.
set -u

usage() { sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '/^set -u/d' >&2; exit 2; }

[ $# -ge 2 ] || usage
old_program=$(realpath -e "$1") && new_program=$(realpath -e "$2") || exit 2
shift 2
gpu=emulated only=.
while [ $# -gt 0 ]; do
    case $1 in
    --gpu) gpu=real ;;
    --no-gpu) gpu=none ;;
    --only) [ $# -ge 2 ] || usage; only=$2; shift ;;
    *) usage ;;
    esac
    shift
done

root=$(realpath "$(dirname "$0")/../..")
golden=$root/tests/golden
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
export XDG_CACHE_HOME=$scratch/cache # both programs read the same measurements of this machine

# ---- the two programs -----------------------------------------------------------------------------------------------

on_gpu=0

# generate WHICH OPTIONS...: WHICH is old or new; on_gpu=1 takes the program beside the GPU library.
generate() {
    local which=$1
    shift
    "${programs[$which $on_gpu]}" generate "$@"
}

# The programs of the CPU cases, then those of the GPU cases. A program finds libzimage-cuda.so in its own folder.
declare -A programs=(["old 0"]=$old_program ["new 0"]=$new_program ["old 1"]=$old_program ["new 1"]=$new_program)
has_gpu=1
[ "$gpu" != none ] || has_gpu=0
if [ "$gpu" = emulated ]; then
    # use_emulated WHICH: the GPU cases take a copy of the program beside its build's emulated GPU library.
    use_emulated() {
        local program=${programs[$1 1]} library
        library=$(dirname "$program")/tests/cuda_emulated/libzimage-cuda.so
        if [ ! -f "$library" ]; then
            echo "no emulated GPU: $library is not there" >&2
            has_gpu=0
            return
        fi
        mkdir "$scratch/$1"
        cp "$program" "$library" "$scratch/$1/"
        programs[$1 1]=$scratch/$1/$(basename "$program")
    }
    use_emulated old
    use_emulated new
fi

# ---- test models ----------------------------------------------------------------------------------------------------

models=$scratch/models
mkdir "$models"
cp -r "$golden/tiny" "$models/f32"
cp -r "$golden/tiny" "$models/bf16-sharded"
rm -r "$models/bf16-sharded/transformer"
cp -r "$golden/tiny-bf16-sharded/transformer" "$models/bf16-sharded/"
cp -r "$golden/tiny" "$models/f16"
rm -r "$models/f16/text_encoder" "$models/f16/vae"
cp -r "$golden/tiny-f16/." "$models/f16/"
cp -r "$golden/tiny" "$models/base"
cp "$golden/tiny-base/scheduler/scheduler_config.json" "$models/base/scheduler/"
cp -r "$golden/mlx/uqer1244" "$models/q4" # 4 bits
cp -r "$golden/tiny/tokenizer" "$golden/tiny/vae" "$models/q4/"
cp -r "$golden/mlx/mflux" "$models/q8" # 8 bits
cp -r "$golden/tiny/tokenizer" "$models/q8/"
cp -r "$root/models/emoji" "$models/emoji"
cp -r "$golden/tiny-klein" "$models/klein"
cp -r "$golden/tiny-klein" "$models/klein-base"
sed -i 's/"is_distilled": true/"is_distilled": false/' "$models/klein-base/model_index.json"
cp -r "$golden/mlx/klein" "$models/klein-q4"
cp -r "$golden/tiny-klein/tokenizer" "$golden/tiny-klein/text_encoder" "$models/klein-q4/"

# ---- one case -------------------------------------------------------------------------------------------------------

equal=0 differing=0 failing=0

# Whether two PNG files hold the same image: their headers and their inflated image data are equal.
same_pixels() {
    cmp -s "$1" "$2" && return
    python3 - "$1" "$2" <<'PYTHON'
import struct, sys, zlib

def image(path):
    data, at, header, packed = open(path, "rb").read(), 8, b"", b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        header += body if kind == b"IHDR" else b""
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    return header, zlib.decompress(packed)

sys.exit(image(sys.argv[1]) != image(sys.argv[2]))
PYTHON
}

same_latents() { cmp -s "$1" "$2"; }

word() { if "$@"; then echo same; else echo DIFFERENT; fi; }

# row NAME LATENTS PIXELS: a line of the table.
row() { printf '%-64s | %-9s | %-9s\n' "$1" "$2" "$3"; }

# run_case NAME OLD_LIMIT NEW_LIMIT OPTIONS...: limits are a further option of either program, or empty.
run_case() {
    local name=$1 limits=("$2" "$3") which i=0
    shift 3
    [[ $name =~ $only ]] || return
    rm -f "$scratch"/*.png "$scratch"/*.safetensors
    for which in old new; do
        # shellcheck disable=SC2086 # a limit is an option and its value
        if ! generate "$which" "$@" ${limits[i]} --seed 7 -q -o "$scratch/$which.png" \
            --save-latents "$scratch/$which.safetensors" >"$scratch/$which.log" 2>&1; then
            row "$name" "$which" "FAILED"
            sed 's/^/    /' "$scratch/$which.log"
            failing=$((failing + 1))
            return
        fi
        i=$((i + 1))
    done
    local latents pixels
    latents=$(word same_latents "$scratch/old.safetensors" "$scratch/new.safetensors")
    pixels=$(word same_pixels "$scratch/old.png" "$scratch/new.png")
    row "$name" "$latents" "$pixels"
    if [ "$latents$pixels" = samesame ]; then equal=$((equal + 1)); else differing=$((differing + 1)); fi
}

both() {
    local name=$1
    shift
    run_case "$name" "" "" "$@"
}

# planned WHICH FIELD OPTIONS...: a number of the program's plan; FIELD is the path to it in the JSON.
planned() {
    local which=$1 field=$2
    shift 2
    generate "$which" "$@" --plan --json 2>/dev/null | python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[key]
print(int(value))' "$field" 2>/dev/null
}

no_plan() {
    row "$1" plan FAILED
    failing=$((failing + 1))
}

# with_least NAME OPTION FIELD OPTIONS...: with the least memory that each program's own plan names.
with_least() {
    local name=$1 option=$2 field=$3 least_old least_new
    shift 3
    [[ $name =~ $only ]] || return
    least_old=$(planned old "$field" "$@") || { no_plan "$name"; return; }
    least_new=$(planned new "$field" "$@") || { no_plan "$name"; return; }
    run_case "$name" "$option $least_old" "$option $least_new" "$@"
}

# with_half NAME OPTIONS...: with GPU memory half way between the least and what all weights need.
with_half() {
    local name=$1 which least whole limits=()
    shift
    [[ $name =~ $only ]] || return
    for which in old new; do
        least=$(planned "$which" device.least_bytes "$@") || { no_plan "$name"; return; }
        whole=$(planned "$which" device.total_bytes "$@") || { no_plan "$name"; return; }
        limits+=("--vram $(((least + whole) / 2))")
    done
    run_case "$name" "${limits[@]}" "$@"
}

# ---- cases ----------------------------------------------------------------------------------------------------------

tiny=(-W 80 -H 48 --steps 2)
guided=(--guidance 4 --negative "an apple, much longer than the other prompt")

# The feature sets worth comparing, those that this machine has; the last one is everything.
feature_sets() {
    local features set feature
    features=$("$old_program" devices --json |
        python3 -c 'import json, sys; print(*json.load(sys.stdin)["cpu"]["features"])') || return
    echo generic
    for set in avx2 avx2,avx-vnni avx2,avx512 avx2,avx512,avx512-vnni avx2,avx512,avx512-bf16 \
        avx2,avx512,avx512-vnni,avx512-bf16; do
        for feature in ${set//,/ }; do
            [[ " $features " == *" $feature "* ]] || continue 2
        done
        echo "$set"
    done
    case $features in *amx*) echo "${features// /,}" ;; esac
}

# FLUX.2-klein, which older programs can't run. Arguments: the name of the cases, then options.
klein_cases() {
    local name=$1
    shift
    "$old_program" generate a -m "$models/klein" --plan >/dev/null 2>&1 || return 0
    both "$name klein" "a red apple" -m "$models/klein" "$@"
    both "$name klein-q4" "a red apple" -m "$models/klein-q4" "$@"
    both "$name klein-base guided" "a pear" -m "$models/klein-base" "$@" "${guided[@]}"
    both "$name klein, a reference" "a pear" -m "$models/klein" "$@" -i "$root/docs/contact-sheet.png"
}

cpu_cases() {
    local sets set compute model
    sets=$(feature_sets) || { row "zimage devices --json" old FAILED; failing=$((failing + 1)); }
    for set in $sets; do
        for compute in f32 bf16 int8; do
            local options=("${tiny[@]}" --cpu-mask "$set" --compute "$compute")
            for model in f32 bf16-sharded f16 q4 q8; do
                both "$set $compute $model" "a red apple" -m "$models/$model" "${options[@]}"
            done
            both "$set $compute f32 guided" "a pear" -m "$models/f32" "${options[@]}" "${guided[@]}"
            both "$set $compute base guided" "a pear" -m "$models/base" "${options[@]}" "${guided[@]}" \
                --cfg-truncation 0.6 --cfg-normalization 1
            both "$set $compute q4 guided" "a pear" -m "$models/q4" "${options[@]}" "${guided[@]}"
            both "$set $compute emoji" "a red apple" -m "$models/emoji" -W 128 -H 128 --steps 2 --cpu-mask "$set" \
                --compute "$compute"
            klein_cases "$set $compute" "${options[@]}"
        done
    done
}

setting_cases() {
    local compute model rng kind long
    for model in f32 q4 q8 emoji; do
        both "reference $model" "a red apple" -m "$models/$model" -W 64 -H 32 --steps 2 --reference
    done
    both "reference base guided" "a pear" -m "$models/base" -W 32 -H 32 --steps 2 --reference "${guided[@]}"
    for compute in f32 bf16 int8; do
        for model in f32 q4 q8; do
            with_least "bands $compute $model" --mem least_bytes "a red apple" -m "$models/$model" -W 512 -H 512 \
                --steps 1 --compute "$compute"
        done
        with_least "bands $compute f32 guided" --mem least_bytes "a pear" -m "$models/f32" -W 512 -H 512 --steps 1 \
            --compute "$compute" "${guided[@]}"
        both "one thread $compute f32" "a red apple" -m "$models/f32" "${tiny[@]}" --compute "$compute" --threads 1
        for kind in bf16 f32; do
            both "dequantized to $kind, $compute q4" "a red apple" -m "$models/q4" "${tiny[@]}" --compute "$compute" \
                --dequantize "$kind"
        done
        both "emoji, all steps, $compute" "a red apple" -m "$models/emoji" --compute "$compute"
        both "emoji guided $compute" "a pear" -m "$models/emoji" -W 128 -H 128 --steps 3 --compute "$compute" \
            "${guided[@]}"
    done
    for rng in torch-cpu torch-cuda mlx numpy; do
        both "noise $rng" "a red apple" -m "$models/f32" "${tiny[@]}" --compute f32 --rng "$rng"
    done
    long=$(yes "a long prompt," | head -n 300 | tr '\n' ' ')
    both "long prompt" "$long" -m "$models/f32" "${tiny[@]}" --compute f32
    both "empty prompt" "" -m "$models/f32" "${tiny[@]}" --compute f32
}

gpu_cases() {
    local compute model small=(-W 48 -H 32 --steps 2 --device cuda)
    on_gpu=1
    for compute in bf16 f32 fp8; do
        local options=("${small[@]}" --compute "$compute")
        for model in f32 bf16-sharded f16 q4 q8; do
            both "$gpu GPU $compute $model" "a red apple" -m "$models/$model" "${options[@]}"
        done
        both "$gpu GPU $compute base guided" "a pear" -m "$models/base" "${options[@]}" "${guided[@]}" \
            --cfg-truncation 0.6
        both "$gpu GPU $compute q4 guided" "a pear" -m "$models/q4" "${options[@]}" "${guided[@]}"
        both "$gpu GPU $compute emoji" "a red apple" -m "$models/emoji" -W 64 -H 64 --steps 1 --device cuda \
            --compute "$compute"
        with_least "$gpu GPU $compute f32, least memory" --vram device.least_bytes "a red apple" -m "$models/f32" \
            "${options[@]}"
        with_least "$gpu GPU $compute q4 guided, least memory" --vram device.least_bytes "a pear" -m "$models/q4" \
            "${options[@]}" "${guided[@]}"
        with_half "$gpu GPU $compute f32, half of the memory" "a red apple" -m "$models/f32" "${options[@]}"
    done
    on_gpu=0
}

row case latents pixels
row ---- ------- ------
if [ "$gpu" != real ]; then
    cpu_cases
    setting_cases
fi
[ "$has_gpu" = 0 ] || gpu_cases
echo
echo "$equal equal, $differing different, $failing failed"
[ "$has_gpu" = 1 ] || echo "the GPU backend was not compared"
[ $((equal + differing + failing)) -gt 0 ] || { echo "no case matches $only" >&2; exit 2; }
[ $((differing + failing)) -eq 0 ] && { [ "$has_gpu" = 1 ] || [ "$gpu" = none ]; }
