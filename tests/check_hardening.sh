#!/bin/sh
# check_hardening.sh FILE...: are programs and libraries built with the flags of cmake/Hardening.cmake?
set -eu
command -v readelf >/dev/null 2>&1 || exit 77
failed=0
for file in "$@"; do
    has() {
        readelf "$1" --wide "$file" | grep -Eq "$2" || { echo "$file: $3" >&2; failed=1; }
    }
    has --file-header 'Type: *DYN' "its address is fixed (PIE)"
    has --program-headers 'GNU_RELRO' "its tables of addresses stay writable (relro)"
    has --dynamic 'BIND_NOW|NOW' "its functions are bound late (now)"
    has --symbols '__stack_chk_fail' "no stack protector"
    has --symbols '__[a-z]+_chk' "no checks of buffers (_FORTIFY_SOURCE)"
done
exit $failed
