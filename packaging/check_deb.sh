#!/bin/bash
# Installs the Debian packages on a fresh Debian 12, and tries them: packaging/check_deb.sh [ROOT]
# ROOT is a root made by: debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl bookworm ROOT
# Without it one is made in build/debian12. It is copied first and stays as it is. Needs root, debootstrap, and
# systemd-nspawn (package systemd-container). It checks that
# - the packages install with what apt-get fetches for them, and an ordinary user makes an image with the bundled model
# - the unit starts the server, which makes an image; the unit stops with exit code 0 within its time
# - purging the packages removes every file that came with them or was made by the service
# - with libzimage-dev the header's example builds
set -euo pipefail
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
fresh=${1:-$source/build/debian12}
fail() { echo "FAIL: $*" >&2; exit 1; }
for program in debootstrap systemd-nspawn; do
    command -v $program >/dev/null || { echo "skipped: check_deb.sh (no $program)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: check_deb.sh (needs root)"; exit 77; }
[ -d "$fresh/usr" ] || debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl bookworm "$fresh"

packages=$("$source/packaging/deb.sh")
root=$(mktemp -d)
lists=$(mktemp -d)
trap 'rm -rf "$root" "$lists"' EXIT
cp -a "$fresh/." "$root"
# shellcheck disable=SC2086 # several names
cp $packages "$root/root"
# systemd-nspawn says that it can't remove a folder where /run is no tmpfs.
inside() {
    systemd-nspawn --quiet --register=no --keep-unit --pipe -D "$root" --resolv-conf=bind-host "$@" \
        2> >(grep -vE 'Attempted to remove|^debconf: delaying' >&2)
}
# All files but those of apt and dpkg, systemd's own, and what this script leaves in /root.
files() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./tmp -o -path ./root -o -path ./var/log \
    -o -path ./var/lib/apt -o -path ./var/lib/dpkg -o -path ./var/lib/systemd -o -path ./var/cache/apt \) -prune \
    -o -print | sort); }

inside useradd -m user
# What the packages depend on is installed first, so that what is left after purging is theirs.
inside sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
    $(dpkg-deb -f /root/zimage_*.deb Depends | sed "s/([^)]*)//g; s/|[^,]*//g; s/,/ /g")' >/dev/null
files >"$lists/before"
inside sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
    /root/zimage_*.deb' >/dev/null
inside --user=user sh -c 'cd && zimage generate "a red apple" -o apple.png && ls -l apple.png && rm apple.png'
inside zimage --version

# ---- the service ----
cat >"$root/root/try_service" <<'END'
#!/bin/sh
set -eu
systemctl start zimage
i=0
until curl -sf http://127.0.0.1:8421/health; do i=$((i + 1)); [ $i -lt 300 ]; sleep 0.2; done
curl -sf -H 'Content-Type: application/json' -d '{"prompt": "a red apple", "seed": 1}' \
    http://127.0.0.1:8421/v1/images/generations | cut -c1-60
systemctl show zimage -p User,ActiveState,DynamicUser
systemctl stop zimage
systemctl show zimage -p ActiveState,Result,ExecMainStatus
END
cat >"$root/etc/systemd/system/try.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=sh /root/try_service
StandardOutput=file:/root/service.log
StandardError=file:/root/service.log
ExecStopPost=systemctl --no-block poweroff
[Install]
WantedBy=default.target
END
ln -s ../try.service "$root/etc/systemd/system/multi-user.target.wants/try.service"
timeout 300 systemd-nspawn --quiet --register=no --keep-unit -D "$root" --boot </dev/null >"$root/root/boot.log" 2>&1 ||
    { tail -20 "$root/root/boot.log"; cat "$root/root/service.log"; fail "the system did not start and end"; }
cat "$root/root/service.log"
for line in '{"status":"ok"}' '"b64_json"\|"created"' ActiveState=active DynamicUser=yes ActiveState=inactive \
    Result=success ExecMainStatus=0; do
    grep -q "$line" "$root/root/service.log" || fail "the service: expected $line"
done
rm "$root/etc/systemd/system/try.service" "$root/etc/systemd/system/multi-user.target.wants/try.service" \
    "$root/root/try_service"

# ---- removal ----
inside sh -c 'DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge zimage' >/dev/null
files >"$lists/after"
left=$(comm -13 "$lists/before" "$lists/after")
[ -z "$left" ] || { echo "$left"; fail "purging left the files listed above"; }

# ---- developers ----
cp "$source/examples/minimal.c" "$root/root"
inside sh -c 'cd /root && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install ./*.deb gcc \
    libc6-dev pkg-config >/dev/null && gcc minimal.c $(pkg-config --cflags --libs zimage) -o minimal && ldd minimal' |
    grep -q 'libzimage.so.* => /' || fail "the example was not built"
echo "Debian packages: installed, used, served, stopped, purged, built with"
