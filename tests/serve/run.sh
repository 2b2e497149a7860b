#!/bin/sh
# Tests the server: tests/serve/run.sh KIND PROGRAM BUILD [TEST... or SECONDS]
# http: with Python's standard library only; setup: what options set up, with openssl if it is there.
# openai: with OpenAI's package and the parser of Prometheus. pip installs what Python lacks into a virtual environment
# in the build folder.
# page: with Chromium, its driver and selenium (Debian: chromium, chromium-driver, python3-selenium).
# slow: with slowhttptest (Debian: slowhttptest).
# schema: what schemathesis makes of /openapi.json in so many seconds.
# mix: so many seconds of many clients at the same time, which cancel and go away.
# devices: with two emulated GPUs. overlap: with one.
# valgrind: under valgrind, each dialect and clients that go away.
# Exit code: 0 all passed, 1 a test failed, 77 skipped because Python, a package or the browser is missing.
set -eu
subject="the server"
# shellcheck source=tests/python.sh
. "$(dirname "$0")/../python.sh"
case $kind in
    openai) packages="openai==3.57.0 prometheus_client==0.26.0" ;;
    schema) packages="schemathesis==4.32.5" ;;
    *) packages="" ;;
esac
if [ -n "$packages" ]; then
    # shellcheck source=/dev/null
    . "$here/../venv.sh"
    virtual_environment "$build/$kind" "$packages"
fi
if [ "$kind" = page ]; then
    command -v chromium >/dev/null && command -v chromedriver >/dev/null || skip "no chromium, or no driver of it"
    # Debian's packages belong to Debian's Python, which may not be the first.
    for python in "$python" /usr/bin/python3; do
        ! "$python" -c "import selenium" 2>/dev/null || break
    done
    "$python" -c "import selenium" 2>/dev/null || skip "Python has no selenium"
fi
if [ "$kind" = slow ]; then
    command -v slowhttptest >/dev/null || skip "no slowhttptest"
fi
if [ "$kind" = valgrind ]; then
    command -v valgrind >/dev/null || skip "no valgrind"
fi
exec "$python" "$here/check_$kind.py" "$program" "$@"
