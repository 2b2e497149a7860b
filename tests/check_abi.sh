#!/bin/sh
# Programs and libraries of different versions: check_abi.sh BUILD SOURCE C_COMPILER
# - a program built against 0.1 is refused by the loader; forced onto this library it ends by a missing symbol
# - a program of this version runs on a later 0.2.x, whose structs have grown
# - a program of that later version runs on this library, and is refused where it sets what this version does not know
# BUILD/tests/abi holds this version's program, the later version's, and the later version's library (grown/).
# shellcheck disable=SC2086 # cc: several words
set -eu
build=$1 source=$2 cc=$3 # cc: may be several words
abi=$build/tests/abi
model=$source/tests/golden/tiny
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*"; exit 1; }

# The soname is what the loader looks for.
for library in "$build/libzimage.so" "$abi/grown/libzimage.so"; do
    readelf -d "$library" | grep -q 'SONAME.*\[libzimage\.so\.0\.2\]' || fail "$library is not libzimage.so.0.2"
done
readelf -d "$abi/program" | grep -q 'NEEDED.*\[libzimage\.so\.0\.2\]' || fail "the program needs another library"

# ---- 0.1: a program that needs libzimage.so.0. At link time a library of empty functions stands in for it.
mkdir "$work/0.1" "$work/only" "$work/forced"
cp "$source/tests/abi/zimage-0.1.h" "$work/0.1/zimage.h"
sed -n 's/^ZIMAGE_API .*[ *]\(zimage_[a-z0-9_]*\)(.*/void \1(void) {}/p' "$work/0.1/zimage.h" >"$work/0.1/empty.c"
$cc -shared -fPIC -Wl,-soname,libzimage.so.0 -o "$work/0.1/libzimage.so.0" "$work/0.1/empty.c"
$cc -std=c11 -I"$work/0.1" -o "$work/minimal" "$source/tests/abi/minimal-0.1.c" "$work/0.1/libzimage.so.0"
ln -s "$(readlink -f "$build/libzimage.so")" "$work/only/libzimage.so.0.2"
ln -s "$(readlink -f "$build/libzimage.so")" "$work/forced/libzimage.so.0"

# old_program FOLDER WORDS [BIND_NOW]: with the libraries of FOLDER only, it ends with exit code 127 and these words
old_program() {
    code=0
    LD_LIBRARY_PATH=$1 LD_BIND_NOW=${3:-} "$work/minimal" "$model" "a red apple" "$work/old.png" \
        >"$work/out" 2>&1 || code=$?
    if [ "$code" != 127 ] || ! grep -q "$2" "$work/out"; then
        fail "0.1 on $1: exit code $code: $(cat "$work/out")"
    fi
    [ ! -e "$work/old.png" ] || fail "0.1 on $1: it wrote an image"
    echo "0.1: $(sed 's/.*: error/error/' "$work/out" | tail -1)"
}
old_program "$work/only" "libzimage.so.0: cannot open shared object file"
# A sanitizer's runtime refuses a program that was built without it.
if ! readelf -d "$build/libzimage.so" | grep -q 'NEEDED.*lib[atu]*san'; then
    old_program "$work/forced" "undefined symbol: zimage_open"
    old_program "$work/forced" "undefined symbol: zimage_" 1
fi

# ---- 0.2.x: each program on each library
run() { # PROGRAM LIBRARIES ARGUMENTS...
    program=$1 libraries=$2
    shift 2
    LD_LIBRARY_PATH=$libraries "$abi/$program" "$@" || fail "$program on $libraries: $1"
}
expected=$(run program "$build" serve "$model" "$work/a.png")
for program in program program_grown; do
    for libraries in "$build" "$abi/grown"; do
        made=$(run "$program" "$libraries" serve "$model" "$work/b.png")
        [ "$made" = "$expected" ] || fail "$program on $libraries made $made, expected $expected"
        cmp "$work/a.png" "$work/b.png" || fail "$program on $libraries wrote another image"
    done
done
run program "$build" refuse "$model"
run program "$abi/grown" refuse "$model"
run program_grown "$build" refuse "$model"
echo "0.2.0 and a grown 0.2.1: each program on each library, $expected"
