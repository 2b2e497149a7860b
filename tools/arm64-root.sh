#!/bin/sh
# Fetches the arm64 libraries that zimage and its tests need when they are cross-built: tools/arm64-root.sh ROOT
# It downloads Debian's packages and unpacks them in ROOT. It installs nothing and needs no root user.
set -eu
packages="libcmocka0 libcmocka-dev libpng16-16 libpng-dev zlib1g zlib1g-dev libjpeg62-turbo libjpeg62-turbo-dev
    libwebp7 libwebp-dev libpcre2-8-0 libpcre2-dev libutf8proc2 libutf8proc-dev libjansson4 libjansson-dev
    libmicrohttpd12 libmicrohttpd-dev libgnutls30 libgnutls28-dev libnettle8 libhogweed6 nettle-dev libgmp10 libp11-kit0
    libp11-kit-dev libtasn1-6 libtasn1-6-dev libidn2-0 libidn2-dev libunistring2 libffi8"

mkdir -p "$1"
root=$(cd "$1" && pwd)
[ "$(cat "$root/complete" 2>/dev/null)" = "$packages" ] && exit 0
rm -f "$root/complete" # of an earlier list
mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$root/apt/lists" \
        -o Dir::Cache="$root/apt/cache" -o APT::Sandbox::User= "$@"
}
cd "$root/apt"
apt update
# shellcheck disable=SC2086
apt download $packages
for package in *.deb; do
    dpkg-deb -x "$package" "$root"
done
cd "$root"
cp -R lib/. usr/lib/
rm -r apt lib
echo "$packages" >complete
