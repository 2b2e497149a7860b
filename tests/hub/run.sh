#!/bin/sh
# Tests zimage pull against a hub on loopback: tests/hub/run.sh pull|cache|heavy PROGRAM BUILD [TEST...]
# cache: with Hugging Face's own package, which pip installs into a virtual environment in the build folder.
# heavy: what takes minutes or gigabytes; not a part of ctest.
# Exit code: 0 all passed, 1 a test failed, 77 skipped because something is missing.
set -eu
subject="downloads"
# shellcheck source=tests/python.sh
. "$(dirname "$0")/../python.sh"
# shellcheck source=/dev/null
. "$here/../venv.sh"
[ "$kind" = pull ] || virtual_environment "$build/huggingface" "huggingface_hub==2.4.0"
exec "$python" "$here/check_$kind.py" "$program" "$@"
