"""Starts the server on loopback with the bundled model, and speaks HTTP with it. Standard library only."""
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/tiny")  # a model of random weights
SMALL = {"prompt": "a red apple", "size": "64x64", "steps": 2, "seed": 7}


def seconds_of(program, side, steps, *options):
    """Of a square image of the bundled model, the program's start included."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        subprocess.run([program, "generate", "-p", "a", "--size", f"{side}x{side}", "--steps", str(steps), "--device",
                        "cpu", "-q", "-o", f"{folder}/a.png", *options], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        return time.monotonic() - begin


def slow_side(program, seconds, steps=32):
    """The side of a square image of the bundled model whose steps take at least so many seconds here, on one thread."""
    def taken(side, steps):  # the shorter of two times, since other work only makes them longer
        return min(seconds_of(program, side, steps, "--threads", "1") for _ in range(2))
    side = 64
    while side < 1024 and (taken(side, 9) - taken(side, 1)) / 8 * steps < seconds:
        side *= 2
    return side


def long_requests(program):
    """Two images: one takes at least a second here on all cores, with or without a sanitizer, the other about four times
    as long. Tests cancel them; what happens meanwhile has time to happen."""
    side = 128
    while side < 1024 and seconds_of(program, side, 32) < 1:
        side *= 2
    return ({**SMALL, "size": f"{side}x{side}", "steps": 32}, {**SMALL, "size": f"{2 * side}x{2 * side}", "steps": 32})


class Server:
    """zimage serve on a port that the system chooses. `with Server(program, ...) as server:`"""

    where = ("--port", "0")
    patience = 120  # seconds

    def __init__(self, program, *options, environment=None, log=None, is_waiting=True):
        self.log = log or tempfile.TemporaryFile("w+")  # a pipe would fill
        self.process = subprocess.Popen(
            [program, "serve", *self.where, *options], stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, **(environment or {})})
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise AssertionError(f"the server did not start: {line!r} {self.read_log()!r}")
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1]) if self.url.startswith("http") else None
        self.is_terminated = False
        while is_waiting and self.get("/health").status == 503:
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        code = self.stop()
        if code != 0:
            raise AssertionError(f"the server ended with {code}: {self.errors[-2000:]}")

    def terminate(self):
        self.is_terminated = True
        self.process.terminate()

    def stop(self):
        if not self.is_terminated:
            self.terminate()
        self.process.communicate(timeout=60)
        self.errors = self.read_log()
        if "Sanitizer" in self.errors or "runtime error" in self.errors:
            raise AssertionError(self.errors)
        return self.process.returncode

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)

    def read_log(self):
        if isinstance(self.log, int):
            return ""
        # Not seek: the server writes where the file's position is.
        file = self.log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def request(self, method, path, body=None, headers=None):
        connection = self.connection()
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.body = answer.read()
        connection.close()
        return answer

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def json(self, method, path, body=None, status=200, headers=None):
        answer = self.request(method, path, body, headers)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.body[:500]!r}, expected {status}"
        return json.loads(answer.body)

    def fault(self, method, path, status, code, body=None, headers=None):
        """Expects a refusal; returns its error object."""
        error = self.json(method, path, body, status, headers)["error"]
        assert error["code"] == code and error["message"], error
        return error

    def socket(self):
        """A connection for requests that no client library would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send_raw(self, data):
        """Sends bytes and returns what comes back until the server closes the connection."""
        with self.socket() as s:
            s.sendall(data)
            answer = b""
            try:
                while chunk := s.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                pass
            return answer

    def metric(self, name):
        """The value of a metric, its labels included in the name."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.rsplit(" ", 1)[0] == name:
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"there is no metric {name}")

    def wait_for(self, what, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain for: {what}"
            time.sleep(0.01)

    def wait_until_idle(self, seconds=60):
        self.wait_for("no job", lambda: self.json("GET", "/slots")[0]["state"] == "idle", seconds)


def best_of(trials, measure, limit):
    """The least of what measure() returns in at most so many trials; the first that is within the limit is the last.
    Other work on the machine lengthens some of them. A limit is the program's: what it keeps once, it can keep."""
    least = measure()
    while least > limit and (trials := trials - 1) > 0:
        least = min(least, measure())
    return least


def events(stream):
    """The events of a text/event-stream: (type, data) with data as it was sent."""
    kind, data = None, None
    for line in stream:
        line = line.decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line[len("event: "):]
        elif line.startswith("data: "):
            data = line[len("data: "):]
        elif not line and data is not None:
            yield kind, data
            kind, data = None, None


def form(parts):
    """A multipart form: (name, value) for texts, (name, value, file name) for files. Returns body and headers."""
    boundary = "boundary0123456789"
    body = b""
    for name, value, *file_name in parts:
        extra = f'; filename="{file_name[0]}"\r\nContent-Type: application/octet-stream' if file_name else ""
        value = value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        body += head.encode() + value + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def send_only(s, path, body, cut=None):
    """Sends a request, or its first bytes, and does not wait for the answer."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nContent-Type: application/json\r\nContent-Length: "
    data = head.encode() + str(len(text)).encode() + b"\r\n\r\n" + text
    connection = s.socket()
    connection.sendall(data[:cut] if cut else data)
    return connection


def status_of(server):
    """What the process holds: (open files, resident KiB)."""
    with open(f"/proc/{server.process.pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return len(os.listdir(f"/proc/{server.process.pid}/fd")), resident


def png(width, height, pixel):
    """A PNG file whose pixels are pixel(x, y): 3 or 4 bytes."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    return png_of(width, height, 2 if len(pixel(0, 0)) == 3 else 6, zlib.compress(rows))


def png_of(width, height, colour, compressed):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def bundled_model(program):
    return os.path.join(os.path.dirname(os.path.abspath(program)), "models", "emoji")


def change_tensors(path, change):
    """Writes a safetensors file anew with change(name, data): the data of each tensor, or None without it."""
    with open(path, "rb") as file:
        whole = file.read()
    begin = 8 + struct.unpack("<Q", whole[:8])[0]
    header, data = {}, b""
    for name, entry in json.loads(whole[8:begin]).items():
        if "data_offsets" in entry:
            first, end = entry["data_offsets"]
            new = change(name, whole[begin + first:begin + end])
            if new is None:
                continue
            entry = {**entry, "data_offsets": [len(data), len(data) + len(new)]}
            data += new
        header[name] = entry
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def png_pixels(data):
    """The pixels of a PNG file as they were compressed: the same bytes for the same pixels."""
    chunks, at = b"", 8
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            chunks += data[at + 8:at + 8 + size]
        at += 12 + size
    return chunks


def run_tests(module):
    """Runs each function test_*(program) and says how long it took; exit code 1 if one failed."""
    program, names, failed = sys.argv[1], sys.argv[2:], 0
    for name, test in list(vars(module).items()):
        if not name.startswith("test_") or (names and name not in names):
            continue
        start = time.monotonic()
        try:
            test(program)
            print(f"ok    {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception:  # noqa: the report is the traceback
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    sys.exit(1 if failed else 0)


os.environ.setdefault("XDG_CACHE_HOME", "/nonexistent")
# Tests send more requests than a client does; those of the limits themselves set them again.
os.environ.update(ZIMAGE_RATE="0", ZIMAGE_FAILED_KEYS="0")
