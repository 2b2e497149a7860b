#!/bin/sh
# Installs the packages that building and testing zimage needs, if any is missing. run.sh and test.sh source this file:
#   install_dependencies build        compiler, CMake, Ninja and the libraries
#   install_dependencies build test   also cmocka
install_dependencies() {
    apt="gcc libc6-dev cmake ninja-build pkg-config libpng-dev libpcre2-dev libutf8proc-dev libjansson-dev"
    dnf="gcc cmake ninja-build pkgconf-pkg-config libpng-devel pcre2-devel utf8proc-devel jansson-devel"
    brew="cmake ninja pkg-config libpng pcre2 utf8proc jansson"
    modules="libpng libpcre2-8 libutf8proc jansson"
    case " $* " in *" test "*)
        apt="$apt libcmocka-dev g++" dnf="$dnf libcmocka-devel gcc-c++" brew="$brew cmocka" modules="$modules cmocka" ;;
    esac

    missing=""
    for program in cmake ninja pkg-config; do
        command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
    done
    command -v cc >/dev/null 2>&1 || missing="$missing cc"
    if command -v pkg-config >/dev/null 2>&1; then
        for module in $modules; do
            pkg-config --exists "$module" 2>/dev/null || missing="$missing $module"
        done
    fi
    [ -z "$missing" ] && return 0

    sudo=""
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null 2>&1; then sudo=sudo; else sudo=none; fi
    fi
    if command -v apt-get >/dev/null 2>&1; then
        manager="apt-get install -y --no-install-recommends" packages="$apt" refresh="apt-get update"
    elif command -v dnf >/dev/null 2>&1; then
        manager="dnf install -y" packages="$dnf" refresh=true
    elif command -v brew >/dev/null 2>&1; then
        manager="brew install" packages="$brew" refresh=true sudo=""
    else
        echo "missing:$missing. No apt-get, dnf or brew here: install these (Debian's names): $apt" >&2
        return 1
    fi
    if [ "$sudo" = none ]; then
        echo "missing:$missing. As root, run: $manager $packages" >&2
        return 1
    fi
    echo "missing:$missing. Installing: $packages" >&2
    # shellcheck disable=SC2086
    { $sudo $refresh && DEBIAN_FRONTEND=noninteractive $sudo $manager $packages; } >&2 ||
        { echo "the installation failed; as root, run: $manager $packages" >&2; return 1; }
}
