#!/bin/sh
# Prints what a log of ctest says about parity with the reference libraries: tools/parity.sh LOG [--table]
# Of each stage and backend it prints the case that comes nearest to its tolerance; with --table every case.
# The tests print "parity | BACKEND: STAGE: CASE | error | tolerance | ok" (tests/support.h).
set -eu
log=$1
cases=$(grep -c '^parity' "$log" || true)
if [ "$cases" != 0 ]; then
    echo
    echo "Parity with the reference libraries. An error is relative to the largest number of the reference, or, where"
    echo "it is an integer, a count of steps of 255."
fi
if [ "$cases" != 0 ] && [ "${2-}" = --table ]; then
    sed -n 's/^parity/ /p' "$log"
elif [ "$cases" != 0 ]; then
    printf '%-34s %-13s %6s %14s %10s  %s\n' stage backend cases "largest error" tolerance "its case"
    awk -F ' *[|] *' '/^parity/ {
        n = split($2, part, ": ")
        stage = n > 1 ? part[2] : $2
        key = stage "|" (n > 1 ? part[1] : "-")
        share = $4 > 0 ? $3 / $4 : ($3 > 0 ? 1e30 : 0)
        if (!(key in count) || share > worst[key]) {
            worst[key] = share
            line[key] = $3 "|" $4 "|" (n > 2 ? part[3] : "") ($5 ~ /^ok/ ? "" : "  FAIL")
        }
        count[key]++
    }
    END { for (key in count) print key "|" count[key] "|" line[key] }' "$log" | LC_ALL=C sort |
        awk -F '|' '{ printf "%-34s %-13s %6d %14s %10s  %s\n", $1, $2, $3, $4, $5, $6 }'
fi
grep -E 'strings, .*mismatch|exported symbols|^skipped' "$log" || true
[ "${2-}" != --table ] || grep '^tiers' "$log" || true
