#!/bin/sh
# Installs into fresh folders and checks what users get: check_install.sh BUILD SOURCE C_COMPILER
# - the library exports exactly the functions of the header, and never prints, exits or aborts
# - no installed file contains the path of the source folder or of the build folder
# - an installation with --prefix can be moved, and the header's example builds with it through pkg-config (shared,
#   static, all static) and find_package (shared, static; other versions are refused)
# - add_subdirectory builds the example in a project that has targets of its own with the names of the program's
# - the installed program, started through PATH in another folder, finds the bundled model and the CUDA library
# shellcheck disable=SC2086 # cc: several words
set -eu
build=$1 source=$2 cc=$3 # cc: may be several words
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*"; exit 1; }
# quietly COMMAND...: its output only if it fails
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "$*"; }; }

# ---- DESTDIR: the files of a package -------------------------------------------------------------------------------

check_files() { # ROOT
    for file in bin/zimage include/zimage.h man/man1/zimage.1 bash-completion/completions/zimage \
        zsh/site-functions/_zimage fish/vendor_completions.d/zimage.fish libzimage.so libzimage.a \
        cmake/zimage/zimageConfig.cmake pkgconfig/zimage.pc pkgconfig/zimage-static.pc \
        zimage/models/emoji/model_index.json; do
        find "$1" -path "*/$file" -size +0 | grep -q . || fail "no $file installed"
    done
    # Nothing that is installed knows the folders that it was built from.
    if grep -rlF -e "$source/" -e "$build/" "$1"; then
        fail "the files listed above hold the path $source or $build"
    fi
}

# The library exports exactly what the header declares with ZIMAGE_API.
check_exports() { # LIBRARY
    nm -D --defined-only "$1" | awk '{print $3}' | sort >"$work/exported"
    sed -n 's/^ZIMAGE_API .*[ *]\(zimage_[a-z0-9_]*\)(.*/\1/p' "$source/include/zimage.h" | sort >"$work/declared"
    [ -s "$work/declared" ] || fail "no declarations found in the header"
    diff "$work/declared" "$work/exported" ||
        fail "exported symbols differ from the header's (< declared, > exported)"
    echo "exported symbols: $(wc -l <"$work/exported"), all public"
}

# The library never exits, aborts or prints. A build with NDEBUG has no assertion that could abort.
check_calls() { # LIBRARY
    if nm -D --undefined-only "$1" | awk '{print $2}' | sed 's/@.*//' |
        grep -xE 'exit|_exit|abort|printf|puts|putchar|vprintf|stdout|stderr|perror|__printf_chk|__vprintf_chk'; then
        fail "the library calls what is listed above"
    fi
    if ! grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=Debug$' "$build/CMakeCache.txt" &&
        nm -D --undefined-only "$1" | grep -q __assert_fail; then
        fail "the library aborts in assertions"
    fi
    echo "no exit, abort, assertion or printing in the library"
}

# The header's example is examples/minimal.c.
check_example() {
    awk '/^ \*   #include <stdio.h>/ { inside = 1 }
        inside && /^ \*$/ { print ""; next }
        inside && /^ \*   / { sub(/^ \*   /, ""); print }
        /^ \* Models and sessions/ { exit }' "$source/include/zimage.h" |
        sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' | diff - "$source/examples/minimal.c" ||
        fail "the header's example and examples/minimal.c differ"
}

DESTDIR="$work/package" quietly cmake --install "$build"
library=$(find "$work/package" -name 'libzimage.so')
[ -n "$library" ] || fail "no libzimage.so installed"
check_files "$work/package"
check_exports "$library"
check_calls "$library"
check_example

# ---- --prefix: what a user's own program needs ---------------------------------------------------------------------

quietly cmake --install "$build" --prefix "$work/first"
mv "$work/first" "$work/moved"
root=$work/moved
lib=$(dirname "$(find "$root" -name libzimage.a)")
example=$source/examples/minimal.c

run_example() { # PROGRAM
    rm -f "$work/out.png"
    LD_LIBRARY_PATH="$lib" "$1" "$source/tests/golden/tiny" "a red apple" "$work/out.png" >"$work/log" 2>&1 ||
        { cat "$work/log"; fail "$1 does not run"; }
    [ -s "$work/out.png" ] || fail "$1 made no image"
}
needs_shared() { readelf -d "$1" 2>/dev/null | grep -q 'NEEDED.*libzimage'; }
compile() { # OUTPUT FLAGS...
    output=$1
    shift
    quietly $cc -std=c11 -Wall -Wextra -Werror -o "$output" "$example" "$@"
    run_example "$output"
}

check_pkg_config() {
    PKG_CONFIG_PATH="$lib/pkgconfig"
    export PKG_CONFIG_PATH
    for module in zimage zimage-static; do
        flags=$(pkg-config --cflags --libs "$module")
        for path in $(echo "$flags" | tr ' ' '\n' | sed -n 's/^-[IL]\(.*\)/\1/p; s/^\(\/.*\.a\)$/\1/p'); do
            [ -e "$path" ] || fail "pkg-config $module names $path, which does not exist"
        done
        echo "$flags" | grep -qF "$root/" || fail "pkg-config $module does not name $root: $flags"
    done
    # shellcheck disable=SC2046
    compile "$work/shared" $(pkg-config --cflags --libs zimage)
    needs_shared "$work/shared" || fail "pkg-config zimage did not link the shared library"
    # shellcheck disable=SC2046
    compile "$work/static" $(pkg-config --cflags --libs zimage-static)
    ! needs_shared "$work/static" || fail "pkg-config zimage-static linked the shared library"
    # Where all libraries have static forms, as on Debian, a program can be one file that needs nothing.
    # shellcheck disable=SC2046
    if echo 'int main(void) { return 0; }' | $cc -static -xc -o "$work/probe" - \
        $(pkg-config --static --libs libpng zlib libjpeg libwebp libpcre2-8 libutf8proc jansson) 2>/dev/null; then
        # shellcheck disable=SC2046
        compile "$work/all_static" -static $(pkg-config --static --cflags --libs zimage) -Wl,--no-warnings
        ! readelf -d "$work/all_static" | grep -q NEEDED || fail "-static left shared libraries"
    fi
    echo "pkg-config: shared and static, after --prefix and a move"
}

# project FOLDER: a CMake project there whose remaining text comes from standard input
project() {
    mkdir -p "$1"
    { printf 'cmake_minimum_required(VERSION 3.22)\nproject(user C)\n'; cat; } >"$1/CMakeLists.txt"
}
configure() { # FOLDER ARGUMENTS...
    folder=$1
    shift
    CC="$cc" cmake -G Ninja -S "$folder" -B "$folder/build" "$@" >"$work/log" 2>&1
}

check_find_package() {
    project "$work/finds" <<END
find_package(zimage 0.2 REQUIRED COMPONENTS static)
foreach(kind zimage static)
    add_executable(with_\${kind} $example)
    target_link_libraries(with_\${kind} PRIVATE zimage::\${kind})
endforeach()
END
    configure "$work/finds" -DCMAKE_PREFIX_PATH="$root" || { cat "$work/log"; fail "find_package(zimage 0.2)"; }
    quietly cmake --build "$work/finds/build"
    run_example "$work/finds/build/with_zimage"
    run_example "$work/finds/build/with_static"
    needs_shared "$work/finds/build/with_zimage" || fail "zimage::zimage is not the shared library"
    ! needs_shared "$work/finds/build/with_static" || fail "zimage::static is not the static library"
    for version in 0.1 0.3 1.0 0.2.99; do
        echo "find_package(zimage $version REQUIRED)" | project "$work/finds_$version"
        ! configure "$work/finds_$version" -DCMAKE_PREFIX_PATH="$root" || fail "find_package took $version"
        grep -q 'version: 0.2' "$work/log" || { cat "$work/log"; fail "find_package(zimage $version): another reason"; }
    done
    echo "find_package: shared and static; 0.1, 0.3, 1.0 and 0.2.99 are refused"
}

check_add_subdirectory() {
    project "$work/adds" <<END
add_subdirectory($source library)
add_executable(zimage $example)
target_link_libraries(zimage PRIVATE zimage::static)
add_executable(example_minimal $example)
target_link_libraries(example_minimal PRIVATE zimage::zimage)
install(TARGETS zimage)
END
    configure "$work/adds" || { cat "$work/log"; fail "add_subdirectory"; }
    quietly cmake --build "$work/adds/build"
    quietly cmake --install "$work/adds/build" --prefix "$work/adds/installed"
    run_example "$work/adds/build/zimage"
    run_example "$work/adds/build/example_minimal"
    [ "$(find "$work/adds/installed" -type f)" = "$work/adds/installed/bin/zimage" ] ||
        fail "a project with add_subdirectory installs more than it asked for"
    grep -q '^CMAKE_BUILD_TYPE:[A-Z]*=$' "$work/adds/build/CMakeCache.txt" ||
        fail "add_subdirectory sets the build type of the project"
    echo "add_subdirectory: shared and static, beside targets of the same names"
}

check_program() {
    mkdir "$work/elsewhere"
    cd "$work/elsewhere"
    PATH="$root/bin:$PATH" HOME="$work/elsewhere" quietly zimage generate "a red apple" -W 32 -H 32 --steps 1 -o it.png
    [ -s it.png ] || fail "the installed program made no image"
    emulated=$build/tests/cuda_emulated/libzimage-cuda.so
    if [ -f "$emulated" ]; then
        cp "$emulated" "$lib/"
        PATH="$root/bin:$PATH" HOME="$work/elsewhere" zimage devices >"$work/log" 2>&1 || true
        grep -q '^cuda:0: emulated' "$work/log" ||
            { cat "$work/log"; fail "the installed program does not find libzimage-cuda.so in $lib"; }
    fi
    cd - >/dev/null
    echo "the installed program finds its model and the CUDA library"
}

# The service of systemd: known settings, and a program that can be started.
check_service() {
    unit=$root/lib/systemd/system/zimage.service
    [ "$(uname -s)" = Linux ] || return 0
    [ -s "$unit" ] || fail "no $unit installed"
    command -v systemd-analyze >/dev/null 2>&1 || { echo "skipped: the service (no systemd-analyze)"; return 0; }
    sed "s#^ExecStart=zimage #ExecStart=$root/bin/zimage #" "$unit" >"$work/zimage.service"
    found=$(systemd-analyze verify --man=no "$work/zimage.service" 2>&1) || fail "systemd-analyze: $found"
    [ -z "$found" ] || fail "systemd-analyze: $found"
    echo "the service of systemd: nothing to complain of"
}

check_pkg_config
check_find_package
check_service
check_program
check_add_subdirectory
