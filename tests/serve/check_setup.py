"""Tests of what the options of zimage serve set up: limits, keys, TLS, folders. check_setup.py PROGRAM [TEST...]"""
import concurrent.futures
import os
import struct
import sys
import time
import zlib

from harness import LONG, SMALL, Server, form, run_tests

GENERATIONS = "/v1/images/generations"
JOBS = "/zimage/v1/jobs"
PLAN = "/zimage/v1/plan"


def png(side, level=1):
    """A PNG file of side x side pixels, of which each row is the same."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(level), b"\0" + b"\x40\x80\xc0" * side
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def temporary_files(server):
    """Open files of the server that have no name any more: (count, bytes)."""
    sizes, folder = [], f"/proc/{server.process.pid}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
            if "/zimage-" in target and target.endswith(" (deleted)"):
                sizes.append(os.stat(f"{folder}/{name}").st_size)
        except OSError:
            pass
    return len(sizes), sum(sizes)


def resident(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))


def test_uploads_lie_in_files(program):
    """Parts above 1 MiB go to temporary files without a name, so uploads take no memory."""
    if not os.path.exists("/proc/self/fd"):
        return
    large = 20 << 20
    with Server(program, "--max-uploads", "64M") as s:
        body, headers = form([("prompt", "x"), ("image", b"\x89PNG" + bytes(large), "a.png")])
        head = f"POST {PLAN} HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nContent-Type: {headers['Content-Type']}\r\n"
        head = (head + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode()
        before = resident(s)
        with s.socket() as connection:
            connection.sendall(head + body[:-100])
            s.wait_for("the upload", lambda: temporary_files(s)[1] > large * 0.9)
            assert temporary_files(s)[0] == 1 and s.metric("zimage_upload_bytes_in_flight") == len(body)
            if "asan" not in program and "tsan" not in program:
                assert resident(s) - before < 8 << 20, (resident(s) - before) >> 10
            more = s.send_raw(head.replace(str(len(body)).encode(), b"52428800")).decode()
            assert " 503 " in more[:20] and '"insufficient_memory"' in more, more
            assert "\r\nRetry-After: 1\r\n" in more and "X-Should-Retry" not in more, more
            connection.sendall(body[-100:])
            answer = connection.recv(65536)
            assert b" 400 " in answer[:20] and b"invalid_image" in answer, answer
        s.wait_for("no file", lambda: temporary_files(s) == (0, 0), 5)
        with s.socket() as connection:  # one that is broken off
            connection.sendall(head + body[:-100])
            s.wait_for("the upload", lambda: temporary_files(s)[1] > large * 0.9)
        s.wait_for("no file", lambda: temporary_files(s) == (0, 0), 10)
        assert s.metric("zimage_upload_bytes_in_flight") == 0
        many = [("prompt", "a" * 600000), ("negative_prompt", "b" * 600000)]
        s.fault("POST", JOBS, 400, "string_too_long", *form(many))
    with Server(program, "--max-body", "1M", "--max-image", "1K") as s:
        s.fault("POST", JOBS, 413, "request_too_large", *form([("prompt", "x"), ("image", bytes(1 << 20), "a")]))
        s.fault("POST", JOBS, 400, "invalid_image", *form([("prompt", "x"), ("image", bytes(1 << 11), "a")]))


def test_large_pictures(program):
    """/health answers while the largest picture is decoded; what pictures of all requests take is limited."""
    side = 2048 if "ZIMAGE_BRIEF_TESTS" in os.environ else 8192
    whole = 3 * side * side
    with Server(program, "--max-uploads", str(whole * 3 // 2)) as s:
        body, headers = form([("prompt", "x"), ("size", "64x64"), ("image", png(side), "a.png")])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            start = time.monotonic()
            plans = [pool.submit(s.request, "POST", PLAN, body, headers) for _ in range(2)]
            times = []
            while not all(plan.done() for plan in plans):
                before = time.monotonic()
                assert s.get("/health").status == 200
                times.append(time.monotonic() - before)
                time.sleep(0.005)
            taken = time.monotonic() - start
        for plan in plans:
            assert plan.result().status in (200, 503), plan.result().body
        print(f"      two pictures of {side} x {side}: {taken:.2f} s; {len(times)} times /health meanwhile, at most "
              f"{max(times) * 1000:.0f} ms")
        assert any(plan.result().status == 200 for plan in plans) and len(times) > 5
        assert max(times) < max(0.25, taken / 4), max(times)
        s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0, 5)
        blocker = s.json("POST", JOBS, {**LONG, "n": 10}, 202)
        s.wait_for("a running job", lambda: s.json("GET", "/slots")[0]["state"] == "running")
        first = s.json("POST", JOBS, body, 202, headers)
        assert s.metric("zimage_input_bytes") == whole
        s.fault("POST", JOBS, 503, "insufficient_memory", body, headers)
        s.json("DELETE", f"{JOBS}/{first['id']}")
        s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0, 5)
        s.json("DELETE", f"{JOBS}/{blocker['id']}")
        two = form([("prompt", "x"), ("size", "64x64"), ("image", png(side), "a"), ("image", png(side), "b")])
        s.fault("POST", JOBS, 413, "request_too_large", *two)
        small = s.json("POST", JOBS, form([*SMALL_FORM, ("image", png(64), "a")])[0], 202, headers)
        assert s.json("GET", f"{JOBS}/{small['id']}?wait=60")["state"] == "completed"
        leave_early(s, body, headers)


def leave_early(s, body, headers):
    """The client goes away while its picture is decoded, and while it waits for that."""
    head = f"POST {PLAN} HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nContent-Type: {headers['Content-Type']}\r\n"
    head = (head + f"Content-Length: {len(body)}\r\n\r\n").encode()
    connections = [s.socket() for _ in range(3)]
    for connection in connections:
        connection.sendall(head + body)
    time.sleep(0.05)
    for connection in connections:
        connection.close()
    s.wait_for("nothing", lambda: s.metric("zimage_upload_bytes_in_flight") == 0, 10)
    s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0, 10)
    assert s.get("/health").status == 200


SMALL_FORM = [(name, str(value)) for name, value in SMALL.items()]


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
