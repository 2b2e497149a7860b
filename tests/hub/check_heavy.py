"""What takes minutes or gigabytes: tests/hub/run.sh heavy PROGRAM BUILD [TEST...]

ZIMAGE_HUB_FOLDER names a folder with 12 GB of room (default: the system's folder of temporary files)."""
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from fake_hub import NAME, Hub, Zeros, folder_files
from place import LARGE, TINY, WANTED, Place, expect, kill_and_resume, served

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "serve"))
from harness import run_tests  # noqa: E402

GIGABYTE = 1000 ** 3


def test_killed_50_times(program):
    killed, twice, most = kill_and_resume(program, 50, 64 << 10, 4, 11)
    print(f"killed {killed} times; {twice} bytes came twice, at most {most} may")
    assert killed >= 40 and twice <= most


def test_strace(program):
    """Only paths in the cache are opened for writing, made, renamed or removed."""
    if not shutil.which("strace"):
        return print("skipped: strace is not here")
    with served() as (hub, place):
        log = f"{place.home}/strace"
        calls = "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat," \
                "link,linkat,truncate"
        result = subprocess.run(["strace", "-f", "-y", "-s", "4096", "-e", f"trace={calls}", "-o", log, program, "pull",
                                 NAME, "--segment", "262144"], env=place.environment(hub), stderr=subprocess.PIPE)
        assert result.returncode == 0, result.stderr
        changes, outside = 0, []
        with open(log) as file:
            for line in file:
                call = re.sub(r"^\d+ +", "", line)
                reads = call.startswith("open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", call)
                if reads or "ENOENT" in call or "(" not in call or call.startswith("open") and "= -1" in call:
                    continue
                changes += 1
                named = re.findall(r"<([^>]*)>", call.split(") =")[0]) + re.findall(r'"(/[^"]*)"', call)
                inside = [p for p in named if p.startswith(place.cache)]
                target = "".join(re.findall(r'"([^"]*)"', call))
                made = re.match(r"mkdir(at)?\(", call) and place.cache.startswith(target)
                if not inside and not made and "/dev/" not in call:
                    outside.append(call)
        print(f"{changes} calls that change files; outside the cache: {len(outside)}")
        assert changes > 50 and not outside, outside[:5]
    return None


def large_place():
    return Place(tempfile.mkdtemp(prefix="zimage-hub-", dir=os.environ.get("ZIMAGE_HUB_FOLDER")))


def pull_large(program, hub, place, *options):
    """Returns the seconds, the peak memory in MiB, and the CPU's seconds."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen([program, "pull", NAME, "--quiet", *options], stdout=subprocess.DEVNULL,
                               env=place.environment(hub, HF_HUB_DOWNLOAD_TIMEOUT="60"))
    while True:
        with open(f"/proc/{process.pid}/status") as file:  # getrusage would count this program's memory, too
            peak = max([peak] + [int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")])
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.returncode
    return time.monotonic() - start, peak, usage.ru_utime + usage.ru_stime


def test_ten_gigabytes(program):
    place = large_place()
    try:
        files = folder_files(TINY) | {LARGE: Zeros(10 * GIGABYTE)}
        with Hub(files, piece=1 << 20) as hub:
            seconds, peak, cpu = pull_large(program, hub, place)
            print(f"10 GB in {seconds:.1f} s ({10000 / seconds:.0f} MB/s); {peak:.1f} MiB; {cpu:.1f} s of CPU")
            assert peak <= 64, peak
            assert hub.sent[LARGE] == 10 * GIGABYTE
    finally:
        shutil.rmtree(place.home)


def curl_seconds(address, path):
    start = time.monotonic()
    subprocess.run(["curl", "--silent", "--fail", "--output", path, address], check=True)
    seconds = time.monotonic() - start
    os.remove(path)
    return seconds


def test_rate(program):
    """From nginx, to memory: the program and the server share this machine's cores. curl, which only writes the same
    bytes to the same place, is the yardstick beside it."""
    if not (shutil.which("nginx") and shutil.which("curl")):
        return print("skipped: nginx or curl is not here (Debian: nginx-light, curl)")
    place = Place(tempfile.mkdtemp(prefix="zimage-hub-", dir="/dev/shm"))
    size = 2 * GIGABYTE
    try:
        root = f"{place.home}/root"
        os.makedirs(f"{root}/blob/transformer")
        with open(f"{root}/blob/{LARGE}", "wb") as file:
            file.truncate(size)
        with Hub(folder_files(TINY) | {LARGE: Zeros(size)}) as hub:
            for name in WANTED - {LARGE}:
                if name.endswith(".safetensors"):
                    os.makedirs(os.path.dirname(f"{root}/blob/{name}"), exist_ok=True)
                    shutil.copy(f"{TINY}/{name}", f"{root}/blob/{name}")
            port = 20000 + os.getpid() % 20000
            with open(f"{place.home}/nginx.conf", "w") as file:
                file.write(f"daemon off; pid {place.home}/pid; error_log stderr; user root; events {{}}\n"
                           f"http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; }}\n"
                           f"client_body_temp_path {place.home}/b; proxy_temp_path {place.home}/p;\n"
                           f"fastcgi_temp_path {place.home}/f; uwsgi_temp_path {place.home}/u;\n"
                           f"scgi_temp_path {place.home}/s; }}\n")
            nginx = subprocess.Popen(["nginx", "-c", f"{place.home}/nginx.conf"])
            try:
                time.sleep(0.5)
                hub.cdn = f"http://127.0.0.1:{port}"
                rates, plain = [], []
                for _ in range(5):
                    seconds, peak, cpu = pull_large(program, hub, place)
                    rates.append(size / seconds / 1e6)
                    expect(place.run(program, "models", "--remove", NAME), 0)
                    plain.append(size / curl_seconds(f"{hub.cdn}/blob/{LARGE}", f"{place.home}/curl") / 1e6)
                    print(f"{size / 1e9:.0f} GB in {seconds:.2f} s: {rates[-1]:.0f} MB/s, curl without a hash "
                          f"{plain[-1]:.0f} MB/s; {peak:.1f} MiB; {cpu:.2f} s of CPU, {size / cpu / 1e6:.0f} MB for each")
                ratio = statistics.median(rates) / statistics.median(plain)
                print(f"medians: {statistics.median(rates):.0f} MB/s, {ratio:.2f} times curl's")
                assert max(rates) >= 800 or ratio >= 0.9, "slower than 800 MB/s and than writing the bytes"
            finally:
                nginx.terminate()
                nginx.wait()
    finally:
        shutil.rmtree(place.home)
    return None


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
