#!/bin/sh
# Installs into a fresh folder and checks what an application gets: check_install.sh BUILD SOURCE C_COMPILER
# - the library exports exactly the functions of the header, and never prints, exits or aborts
# - no installed file contains the path of the source folder
# - the header's example builds with pkg-config alone, and runs
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

# The library exports exactly what the header declares with ZIMAGE_API.
nm -D --defined-only "$library" | awk '{print $3}' | sort >"$prefix/exported"
sed -n 's/^ZIMAGE_API .*[ *]\(zimage_[a-z0-9_]*\)(.*/\1/p' "$source/include/zimage.h" | sort >"$prefix/declared"
[ -s "$prefix/declared" ] || fail "no declarations found in the header"
diff "$prefix/declared" "$prefix/exported" || fail "exported symbols differ from the header's (< declared, > exported)"
echo "exported symbols: $(wc -l <"$prefix/exported"), all public"

# The library never exits, aborts or prints.
if nm -D --undefined-only "$library" | awk '{print $2}' | sed 's/@.*//' |
    grep -xE 'exit|_exit|abort|printf|puts|putchar|vprintf|stdout|stderr|perror|__printf_chk|__vprintf_chk'; then
    fail "the library calls what is listed above"
fi
# A build with NDEBUG has no assertion that could abort.
if ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Debug$' "$build/CMakeCache.txt" &&
    nm -D --undefined-only "$library" | grep -q __assert_fail; then
    fail "the library aborts in assertions"
fi
echo "no exit, abort, assertion or printing in the library"

# Nothing that is installed knows the folder that it was built from.
if grep -rlF "$source/" "$root"; then
    fail "the files listed above hold the path $source"
fi

# The header's example is examples/minimal.c, and builds from what was installed.
awk '/^ \*   #include <stdio.h>/ { inside = 1 }
    inside && /^ \*$/ { print ""; next }
    inside && /^ \*   / { sub(/^ \*   /, ""); print }
    /^ \* Models and sessions/ { exit }' "$source/include/zimage.h" |
    sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | diff - "$source/examples/minimal.c" ||
    fail "the header's example and examples/minimal.c differ"
pc=$(dirname "$(find "$root" -name zimage.pc)")
PKG_CONFIG_PATH="$pc" PKG_CONFIG_SYSROOT_DIR="$prefix" export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wextra -Werror -o "$prefix/minimal" "$source/examples/minimal.c" \
    $(pkg-config --cflags --libs zimage)
LD_LIBRARY_PATH=$(dirname "$library") "$prefix/minimal" "$source/tests/golden/tiny" "a red apple" "$prefix/out.png" \
    2>/dev/null
[ -s "$prefix/out.png" ] || fail "the example made no image"
echo "the installed header, library and pkg-config file build and run the example"
