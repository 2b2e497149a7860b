#!/bin/sh
# Compiles and links zimage for macOS, on any machine that runs zig: tools/macos-check.sh [arm64 | x86_64]
# Nothing that it makes is run. It checks:
# - every C file of the library, the program, the examples, the benchmarks and the tests compiles without a warning
# - they link with libSystem and with what the headers of libpng, zlib, libjpeg, libwebp, PCRE2, utf8proc, jansson,
#   libmicrohttpd, gnutls, libcurl, libpq and cmocka declare: any other undefined symbol is an error of the linker,
#   which names it
# - on arm64 src/mlx/*.cc compile and link with MLX of macOS
# CMake's own lists say which files these are (cmake/macos.cmake). The headers are this system's.
# build/macos keeps all that is made and fetched: half a GB. zig is the package `ziglang` of PyPI, which is installed
# there; ZIG names another zig. MLX is the package `mlx-metal`; ZIMAGE_MLX_FOLDER names another folder of its files.
# Exit code: 0 all is right, 1 something is wrong, 77 skipped because something can't be had.
set -eu
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cpu=${1:-arm64} ziglang=0.17.1 mlx_metal=$(sed -n 's/^version=//p' "$source/tools/mlx.sh")
case $cpu in
    arm64) target=aarch64-macos.14.0 ;;
    x86_64) target=x86_64-macos.14.0 ;;
    *) echo "macos-check.sh: $cpu, expected arm64 or x86_64" >&2; exit 2 ;;
esac
work=$source/build/macos
tools=$work/$cpu/tools root=$work/$cpu/root build=$work/$cpu/build
mkdir -p "$tools"
skip() { echo "skipped: macOS ($1)"; exit 77; }

# ---- zig as compiler ------------------------------------------------------------------------------------------------

find_zig() {
    [ -z "${ZIG:-}" ] || return 0
    [ -x "$work/python/bin/python" ] || python3 -m venv "$work/python" >"$work/log" 2>&1 || skip "no python3 with venv"
    python=$work/python/bin/python
    ZIG=$("$python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__) + "/zig")' 2>/dev/null) || {
        "$python" -m pip install -q --only-binary=:all: "ziglang==$ziglang" >"$work/log" 2>&1 ||
            skip "pip can't install ziglang $ziglang: $(tail -n 1 "$work/log")"
        ZIG=$("$python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__) + "/zig")')
    }
}

# zig takes -mcpu with names of its own where Apple's clang takes -march, and makes no bundles.
write_tools() {
    for name in cc c++ ar; do
        cat >"$tools/$name" <<END
#!/bin/sh
for a; do
    shift
    case \$a in
        -march=armv8.2-a+*) a=-mcpu=generic+v8_2a+\${a#*+} ;;
        -bundle) a=-dynamiclib ;;
    esac
    set -- "\$@" "\$a"
done
export ZIG_GLOBAL_CACHE_DIR="$work/cache" ZIG_LOCAL_CACHE_DIR="$work/cache"
exec "$ZIG" $name $([ $name = ar ] || echo "-target $target") "\$@"
END
        chmod 755 "$tools/$name"
    done
}

# ---- the libraries: headers, and stubs that have the functions which the headers declare ----------------------------

# library MODULE NAME FILES HEADERS [FLAGS]: of pkg-config's MODULE, for -lNAME. FILES is a pattern of the library's own
# header files. HEADERS are those that zimage includes.
library() {
    includes="#include <stdio.h>
$(for header in $4; do echo "#include <$header>"; done)"
    # shellcheck disable=SC2046 # several words
    files=$(echo "$includes" | cc -M -xc ${5:+"$5"} $(pkg-config --cflags "$1") - 2>"$work/log" | tr ' ' '\n' |
        grep -E "/($3)\$") || skip "no headers of $1: $(head -n 1 "$work/log")"
    for file in $files; do
        folder=$root/include$(expr "$file" : '.*\(/\(webp\|gnutls\|curl\)\)/' || true)
        mkdir -p "$folder"
        [ "$1" = zlib ] || cp -p "$file" "$folder/" # zig has macOS's zlib.h
    done
    # What precedes a parenthesis in the library's own headers, "name(" or "(name)(", and the variables of cmocka.
    echo "$includes" | "$tools/cc" -E -xc ${5:+"$5"} -I"$root/include" - |
        awk -v own="/($3)\"" '/^# [0-9]/ { inside = $0 ~ own; next } inside' |
        sed 's/( *\([A-Za-z_][A-Za-z0-9_]*\)) *(/ \1(/g' |
        grep -oE '[A-Za-z_][A-Za-z0-9_]* *\(|extern .*[A-Za-z0-9_]+;' |
        sed 's/.*[^A-Za-z0-9_]\([A-Za-z0-9_]*\);/\1/; s/ *($//; s/^/_/' | sort -u >"$work/symbols"
    [ "$(wc -l <"$work/symbols")" -ge 5 ] || { echo "macOS: no functions found in the headers of $1"; exit 1; }
    cat >"$root/lib/lib$2.tbd" <<END
--- !tapi-tbd
tbd-version: 4
targets: [ $cpu-macos ]
install-name: '/opt/homebrew/lib/lib$2.dylib'
exports:
  - targets: [ $cpu-macos ]
    symbols: [ $(paste -sd, "$work/symbols") ]
...
END
    cat >"$root/lib/pkgconfig/$1.pc" <<END
Name: $1
Description: a stub of $1
Version: $(pkg-config --modversion "$1")
Cflags: -I$root/include
Libs: -L$root/lib -l$2
END
}

write_libraries() {
    rm -rf "$root"
    mkdir -p "$root/include" "$root/lib/pkgconfig"
    library libpng png16 'png[a-z]*\.h' png.h
    library zlib z 'zlib\.h' zlib.h
    library libjpeg jpeg 'j(peglib|config|morecfg|error)\.h' 'jpeglib.h jerror.h'
    library libwebp webp 'webp/[a-z]*\.h' 'webp/decode.h webp/encode.h'
    library libpcre2-8 pcre2-8 'pcre2\.h' pcre2.h -DPCRE2_CODE_UNIT_WIDTH=8
    library libutf8proc utf8proc 'utf8proc\.h' utf8proc.h
    library jansson jansson 'jansson[a-z_]*\.h' jansson.h
    library libmicrohttpd microhttpd 'microhttpd\.h' microhttpd.h
    library gnutls gnutls 'gnutls/[a-z0-9]*\.h' 'gnutls/gnutls.h gnutls/abstract.h gnutls/crypto.h'
    library libcurl curl 'curl/[a-z]*\.h' curl/curl.h
    library libpq pq '(libpq-fe|postgres_ext|pg_config_ext)\.h' libpq-fe.h
    library cmocka cmocka 'cmocka\.h' 'stdarg.h stddef.h stdint.h setjmp.h cmocka.h'
}

# ---- building -------------------------------------------------------------------------------------------------------

build_all() {
    export ZIMAGE_MACOS_CPU="$cpu" ZIMAGE_MACOS_TOOLS="$tools" ZIMAGE_MACOS_ROOT="$root"
    export PKG_CONFIG_LIBDIR="$root/lib/pkgconfig" PKG_CONFIG_PATH=''
    cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-Werror \
        -DCMAKE_C_FLAGS_RELEASE="-O1 -DNDEBUG" -DCMAKE_TOOLCHAIN_FILE="$source/cmake/macos.cmake" \
        >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    cmake --build "$build" --target all bench_ops bench_guidance velocity -- -k 0 >"$work/log" 2>&1 ||
        { grep -vE '^\[[0-9]+/' "$work/log"; exit 1; }
    echo "macOS $cpu: $(find "$build" -name '*.o' | wc -l | tr -d ' ') C files compiled, zimage and" \
        "$(find "$build/tests" -name 'test_*' -type f -perm -u+x | wc -l | tr -d ' ') tests linked; nothing was run"
}

# ---- the MLX table --------------------------------------------------------------------------------------------------

find_mlx() {
    mlx=${ZIMAGE_MLX_FOLDER:-$work/mlx/mlx}
    [ ! -f "$mlx/lib/libmlx.dylib" ] || return 0
    [ -n "${python:-}" ] || python=python3
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
        --platform macosx_14_0_arm64 -d "$work" "mlx-metal==$mlx_metal" >"$work/log" 2>&1 ||
        skip "pip can't fetch mlx-metal $mlx_metal: $(tail -n 1 "$work/log")"
    "$python" -m zipfile -e "$work/mlx_metal-$mlx_metal"-*.whl "$work/mlx"
    rm -f "$work/mlx_metal-$mlx_metal"-*.whl
    [ -f "$mlx/lib/libmlx.dylib" ] || { echo "macOS: mlx-metal has no mlx/lib/libmlx.dylib"; exit 1; }
}

# Links with libzimage.a, for what the table shares with the library.
build_mlx() {
    [ "$cpu" = arm64 ] || return 0 # MLX is for Apple's own chips
    set -- "$source"/src/mlx/*.cc
    [ -e "$1" ] || { echo "macOS: there are no files src/mlx/*.cc"; return 0; }
    find_mlx
    mkdir -p "$work/objects"
    rm -f "$work"/objects/*
    cat >"$tools/compile_mlx" <<END
#!/bin/sh
exec "$tools/c++" -std=c++20 -O1 -Wall -Wextra -Werror -Wno-unused-parameter -fvisibility=hidden -ffp-contract=off \\
    -D_GNU_SOURCE -I"$source/include" -I"$source/src" -isystem "$mlx/include" -isystem "$mlx/include/metal_cpp" \\
    -c "\$1" -o "$work/objects/\$(basename "\$1").o"
END
    chmod 755 "$tools/compile_mlx"
    printf '%s\n' "$@" | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I '{}' "$tools/compile_mlx" '{}'
    "$tools/c++" -dynamiclib -o "$work/libzimage-mlx.dylib" "$work"/objects/*.o "$build/libzimage.a" \
        "$mlx/lib/libmlx.dylib" "$root"/lib/*.tbd
    echo "macOS $cpu: src/mlx compiled ($#) and linked with MLX; nothing was run"
}

find_zig
write_tools
write_libraries
build_all
build_mlx
