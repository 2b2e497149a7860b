#!/bin/sh
# Installs the packages that building and testing zimage needs, as far as they are missing. run.sh and test.sh source
# this file:
#   install_dependencies build        compiler, CMake, Ninja and the libraries
#   install_dependencies build test   also cmocka, a C++ compiler and PostgreSQL
# Everything is printed to stderr. CC and CXX name other compilers than cc and c++, as for CMake.

# What is needed, and its package for apt-get, dnf and brew; "-": the system has it.
needs() { # build [test]
    cat <<'END'
cc          gcc               gcc                  -
headers     libc6-dev         glibc-devel          -
cmake       cmake             cmake                cmake
ninja       ninja-build       ninja-build          ninja
pkg-config  pkg-config        pkgconf-pkg-config   pkgconf
libpng      libpng-dev        libpng-devel         libpng
zlib        zlib1g-dev        zlib-devel           zlib
libjpeg     libjpeg-dev       libjpeg-turbo-devel  jpeg-turbo
libwebp     libwebp-dev       libwebp-devel        webp
libpcre2-8  libpcre2-dev      pcre2-devel          pcre2
libutf8proc libutf8proc-dev   utf8proc-devel       utf8proc
jansson     libjansson-dev    jansson-devel        jansson
libmicrohttpd libmicrohttpd-dev libmicrohttpd-devel libmicrohttpd
gnutls      libgnutls28-dev   gnutls-devel         gnutls
libcurl     libcurl4-openssl-dev libcurl-devel     curl
libpq       libpq-dev         libpq-devel          libpq
END
    case " $* " in *" test "*)
        cat <<'END'
c++         g++               gcc-c++              -
cmocka      libcmocka-dev     libcmocka-devel      cmocka
postgresql  postgresql        postgresql-server    postgresql@15
END
        ;;
    esac
}

# Debian keeps PostgreSQL's own programs out of PATH.
has_initdb() {
    for program in $(command -v initdb) /usr/lib/postgresql/*/bin/initdb; do
        [ ! -x "$program" ] || return 0
    done
    return 1
}

has() { # NEED
    c=${CC:-cc} cxx=${CXX:-c++} # may be several words
    # shellcheck disable=SC2086
    case $1 in
        cc) command -v "${c%% *}" >/dev/null 2>&1 ;;
        c++) command -v "${cxx%% *}" >/dev/null 2>&1 ;;
        headers) echo '#include <stdio.h>' | $c -E - >/dev/null 2>&1 ;;
        cmake | ninja | pkg-config) command -v "$1" >/dev/null 2>&1 ;;
        postgresql) has_initdb ;;
        *) pkg-config --exists "$1" 2>/dev/null ;;
    esac
}

# Sets manager (a command), refresh (a command) and column (of needs); 1: there is no manager that this file knows.
find_manager() {
    if command -v apt-get >/dev/null 2>&1; then
        manager="apt-get install -y --no-install-recommends" refresh="apt-get update" column=2
    elif command -v dnf >/dev/null 2>&1; then
        manager="dnf install -y" refresh=true column=3
    elif command -v brew >/dev/null 2>&1; then
        manager="brew install" refresh=true column=4
    else
        return 1
    fi
}

# Says why the packages could not be installed: the manager's own lines on errors, else its last lines.
explain_failure() { # LOG COMMAND
    echo "zimage: the packages could not be installed. ${2%% *} reported:"
    { grep -E '^(E:|W:|Err:|[Ee]rror|sudo:)' "$1" || tail -n 6 "$1"; } | tail -n 6 | sed 's/^/    /'
    if grep -qiE 'resolv|unreachable|timed? ?out|could not connect|failed to fetch|unable to locate' "$1"; then
        echo "  Perhaps there is no network, or the package sources lack them."
    fi
    echo "  The whole report is in $1. When the cause is mended, run this again, or install them yourself:"
    echo "    $2"
}

install_dependencies() {
    missing="" packages="" system=""
    for name in "${CC:-}" "${CXX:-}"; do
        [ -z "$name" ] || command -v "${name%% *}" >/dev/null 2>&1 ||
            { echo "zimage: the compiler ${name%% *}, which CC or CXX names, is not installed" >&2; return 1; }
    done
    find_manager || column=2
    while read -r need apt dnf brew; do
        has "$need" && continue
        missing="$missing $need"
        case $column in 2) package=$apt ;; 3) package=$dnf ;; *) package=$brew ;; esac
        if [ "$package" = - ]; then system="$system $need"; else packages="$packages $package"; fi
    done <<END
$(needs "$@")
END
    [ -n "$missing" ] || return 0
    if [ -z "${manager-}" ]; then
        echo "zimage: missing:$missing. There is no apt-get, dnf or brew here. Debian's names are:$packages" >&2
        return 1
    elif [ -n "$system" ]; then
        echo "zimage: missing:$missing. Install the system's compiler first (macOS: xcode-select --install)" >&2
        return 1
    fi

    sudo=""
    if [ "$(id -u)" != 0 ] && [ "$column" != 4 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "zimage: missing:$missing. Only root may install them, and sudo is not here. As root, run:" >&2
            [ "$refresh" = true ] || printf '    %s && ' "$refresh" >&2
            echo "$manager$packages" >&2
            return 1
        }
        sudo=sudo
    fi
    echo "zimage: missing:$missing" >&2
    echo "zimage: ${sudo:+$sudo }${manager%% *} installs$packages (about a minute) ..." >&2
    log=$(mktemp "${TMPDIR:-/tmp}/zimage-packages.XXXXXX")
    # A package source that can't be read does not matter if the others have the packages.
    # shellcheck disable=SC2086 # several words
    { $sudo $refresh; $sudo env DEBIAN_FRONTEND=noninteractive $manager $packages; } >"$log" 2>&1 </dev/null ||
        { explain_failure "$log" "$manager$packages" >&2; return 1; }
    rm -f "$log"
}
