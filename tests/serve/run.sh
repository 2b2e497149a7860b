#!/bin/sh
# Tests the server: tests/serve/run.sh http|setup|openai|page PROGRAM BUILD [TEST...]
# slow: with slowhttptest (Debian: slowhttptest).
# or lets many clients use it at the same time: tests/serve/run.sh mix PROGRAM BUILD SECONDS
# openai: with OpenAI's package and the parser of Prometheus, which pip installs into a virtual environment in the build
# folder.
# setup: what options set up; with openssl, if it is there. http, setup: with the standard library only.
# page: with Chromium, its driver and selenium (Debian: chromium, chromium-driver, python3-selenium).
# Exit code: 0 all passed, 1 a test failed, 77 skipped because Python, a package or the browser is missing.
set -eu
kind=$1 program=$2 environment=$3/openai
shift 3
here=$(cd "$(dirname "$0")" && pwd)
packages="openai==3.57.0 prometheus_client==0.26.0"
export PYTHONDONTWRITEBYTECODE=1
skip() { echo "skipped: the server by $kind ($*)" && exit 77; }

python=$(command -v python3) || skip "no python3"
if [ "$kind" = openai ]; then
    if ! [ -e "$environment/$packages" ]; then
        rm -rf "$environment"
        "$python" -m venv "$environment" >/dev/null 2>&1 || skip "python3 has no module venv"
        # shellcheck disable=SC2086 # several words
        "$environment/bin/pip" install --quiet --disable-pip-version-check --timeout 10 --retries 1 $packages \
            >"$environment/log" 2>&1 || skip "pip can't install $packages: see $environment/log"
        touch "$environment/$packages"
    fi
    python=$environment/bin/python
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
exec "$python" "$here/check_$kind.py" "$program" "$@"
