#!/bin/sh
# run.sh and test.sh with stubs instead of compiler, CMake and package manager: check_scripts.sh SOURCE
# - images and relative paths belong to the caller's folder, however the script is started
# - what the scripts print: nothing if nothing is to be done, a few lines if something is, and why it failed
# - a tree that was built by one user serves another, and neither leaves files in a tree of the other (tested as root)
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAIL: $*"; [ ! -f "$work/err" ] || sed 's/^/  /' "$work/out" "$work/err"; exit 1; }
chmod 755 "$work"

# ---- a tree, and a folder of all programs that the scripts may use --------------------------------------------------

tree="$work/a tree"
mkdir -p "$tree/src" "$tree/include" "$tree/cmake" "$work/bin" "$work/elsewhere"
cp "$source/run.sh" "$source/test.sh" "$tree/"
cp -R "$source/tools" "$tree/tools"
touch "$tree/CMakeLists.txt"
for name in sh find head tail cksum cut id mkdir rm cat grep sed mktemp dirname readlink env touch getconf sort awk wc \
    chmod ln mv cp; do
    ln -s "$(command -v "$name")" "$work/bin/$name"
done
stub() { cat >"$work/bin/$1"; chmod 755 "$work/bin/$1"; }
for name in cc c++ clang ninja initdb; do echo '#!/bin/sh' | stub $name; done
# A file $work/missing names a module that is missing.
stub pkg-config <<END
#!/bin/sh
! grep -qx -e "\$2" "$work/missing" 2>/dev/null
END
stub cmake <<END
#!/bin/sh
echo "cmake \$*" >>"$work/calls"
echo "a line of CMake"
if [ "\$1" = --build ]; then
    [ ! -f "$work/broken" ] || { echo "error: it does not compile"; exit 1; }
    [ -f "\$2/zimage" ] && [ -z "\$(find "$work"/*/src -newer "\$2/zimage")" ] && exit 0
    printf '#!/bin/sh\n[ "\$1" != help ] || { [ "\$2" = serve ]; exit; }\necho "in \$PWD: \$*"\n' >"\$2/zimage"
    chmod 755 "\$2/zimage"
else
    while [ "\$1" != -B ]; do shift; done
    touch "\$2/build.ninja"
fi
END
stub ctest <<END
#!/bin/sh
echo "ctest \$*"
mkdir -p "\$2/Testing/Temporary"
printf 'parity | cpu: VAE decoder: %s | %s | 2e-05 | ok\n' a 1e-06 b 3e-06 >"\$2/Testing/Temporary/LastTest.log"
END
stub apt-get <<END
#!/bin/sh
echo "apt-get \$*" >>"$work/calls"
seq=0
while [ \$seq -lt 200 ]; do echo "Get:\$seq a package"; seq=\$((seq + 1)); done
[ "\$1" = update ] && exit 0
[ ! -f "$work/offline" ] || { echo "E: Temporary failure resolving 'mirror'"; exit 100; }
rm -f "$work/missing"
END
PATH="$work/bin"
HOME="$work/home" TMPDIR="$work"
unset CC CXX XDG_CACHE_HOME
export PATH HOME TMPDIR
mkdir "$HOME"

# try COMMAND...: its stdout, stderr and exit code in $work/out, $work/err, rc
try() { rc=0; "$@" >"$work/out" 2>"$work/err" </dev/null || rc=$?; }
expect() { # WHAT STDOUT LINES_OF_STDERR
    [ "$rc" = 0 ] || fail "$1: exit code $rc"
    [ "$(cat "$work/out")" = "$2" ] || fail "$1: expected stdout: $2"
    [ "$(wc -l <"$work/err")" -le "$3" ] || fail "$1: more than $3 lines on stderr"
}
says() { grep -q -e "$2" "$work/err" || fail "$1: expected on stderr: $2"; }

# ---- run.sh ---------------------------------------------------------------------------------------------------------

check_folders() {
    cd "$work/elsewhere"
    try "../a tree/run.sh" "a cat" -m model --batch b.jsonl
    expect "the first run" "in $work/elsewhere: generate a cat -m model --batch b.jsonl" 3
    says "the first run" "builds .*half a minute"
    says "the first run" "$tree/build/run/zimage is ready"
    try "../a tree/run.sh"
    expect "without arguments" "in $work/elsewhere: generate a red apple" 0
    try "../a tree/run.sh" serve --port 0
    expect "another command" "in $work/elsewhere: serve --port 0" 0
    try "../a tree/run.sh" --steps 4 serve
    expect "an option first" "in $work/elsewhere: generate --steps 4 serve" 0
    ln -s "../a tree/run.sh" link
    try ./link x
    expect "through a link" "in $work/elsewhere: generate x" 0
    cd "$work"
    mkdir -p "elsewhere/a tree"
    CDPATH="$work/elsewhere"
    export CDPATH
    try sh "a tree/run.sh" x
    expect "with CDPATH" "in $work: generate x" 0
    unset CDPATH
    touch -d 'next day' "$tree/src/x.c" 2>/dev/null || touch -A 235959 "$tree/src/x.c"
    try "$tree/run.sh" x
    says "after a change" "is ready"
    rm "$tree/src/x.c"
    touch "$tree/build/run/zimage"
}

check_failures() {
    rm "$tree/build/run/zimage"
    touch "$work/broken"
    try "$tree/run.sh" x
    [ "$rc" != 0 ] || fail "a failed build: exit code 0"
    says "a failed build" "error: it does not compile"
    rm "$work/broken"

    echo libpng >"$work/missing"
    touch "$work/offline"
    if [ "$(id -u)" = 0 ]; then
        try "$tree/run.sh" x
        [ "$rc" != 0 ] || fail "no network: exit code 0"
        says "no network" "missing: libpng"
        says "no network" "E: Temporary failure resolving"
        says "no network" "no network"
        says "no network" "apt-get install .* libpng-dev"
        [ "$(wc -l <"$work/err")" -le 12 ] || fail "no network: too many lines"
        rm "$work/offline"
        try "$tree/run.sh" x
        expect "with a missing package" "in $work: generate x" 6
        says "with a missing package" "installs libpng-dev (about a minute)"
        grep -q '^apt-get install .*libpng-dev$' "$work/calls" || fail "more was installed than was missing"
    else
        try "$tree/run.sh" x
        [ "$rc" != 0 ] || fail "not root: exit code 0"
        says "not root" "Only root may install"
        says "not root" "apt-get update && apt-get install .* libpng-dev"
    fi
    rm -f "$work/missing" "$work/offline"
    try env CC=nosuchcompiler "$tree/run.sh" x
    [ "$rc" != 0 ] || fail "CC=nosuchcompiler: exit code 0"
    says "CC=nosuchcompiler" "nosuchcompiler, which CC or CXX names"
}

# Where only Homebrew is, as on macOS: its names, and the compiler, which it does not have.
check_homebrew() {
    mv "$work/bin/apt-get" "$work/apt-get"
    stub brew <<END
#!/bin/sh
echo "brew \$*" >>"$work/calls"
rm -f "$work/missing"
END
    echo libjpeg >"$work/missing"
    try "$tree/run.sh" x
    expect "with Homebrew" "in $work: generate x" 6
    says "with Homebrew" "brew installs jpeg-turbo (about a minute)"
    grep -qx 'brew install jpeg-turbo' "$work/calls" || fail "Homebrew was not asked for jpeg-turbo alone"
    rm "$work/calls"
    printf '#!/bin/sh\nexit 1\n' | stub cc # as without Apple's command line tools
    echo libpng >"$work/missing"
    try "$tree/run.sh" x
    [ "$rc" != 0 ] || fail "without the system's compiler: exit code 0"
    says "without the system's compiler" "missing: headers libpng.*xcode-select --install"
    ! grep -q '^brew install' "$work/calls" 2>/dev/null || fail "Homebrew was asked before there is a compiler"
    rm "$work/bin/brew" "$work/missing"
    echo '#!/bin/sh' | stub cc
    mv "$work/apt-get" "$work/bin/apt-get"
}

check_another_compiler_and_a_move() {
    try "$tree/run.sh" x
    try env CC=clang "$tree/run.sh" x
    expect "another compiler" "in $work: generate x" 3
    says "another compiler" "is ready"
    try "$tree/run.sh" x
    expect "no compiler named" "in $work: generate x" 0
    mv "$tree" "$work/moved"
    tree="$work/moved"
    try env CC=clang "$tree/run.sh" x
    expect "a moved tree" "in $work: generate x" 3
    says "a moved tree" "$work/moved/build/run/zimage is ready"
}

# as USER COMMAND...: with a home of its own
as() {
    user=$1
    shift
    mkdir -p "$work/home$user"
    "$chown" "$user" "$work/home$user"
    HOME="$work/home$user" try "$setpriv" --reuid "$user" --clear-groups "$@"
}
owned_by() { find "$tree" -user "$1" | head -n 1; }

# Between a tree of user $1 and user $2
check_other_user() {
    rm -rf "$tree/build"
    "$chown" -R "$1" "$tree"
    as "$2" "$tree/run.sh" x
    expect "user $2, before user $1 has built" "in $work: generate x" 4
    says "user $2, before user $1 has built" "not this user's to write: builds in $work/home$2/.cache/zimage/build/run-"
    as "$1" "$tree/run.sh" x
    as "$2" "$tree/run.sh" x
    expect "user $2, after user $1 has built" "in $work: generate x" 0
    "$setpriv" --reuid "$1" --clear-groups touch -d 'next day' "$tree/src/y.c"
    as "$2" "$tree/run.sh" x
    expect "user $2, after a change" "in $work: generate x" 4
    as "$2" "$tree/test.sh" --quick
    [ "$rc" = 0 ] || fail "test.sh of user $2: exit code $rc"
    [ -z "$(owned_by "$2")" ] || fail "user $2 left $(owned_by "$2") in a tree of user $1"
    rm "$tree/src/y.c"
}

# ---- test.sh --------------------------------------------------------------------------------------------------------

check_test() {
    cd "$work/elsewhere"
    rm -f "$work/calls"
    try "$tree/test.sh" -R pool
    [ "$rc" = 0 ] || fail "test.sh: exit code $rc"
    says "test.sh" "minutes on two cores"
    grep -q 'ctest .*-R pool$' "$work/out" || fail "test.sh does not pass options to ctest"
    grep -Eq '^VAE decoder +cpu +2 +3e-06 +2e-05 +b$' "$work/out" || fail "no worst case of the stage"
    [ "$(wc -l <"$work/out")" -le 6 ] || fail "the summary lists every case"
    try "$tree/test.sh" --quick --table
    grep -q 'ctest .*-L quick$' "$work/out" || fail "--quick runs other tests"
    grep -q -e '--target quick_tests' "$work/calls" || fail "--quick builds everything"
    grep -q 'VAE decoder: a' "$work/out" || fail "--table does not list every case"
    cd "$work"
}

other_user=65534
setpriv=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v setpriv || true)
chown=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v chown)
check_folders
check_failures
check_homebrew
check_another_compiler_and_a_move
check_test
if [ "$(id -u)" = 0 ] && [ -n "$setpriv" ]; then
    chmod 777 "$work" "$work/calls" # the stubs write there
    check_other_user 0 $other_user
    check_other_user $other_user 0
    echo "run.sh and test.sh: folders, failures, another user"
else
    echo "run.sh and test.sh: folders, failures"
fi
