#!/bin/sh
# Runs the commands of README.md that begin with "zimage", as they stand: check_readme.sh BUILD SOURCE
# DIR and, in a cache of downloads, Tongyi-MAI/Z-Image-Turbo and black-forest-labs/FLUX.2-klein-4B are tiny models of
# these families. What needs a GPU, the network or minutes is left out: see skipped().
# Checks too that git ignores what the README's commands leave in the folder of the sources.
set -eu
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*"; exit 1; }

# selftest, bench, serve and the ledger have tests of their own.
skipped() {
    case $1 in
        *"--device cuda"* | *"--device mlx"* | *"zimage bench"* | *"zimage selftest"* | *"zimage serve"* | \
            *"zimage pull"* | *"zimage models --"* | *"--queue postgresql"*) return 0 ;;
        *) return 1 ;;
    esac
}

mkdir "$work/bin" "$work/in"
ln -s "$build/zimage" "$work/bin/zimage"
cd "$work/in"
ln -s "$source/tests/golden/tiny" DIR
ln -s "$source/docs" docs
put_into_cache() { # ORGANISATION--NAME MODEL
    cache=$work/hf/hub/models--$1 commit=0123456789abcdef0123456789abcdef01234567
    mkdir -p "$cache/refs" "$cache/snapshots"
    ln -s "$source/tests/golden/$2" "$cache/snapshots/$commit"
    printf %s "$commit" >"$cache/refs/main"
}
put_into_cache Tongyi-MAI--Z-Image-Turbo tiny
put_into_cache black-forest-labs--FLUX.2-klein-4B tiny-klein
# shellcheck disable=SC2016 # the backquotes are Markdown's
sed -n 's/^A line of `prompts.jsonl` is an object such as `\(.*\)`\..*/\1/p' "$source/README.md" >prompts.jsonl
[ -s prompts.jsonl ] || fail "the README shows no line of prompts.jsonl"
sed -n 's/^    \(zimage .*\)/\1/p' "$source/README.md" >"$work/commands"
ran=0
while read -r command; do
    skipped "$command" && continue
    PATH="$work/bin:$PATH" HOME="$work" HF_HOME="$work/hf" HF_HUB_CACHE="" \
        sh -c "$command" >"$work/log" 2>&1 </dev/null ||
        { cat "$work/log"; fail "README.md: $command"; }
    ran=$((ran + 1))
done <"$work/commands"
[ "$ran" -ge 10 ] || fail "only $ran commands of the README were found"
for name in cat.png images/apple.png cat.safetensors green.webp bee.webp; do
    [ -s "$name" ] || fail "$name was not made"
done

if git -C "$source" rev-parse --git-dir >/dev/null 2>&1; then
    for name in a-red-apple-7.png apple.png cat.safetensors prompts.jsonl images/apple.png build/run/zimage \
        bee.webp; do
        git -C "$source" check-ignore -q "$name" || fail "git does not ignore $name, which the README makes"
    done
fi
echo "$ran commands of the README ran"
