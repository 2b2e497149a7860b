#!/bin/sh
# What an embedder gets: `make install` into a fresh prefix, only public symbols exported, the header's example built
# with pkg-config alone and run, no printing or exiting from library code.
# usage: check_install.sh BUILD_FOLDER SOURCE_FOLDER C_COMPILER
set -eu
build=$1 source=$2 cc=$3
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
fail() { echo "FAIL: $*"; exit 1; }

DESTDIR="$prefix" cmake --install "$build" >/dev/null
root=$(dirname "$(dirname "$(find "$prefix" -name zimage -type f -path '*/bin/*')")")
library=$(find "$root" -name 'libzimage.so')
[ -n "$library" ] || fail "no libzimage.so installed"
[ -n "$(find "$root" -name 'libzimage.a')" ] || fail "no libzimage.a installed"
[ -f "$root/include/zimage.h" ] || fail "no header installed"
for file in man/man1/zimage.1 bash-completion/completions/zimage zsh/site-functions/_zimage \
    fish/vendor_completions.d/zimage.fish; do
    [ -s "$root/share/$file" ] || fail "no share/$file installed"
done

# Exported: exactly what the header declares with ZIMAGE_API.
nm -D --defined-only "$library" | awk '{print $3}' | sort >"$prefix/exported"
sed -n 's/^ZIMAGE_API .*[ *]\(zimage_[a-z0-9_]*\)(.*/\1/p' "$source/include/zimage.h" | sort >"$prefix/declared"
[ -s "$prefix/declared" ] || fail "no declarations found in the header"
diff "$prefix/declared" "$prefix/exported" || fail "exported symbols differ from the header's (< declared, > exported)"
echo "exported symbols: $(wc -l <"$prefix/exported"), all public"

# Library code never exits, aborts or prints.
if nm -D --undefined-only "$library" | awk '{print $2}' | sed 's/@.*//' |
    grep -xE 'exit|_exit|abort|printf|puts|putchar|vprintf|stdout|stderr|perror|__printf_chk|__vprintf_chk'; then
    fail "the library calls what is listed above"
fi
echo "no exit, abort or printing in the library"

# The header's example is examples/minimal.c, and builds from what was installed.
awk '/^ \*   #include <stdio.h>/{p=1} p&&/^ \*$/{print "";next} p&&/^ \*   /{sub(/^ \*   /,"");print} /^ \* Models and sessions/{exit}' \
    "$source/include/zimage.h" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | diff - "$source/examples/minimal.c" ||
    fail "the header's example and examples/minimal.c differ"
pc=$(dirname "$(find "$root" -name zimage.pc)")
PKG_CONFIG_PATH="$pc" PKG_CONFIG_SYSROOT_DIR="$prefix" export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wextra -Werror -o "$prefix/minimal" "$source/examples/minimal.c" $(pkg-config --cflags --libs zimage)
LD_LIBRARY_PATH=$(dirname "$library") "$prefix/minimal" "$source/tests/golden/tiny" "a red apple" "$prefix/out.png" 2>/dev/null
[ -s "$prefix/out.png" ] || fail "the example made no picture"
echo "the installed header, library and pkg-config file build and run the example"
