#!/bin/bash
# Checks the format of the tracked files, comments and documents included: tools/format.sh [--fix]
#
# C, C++ and CUDA sources must be as clang-format leaves them (.clang-format). clang-format does not break comments, so
# lines longer than 120 characters are looked for here as well, in documents too; there tables and lines that one long
# word (a URL) makes too long may stay.
# --fix: clang-format writes its changes. Long comments remain to be broken by hand.
# Exit code: 0 all is right, 1 something is listed.
set -euo pipefail
CDPATH="" cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 # columns are characters, not bytes

# tests/abi/zimage-0.1.h is the header of version 0.1 as it was released.
mapfile -t sources < <(git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh' ':!tests/abi/zimage-0.1.h')
mapfile -t others < <(git ls-files '*.sh' '*.cmake' '*CMakeLists.txt' .ci/run 'src/serve/page/*')
mapfile -t documents < <(git ls-files '*.md')

status=0
if [ "${1-}" = --fix ]; then
    clang-format -i "${sources[@]}"
else
    clang-format --dry-run --Werror "${sources[@]}" || status=1
fi
# too_long NAME LINES: prints what is too long, and says so.
too_long() {
    [ -z "$2" ] || { printf '%s\n' "$2"; echo "$1: the lines above have more than 120 columns"; status=1; }
}
too_long sources "$(grep -nHE '^.{121}' "${sources[@]}" "${others[@]}" | cut -c1-160 || true)"
too_long documents "$(grep -nHE '^.{121}' "${documents[@]}" |
    grep -vE '^[^:]*:[0-9]+: *(\||[^ ]{100})' | cut -c1-160 || true)"
exit $status
