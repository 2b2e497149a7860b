#!/bin/sh
# Tests the ledger on a PostgreSQL server of its own, in a temporary folder and on a socket there:
#   tests/queue/run.sh ledger|heavy|service|service_heavy|bucket PROGRAM BUILD [TEST...]
# service: zimage serve --queue; ctest runs a part of it. bucket: results in a store.
# heavy: what takes minutes (a million jobs, thousands of killed workers' jobs); not a part of ctest.
# Exit code: 0 all passed, 1 a test failed, 77 skipped because something is missing.
set -eu
subject="the ledger's tests"
# shellcheck source=tests/python.sh
. "$(dirname "$0")/../python.sh"
for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    if [ -x "$folder/initdb" ]; then PATH=$folder:$PATH; fi
done
for tool in initdb pg_ctl psql; do
    command -v "$tool" >/dev/null 2>&1 || skip "no $tool; Debian's package is postgresql"
done
exec "$python" "$here/check_$kind.py" "$program" "$build/tests/stand_in" "$@"
