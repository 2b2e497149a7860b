#!/bin/sh
# shellcheck disable=SC2154 # source
# Where run.sh and test.sh build, and how. They source this file and set `source`, the folder of the sources.

# Whether the caller owns a folder and may write into it.
mine() {
    [ -w "$1" ] && [ -n "$(find "$1" -prune -user "$(id -u)" 2>/dev/null)" ]
}

# Whether a program is newer than all that it is made of.
is_current() {
    [ -x "$1" ] && [ -z "$(find "$source/CMakeLists.txt" "$source/cmake" "$source/src" "$source/include" -newer "$1" |
        head -n 1)" ]
}

# build_folder NAME: sets build to SOURCE/build/NAME. If that belongs to another user, or would lie in a folder of
# another user, it is a folder below the caller's cache instead. So no user leaves files in a tree of somebody else that
# the owner can't write or remove.
build_folder() {
    build=$source/build/$1
    for folder in "$build" "$source/build" "$source"; do
        [ -d "$folder" ] || continue
        if mine "$folder"; then return 0; else break; fi
    done
    build=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/zimage/build/$1-$(printf %s "$source" | cksum | cut -d' ' -f1)
    if ! mkdir -p "$build" 2>/dev/null || ! mine "$build"; then
        echo "zimage: $folder is not this user's to write, and $build can't be written either: set XDG_CACHE_HOME to" \
            "a folder of yours" >&2
        return 1
    fi
    echo "zimage: $folder is not this user's to write: builds in $build" >&2
}

# build_in_folder ARGUMENTS OF CMAKE: builds in the folder `build`. Prints one status line on a terminal, and the
# output only if something fails.
build_in_folder() {
    if [ -t 2 ]; then
        NINJA_STATUS="zimage: building [%f/%t] " cmake --build "$build" "$@" >&2
    else
        cmake --build "$build" "$@" >"$build/build.log" 2>&1 || { cat "$build/build.log" >&2; return 1; }
    fi
}

# configure_folder ARGUMENTS OF CMAKE
configure_folder() {
    mkdir -p "$build"
    cmake "$@" >"$build/configure.log" 2>&1 || { cat "$build/configure.log" >&2; return 1; }
}
