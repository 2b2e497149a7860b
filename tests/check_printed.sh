#!/bin/bash
# What the program prints for other programs: completions in bash, zsh and fish, and the manual page for man and mandoc.
# check_printed.sh PROGRAM SOURCE. Exit code 77: none of the shells is here.
set -eu
program=$(realpath "$1") here=$(realpath "$2")/tests
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*"; exit 1; }

# What the shells have to offer, in any order, for words of which the last is being typed: SHELLS | OFFERS | WORDS.
# bash gets "=" as a word of its own, and replaces what is behind it.
cases() {
    cat <<'END'
bash zsh fish | generate | zimage gen
bash zsh fish | explain | zimage exp
bash zsh fish | --guidance | zimage generate --gui
bash zsh fish | torch-cpu torch-cuda | zimage generate --rng torch
bash zsh fish | bf16 | zimage bench --compute b
bash zsh fish | q4 q8 | zimage bench --format q
bash | kitty | zimage generate --show = k
zsh | kitty | zimage generate --show=k
fish | --show=kitty | zimage generate --show=k
bash | auto iterm2 kitty sixel | zimage generate --show =
bash | f32 fp8 | zimage generate --compute = f
bash | --help --shell bash fish zsh | zimage completion ''
zsh fish | bash fish zsh | zimage completion @
bash | | zimage generate --seed ''
zsh fish | picture.png | zimage explain pict
END
}

# The offers for each line of words: a line.
by_bash() {
    while read -r words; do
        bash -c 'source ./bash; COMP_WORDS=('"$words"'); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _zimage 2>/dev/null
            echo "${COMPREPLY[@]}"'
    done
}
by_zsh() {
    mapfile -t words
    timeout 60 zsh -f "$here/complete.zsh" zsh "${words[@]//@/}"
}
by_fish() {
    while read -r words; do
        fish --no-config -c "source fish; complete -C '${words//@/}'" | cut -f1 | xargs
    done
}
sorted() { xargs -r -d ' ' printf '%s\n' | sed '/^$/d' | sort | tr '\n' ' '; }

check() { # SHELL
    local shell=$1 shells offers words offered
    while IFS='|' read -r shells offers words; do
        [[ $shells == *$shell* ]] || continue
        echo "$offers" >>"$shell.offers"
        echo "${words# }" >>"$shell.words"
    done < <(cases)
    "by_$shell" <"$shell.words" >"$shell.offered"
    while read -r words <&3 && read -r offers <&4 && read -r offered <&5; do
        [ "$(echo "$offered" | sorted)" = "$(echo "$offers" | sorted)" ] ||
            fail "$shell: $words: offered \"$offered\", expected \"$offers\""
    done 3<"$shell.words" 4<"$shell.offers" 5<"$shell.offered"
    [ "$(wc -l <"$shell.words")" = "$(wc -l <"$shell.offered")" ] || fail "$shell: it did not answer every line"
}

cd "$work"
touch picture.png
ready=""
for shell in bash zsh fish; do
    if ! command -v "$shell" >/dev/null; then
        echo "skipped: completion by $shell, which is not here"
        continue
    fi
    # shellcheck disable=SC2094 # a file that has the shell's name
    "$program" completion "$shell" >"$shell"
    "$shell" -n "$shell" || fail "$shell does not accept its script"
    check "$shell"
    ready="$ready $shell"
done
[ -n "$ready" ] || exit 77

"$program" help --man >zimage.1
if command -v man >/dev/null; then
    LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l zimage.1 >page 2>warnings || fail "man: $(cat warnings)"
    [ ! -s warnings ] || fail "man: $(cat warnings)"
    grep -q -- "--show\[=PROTOCOL\]" page || fail "man does not show the page"
else
    echo "skipped: the manual page by man, which is not here"
fi
if command -v mandoc >/dev/null; then
    mandoc -Tlint zimage.1 >warnings || fail "mandoc: $(cat warnings)"
    [ ! -s warnings ] || fail "mandoc: $(cat warnings)"
else
    echo "skipped: the manual page by mandoc, which is not here"
fi
echo "printed:$ready, the manual page"
