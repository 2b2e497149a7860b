# Sourced by run.sh of tests/serve and tests/hub.
# virtual_environment FOLDER PACKAGES: makes a virtual environment of $python with these packages ("name==version ..."),
# unless it is there, and sets $python to its own. Calls `skip REASON` where that is not possible.
virtual_environment() {
    if ! [ -e "$1/$2" ]; then
        rm -rf "$1"
        "$python" -m venv "$1" >/dev/null 2>&1 || skip "python3 has no module venv"
        # shellcheck disable=SC2086 # several words
        "$1/bin/pip" install --quiet --disable-pip-version-check --timeout 10 --retries 1 $2 >"$1/log" 2>&1 ||
            skip "pip can't install $2: see $1/log"
        touch "$1/$2"
    fi
    python=$1/bin/python
}
