# shellcheck shell=sh disable=SC2034
# Sourced by run.sh of tests/serve, tests/queue and tests/hub: takes KIND PROGRAM BUILD from the arguments, and sets
# $kind, $program, $build, $here (the folder of run.sh) and $python. $subject: what the script tests.
# skip REASON: ends the script as a skipped test.
kind=$1 program=$2 build=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONDONTWRITEBYTECODE=1
skip() { echo "skipped: ${subject-} by $kind ($*)" && exit 77; }

python=$(command -v python3) || skip "no python3"
