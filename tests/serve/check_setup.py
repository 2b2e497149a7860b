"""Tests of what the options of zimage serve set up: limits, keys, TLS, folders. check_setup.py PROGRAM [TEST...]"""
import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import zlib

from harness import SMALL, Server, best_of, events, form, long_requests, run_tests

LONG, _ = long_requests(sys.argv[1])
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
        s.wait_for("no file", lambda: temporary_files(s) == (0, 0))
        with s.socket() as connection:  # one that is broken off
            connection.sendall(head + body[:-100])
            s.wait_for("the upload", lambda: temporary_files(s)[1] > large * 0.9)
        s.wait_for("no file", lambda: temporary_files(s) == (0, 0))
        assert s.metric("zimage_upload_bytes_in_flight") == 0
        many = [("prompt", "a" * 600000), ("negative_prompt", "b" * 600000)]
        s.fault("POST", JOBS, 400, "string_too_long", *form(many))
    with Server(program, "--max-body", "1M", "--max-image", "1K") as s:
        head = f"POST {JOBS} HTTP/1.1\r\nHost: 127.0.0.1:{s.port}\r\nContent-Type: {headers['Content-Type']}\r\n"
        answer = s.send_raw((head + "Content-Length: 1048577\r\nConnection: close\r\n\r\n").encode())
        assert b" 413 " in answer[:20] and b'"request_too_large"' in answer, answer
        s.fault("POST", JOBS, 400, "invalid_image", *form([("prompt", "x"), ("image", bytes(1 << 11), "a")]))


def health_beside_plans(s, *plan):
    """Seconds of the slowest answer of /health while two such plans are made, as a part of what the plans take. At most
    one where /health never waits for them, or is quick all the same."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        start = time.monotonic()
        plans = [pool.submit(s.request, "POST", PLAN, *plan) for _ in range(2)]
        times = []
        while not times or not all(plan.done() for plan in plans):
            before = time.monotonic()
            assert s.get("/health").status == 200
            times.append(time.monotonic() - before)
            time.sleep(0.005)
        taken = time.monotonic() - start
    for plan in plans:
        assert plan.result().status in (200, 503), plan.result().body
    print(f"      two pictures: {taken:.2f} s; {len(times)} times /health meanwhile, at most {max(times) * 1000:.0f} ms")
    assert any(plan.result().status == 200 for plan in plans)
    s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0)
    return max(times) / max(0.25, taken / 4)


def test_large_pictures(program):
    """/health answers while the largest picture is decoded; what pictures of all requests take is limited."""
    side = 2048 if "ZIMAGE_BRIEF_TESTS" in os.environ else 8192
    whole = 3 * side * side
    with Server(program, "--max-uploads", str(whole * 3 // 2)) as s:
        body, headers = form([("prompt", "x"), ("size", "64x64"), ("image", png(side), "a.png")])
        waited = best_of(5, lambda: health_beside_plans(s, body, headers), 1)
        assert waited <= 1, f"/health waits for pictures: {waited:.2f} times as long as it may take"
        blocker = s.json("POST", JOBS, {**LONG, "n": 10}, 202)
        s.wait_for("a running job", lambda: s.json("GET", "/slots")[0]["state"] == "running")
        first = s.json("POST", JOBS, body, 202, headers)
        assert s.metric("zimage_input_bytes") == whole
        s.fault("POST", JOBS, 503, "insufficient_memory", body, headers)
        s.json("DELETE", f"{JOBS}/{first['id']}")
        s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0)
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
    s.wait_for("nothing", lambda: s.metric("zimage_upload_bytes_in_flight") == 0)
    s.wait_for("no pictures", lambda: s.metric("zimage_input_bytes") == 0)
    assert s.get("/health").status == 200


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def key_file(text):
    file = tempfile.NamedTemporaryFile("w", suffix=".keys")
    file.write(text)
    file.flush()
    return file


def statuses(s, count, path="/v1/models", **headers):
    return [s.get(path, **headers).status for _ in range(count)]


def until_refused(s, rate, least, most, **headers):
    """Sends requests until one is refused. `least` to `most` of them have tokens, and those whose tokens come meanwhile.
    Returns the refusal and its time."""
    start, count = time.monotonic(), 0
    while (answer := s.get("/v1/models", **headers)).status == 200:
        count += 1
    now = time.monotonic()
    assert answer.status == 429 and least <= count <= most + rate * (now - start), (answer.status, count, now - start)
    return answer, now


def test_rates(program):
    """Each key and each address has its requests a second; wrong keys are counted for each address."""
    with Server(program, "--rate", "2", "--burst", "5", "--failed-keys", "3") as s:
        answer, refused_at = until_refused(s, 2, 5, 5)
        assert json.loads(answer.body)["error"]["code"] == "rate_limit_exceeded"
        assert answer.getheader("Retry-After") == "1" and answer.getheader("X-Should-Retry") is None
        assert statuses(s, 20, "/health") == [200] * 20, "health counts"
        assert statuses(s, 20, "/") == [200] * 20, "the page counts"
        time.sleep(1.1)
        until_refused(s, 2, 2, min(5, 1 + 2 * (time.monotonic() - refused_at)))
    keys = key_file("# keys\nann:first\n\nbob:second:0.5\ncarl:third:1000\n")
    with Server(program, "--api-key-file", keys.name, "--rate", "1", "--burst", "4", "--failed-keys", "3") as s:
        assert statuses(s, 30, **bearer("third")) == [200] * 30, "a key's own rate is not the others'"
        until_refused(s, 0.5, 2, 3, **bearer("second"))
        until_refused(s, 1, 4, 5, **bearer("first"))
        assert statuses(s, 9) == [401] * 9, "requests without a key are no guesses"
        start = time.monotonic()
        assert statuses(s, 3, **bearer("wrong")) == [401] * 3
        answer = s.get("/v1/models", **bearer("wrong"))
        assert answer.status == 429
        assert start + 20 - time.monotonic() <= int(answer.getheader("Retry-After")) <= 20, answer.headers
        assert statuses(s, 1, **bearer("third")) == [429], "a good guess is told from a bad one"
        assert s.get("/health").status == 200
    for text, word in (("a:b:0\n", "line 1"), ("# x\na:b:c\n", "line 2"), ("a:b:1:2\n", "line 1"), ("a:\n", "line 1"),
                       ("# nothing\n", "expected a key"), ("one\nx:one\n", "twice"), (":" * 300, "line 1")):
        keys = key_file(text)
        refused(program, word, "--api-key-file", keys.name)


def refused(program, sentence, *options, code=1, **environment):
    """The server does not start, and says why."""
    done = subprocess.run([program, "serve", "--port", "0", *options], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=60)
    assert done.returncode == code and sentence in done.stderr, (done.returncode, done.stderr)
    return done.stderr


def test_environment(program):
    """Each option may be a variable of the environment; the command line goes first."""
    with Server(program, environment={"ZIMAGE_API_KEY": "secret", "ZIMAGE_MAX_N": "2", "ZIMAGE_QUIET": "1"}) as s:
        assert statuses(s, 1) == [401] and statuses(s, 1, **bearer("secret")) == [200]
        assert s.json("GET", "/props", headers=bearer("secret"))["limits"]["max_n"] == 2
    assert "secret" not in s.errors and "--api-key" not in s.errors, s.errors
    with Server(program, "--max-n", "3", "--api-key", "seen", environment={"ZIMAGE_MAX_N": "2"}) as s:
        assert s.json("GET", "/props", headers=bearer("seen"))["limits"]["max_n"] == 3
    assert "--api-key: other users" in s.errors and "GET /props" in s.errors, s.errors
    mine = f"mine={emoji_folder(program)}"
    with Server(program, environment={"ZIMAGE_MODEL": mine, "ZIMAGE_QUIET": "0"}) as s:
        assert s.json("GET", "/v1/models")["data"][0]["id"] == "mine"
    with Server(program, environment={"ZIMAGE_MAXN": "2", "ZIMAGE_STEPS": "3", "ZIMAGE_UNRELATED_NAME": "x"}) as s:
        assert s.json("GET", "/props")["limits"]["max_n"] != 2
    assert "ZIMAGE_MAXN: no option has this variable, did you mean ZIMAGE_MAX_N?" in s.errors, s.errors
    assert s.errors.count("no option has this variable") == 1, s.errors
    refused(program, "ZIMAGE_MAX_N: \"x\", expected a whole number", code=2, ZIMAGE_MAX_N="x")
    refused(program, "ZIMAGE_QUIET: \"maybe\"", code=2, ZIMAGE_QUIET="maybe")
    refused(program, "--insecure: ", "--insecure", code=2, ZIMAGE_API_KEY="secret")
    refused(program, "--host: \"0.0.0.0\"", ZIMAGE_HOST="0.0.0.0")
    text = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    assert "ZIMAGE_PORT" in text
    man = subprocess.run([program, "help", "--man"], capture_output=True, text=True, check=True).stdout
    assert "ZIMAGE_PORT" in man


class TlsServer(Server):
    """It trusts the certificate of the test only."""

    trusted = None

    def connection(self):
        context = ssl.create_default_context(cafile=self.trusted)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=context)


def make_certificate(folder, name, tool):
    """A self-signed certificate of 127.0.0.1: (certificate, key) as files."""
    paths = [os.path.join(folder, f"{name}.{kind}") for kind in ("cert", "key")]
    subprocess.run([tool, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0],
                    "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def name_of_peer(s):
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as plain:
        context = ssl.create_default_context(cafile=s.trusted)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            return dict(pair[0] for pair in secure.getpeercert()["subject"])["commonName"], secure.version()


def test_tls(program):
    """HTTPS, and another certificate after SIGHUP."""
    tool = shutil.which("openssl")
    if not tool:
        print("      skipped: no openssl")
        return
    with tempfile.TemporaryDirectory() as folder:
        first, second = make_certificate(folder, "first", tool), make_certificate(folder, "second", tool)
        used = [os.path.join(folder, name) for name in ("cert", "key")]
        for source, target in zip(first, used):
            shutil.copy(source, target)
        TlsServer.trusted = first[0]
        with TlsServer(program, "--tls-cert", used[0], "--tls-key", used[1]) as s:
            assert s.url.startswith("https://") and name_of_peer(s) == ("first", "TLSv1.3")
            answer = s.json("POST", GENERATIONS, {**SMALL, "n": 2, "response_format": "url"})
            assert answer["data"][0]["url"].startswith(f"https://127.0.0.1:{s.port}/v1/files/")
            stream = s.post(GENERATIONS, {**SMALL, "stream": True})
            assert stream.body.endswith(b"data: [DONE]\n\n")
            body, headers = form([*SMALL_FORM, ("image", png(1024, 0), "a.png")])
            job = s.json("POST", JOBS, body, 202, headers)
            assert s.json("GET", f"{JOBS}/{job['id']}?wait=60", headers=headers)["state"] == "completed"
            plain = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
            try:
                plain.request("GET", "/health")
                raise AssertionError(f"plain HTTP was answered: {plain.getresponse().status}")
            except (http.client.HTTPException, OSError):
                pass
            s.fault("GET", "/health", 403, "host_not_allowed", headers={"Host": "evil.example"})
            shutil.copy(second[0], used[0])  # a key that is not the certificate's
            s.process.send_signal(signal.SIGHUP)
            s.wait_for("its sentence", lambda: "the certificate was not read again: " in s.read_log())
            assert name_of_peer(s)[0] == "first" and s.get("/health").status == 200
            shutil.copy(second[1], used[1])
            held = s.connection()
            held.request("GET", "/health")
            held.getresponse().read()
            s.process.send_signal(signal.SIGHUP)
            s.wait_for("its sentence", lambda: "was read again" in s.read_log())
            s.trusted = second[0]
            assert name_of_peer(s)[0] == "second"
            held.request("GET", "/health")
            assert held.getresponse().status == 200, "a connection that was open is closed"
            held.close()
            busy = s.json("POST", JOBS, LONG, 202)
            gone = s.connection()
            gone.request("POST", GENERATIONS, json.dumps(SMALL), {"Content-Type": "application/json"})
            s.wait_for("the second job", lambda: s.metric('zimage_queue_length{class="interactive"}') == 1)
            gone.close()
            s.wait_for("its end", lambda: s.metric('zimage_cancelled_total{reason="client_gone"}') == 1)
            s.json("DELETE", f"{JOBS}/{busy['id']}")
        assert "the certificate was not read again: " in s.errors and "was read again" in s.errors, s.errors
        refused(program, "--tls-cert: ", "--tls-cert", folder + "/none", "--tls-key", used[1])
        refused(program, "--tls-key: ", "--tls-cert", first[0], "--tls-key", second[1])
        refused(program, "--tls-key", "--tls-cert", first[0], code=2)
    with Server(program) as s:  # without a certificate SIGHUP asks to stop
        s.process.send_signal(signal.SIGHUP)
        s.is_terminated = True


class UnixServer(Server):
    where = ()
    path = None

    def connection(self):
        connection = http.client.HTTPConnection("localhost", timeout=120)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        return connection


def test_unix_socket(program):
    with tempfile.TemporaryDirectory() as folder:
        path = UnixServer.path = os.path.join(folder, "socket")
        with UnixServer(program, "--unix", path, "--rate", "1", "--burst", "1", "--public-url",
                        "https://images.example/a/") as s:
            assert s.url == f"unix:{path}" and os.stat(path).st_mode & 0o777 == 0o660
            assert statuses(s, 5) == [200] * 5, "a socket has no address whose requests are counted"
            answer = s.json("POST", GENERATIONS, {**SMALL, "response_format": "url"})
            url = answer["data"][0]["url"]
            assert url.startswith("https://images.example/a/v1/files/"), url
            assert s.get(url[len("https://images.example/a"):]).body[:4] == b"\x89PNG"
            assert s.get("/health", Host="images.example").status == 200
            assert s.get("/v1/models", Host="localhost", Origin="https://images.example").status == 200
            s.fault("GET", "/v1/models", 403, "origin_not_allowed", headers={"Origin": "https://images.example.org"})
            s.fault("GET", "/health", 403, "host_not_allowed", headers={"Host": "evil.example"})
            second = subprocess.run([program, "serve", "--unix", path], capture_output=True, text=True, timeout=60)
            assert second.returncode == 1 and path in second.stderr, second
        assert not os.path.exists(path), "the socket stays behind"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        with UnixServer(program, "--unix", path):
            pass
        with open(path, "w") as file:
            file.write("precious")
        taken = subprocess.run([program, "serve", "--unix", path], capture_output=True, text=True, timeout=60)
        assert taken.returncode == 1 and "--unix: " in taken.stderr, taken
        with open(path) as file:
            assert file.read() == "precious"
    refused(program, "--unix: not together with --port", "--unix", "x", code=2)
    for url in ("images.example", "ftp://images.example", "http://", "http://a:b/"):
        refused(program, "--public-url: ", "--public-url", url)


def emoji_folder(program):
    return os.path.join(os.path.dirname(os.path.abspath(program)), "models", "emoji")


def test_models(program):
    """--models-dir, --default-model, --alias; nobody changes the default model with --no-model-switch."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("beta", "alpha"):
            os.symlink(emoji_folder(program), os.path.join(folder, name))
        os.mkdir(os.path.join(folder, "empty"))
        options = ("--models-dir", folder, "--default-model", "beta", "--alias", "gpt-image-1,other=alpha",
                   "--no-model-switch", "--sdapi-max-steps", "9")
        with Server(program, *options) as s:
            assert [model["id"] for model in s.json("GET", "/v1/models")["data"]] == ["alpha", "beta"]
            for name, model in ((None, "beta"), ("gpt-image-1", "beta"), ("other", "alpha"), ("alpha", "alpha")):
                assert s.json("POST", GENERATIONS, {**SMALL, "model": name})["model"] == model, name
            assert s.json("GET", "/v1/models/other")["id"] == "alpha"
            switch = {"sd_model_checkpoint": "alpha"}
            assert s.json("POST", "/sdapi/v1/options", switch, 403)["error"] == "switch_not_allowed"
            assert s.json("POST", "/sdapi/v1/options", {"sd_model_checkpoint": "beta"}) is None
            info = s.json("POST", "/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 64, "steps": 50})["info"]
            assert json.loads(info)["steps"] == 9, info
        models = ("--models-dir", folder)
        refused(program, "--default-model: \"none\"", *models, "--default-model", "none")
        refused(program, "--alias: \"none\"", *models, "--alias", "a=none")
        refused(program, "--alias: \"alpha\"", *models, "--alias", "alpha")
        refused(program, "--alias: \"a\"", *models, "--alias", "a,a")
        refused(program, "0 model folders", "--models-dir", os.path.join(folder, "empty"), code=2)
        refused(program, "--models-dir: ", "--models-dir", os.path.join(folder, "none"), code=2)


def test_fingerprint(program):
    """The server's images say which model made them, as the program's do."""
    with Server(program) as s, tempfile.TemporaryDirectory() as folder:
        meta = s.json("GET", "/v1/models/emoji")["meta"]
        image = s.json("POST", GENERATIONS, SMALL)["data"][0]["b64_json"]
        recipe = json.loads(s.post("/zimage/v1/recipe", base64.b64decode(image)).body)["recipe"]
        assert re.fullmatch("[0-9a-f]{32}", meta["fingerprint"]) and recipe["model_fingerprint"] == meta["fingerprint"]
        path = os.path.join(folder, "a.png")
        subprocess.run([program, "generate", "x", "--size", "64x64", "--steps", "1", "-q", "-o", path], check=True,
                       stdout=subprocess.DEVNULL)
        with open(path, "rb") as file:
            own = json.loads(s.post("/zimage/v1/recipe", file.read()).body)["recipe"]
        assert own["model_fingerprint"] == meta["fingerprint"], own


def keys_of(folder):
    return sorted(name for name in os.listdir(folder) if name != ".zimage")


def jpeg_size(data):
    """Width and height, from the frame's header."""
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(data[at + 2:at + 4], "big")
    return int.from_bytes(data[at + 7:at + 9], "big"), int.from_bytes(data[at + 5:at + 7], "big")


def test_pictures(program):
    """Tags, thumbnails, addresses with which nobody keeps a copy; and AUTOMATIC1111's png-info and memory."""
    with Server(program) as s:
        answer = s.json("POST", GENERATIONS, {**SMALL, "size": "512x256", "steps": 1, "response_format": "url"})
        path = answer["data"][0]["url"].split(str(s.port), 1)[1]
        for url in (path, f"{JOBS}/{answer['id']}/pictures/0"):
            picture = s.get(url)
            tag = '"' + hashlib.sha256(picture.body).hexdigest() + '"'
            assert picture.getheader("ETag") == tag and picture.getheader("Cache-Control") == "private, no-store"
            again = s.get(url, **{"If-None-Match": f'W/"x", {tag}'})
            assert again.status == 304 and again.body == b""
            thumb = s.get(url + "?thumb=256")
            assert thumb.getheader("Content-Type") == "image/jpeg" and jpeg_size(thumb.body) == (256, 128)
            s.fault("GET", url + "?thumb=1000", 400, "invalid_value")
        s.fault("GET", path[:-6] + "7.png", 404, "file_not_found")
        image = base64.b64encode(picture.body).decode()
        for text in (image, "data:image/png;base64," + image):
            info = s.json("POST", "/sdapi/v1/png-info", {"image": text})
            assert info["info"].startswith("a red apple") and "Seed: 7" in info["info"], info
            assert info["items"]["parameters"] == info["info"] and info["parameters"]["seed"] == 7
        for bad in ({}, {"image": "!"}, {"image": "AAAA"}, {"image": 1}):
            assert s.json("POST", "/sdapi/v1/png-info", bad, 400)["detail"]
        memory = s.json("GET", "/sdapi/v1/memory")["ram"]
        assert 0 < memory["used"] < memory["total"] == memory["used"] + memory["free"], memory


GALLERY = "/zimage/v1/gallery"


def test_gallery(program):
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "made")
        with Server(program, "--gallery", folder) as s:
            assert s.json("GET", "/zimage/v1/capabilities")["gallery"] is True
            assert s.json("GET", GALLERY) == {"images": [], "has_more": False}
            made = s.json("POST", GENERATIONS, {**SMALL, "size": "512x256", "steps": 1, "n": 2})
            s.json("POST", GENERATIONS, {**SMALL, "output_format": "webp"})
            job = s.json("POST", JOBS, {**SMALL, "output_format": "jpeg", "seed": str(2**64 - 1)}, 202)
            done = list(events(s.get(job["events_url"]).body.splitlines(True)))
            kept_as = next(json.loads(data) for kind, data in done if kind == "picture")["gallery_id"]
            listed = s.json("GET", GALLERY)["images"]
            ids = [image["id"] for image in listed]
            assert len(ids) == 4 and ids == sorted(ids, reverse=True) and ids[0] == kept_as, ids
            assert [image["format"] for image in listed] == ["jpeg", "webp", "png", "png"]
            assert listed[0]["request"]["seed"] == str(2**64 - 1) and "n" not in listed[0]["request"]
            oldest = listed[-1]["request"]
            expected = {"prompt": "a red apple", "size": "512x256", "steps": 1, "model": "emoji"}
            assert expected.items() <= oldest.items() and oldest["seed"] in (7, 8), oldest
            files = {base64.b64decode(data["b64_json"]) for data in made["data"]}
            assert {s.get(image["url"]).body for image in listed[2:]} == files
            for image in listed:
                with open(os.path.join(folder, next(n for n in keys_of(folder) if n.startswith(image["id"]))), "rb") as f:
                    assert f.read() == s.get(image["url"]).body
            thumb = s.get(listed[-1]["thumb_url"])
            assert thumb.getheader("Content-Type") == "image/jpeg" and jpeg_size(thumb.body) == (256, 128)
            page = s.json("GET", f"{GALLERY}?limit=3")
            rest = s.json("GET", f"{GALLERY}?limit=3&before={page['images'][-1]['id']}")
            assert [i["id"] for i in page["images"] + rest["images"]] == ids
            assert page["has_more"] and not rest["has_more"]
            assert s.json("DELETE", f"{GALLERY}/{ids[1]}") == {"id": ids[1], "deleted": True}
            for method in ("DELETE", "GET"):
                s.fault(method, f"{GALLERY}/{ids[1]}", 404, "file_not_found")
            for bad in ("x", "..", "..%2f..%2fetc%2fpasswd", ids[0] + ".jpg", ".zimage", ids[0][:-1]):
                s.fault("GET", f"{GALLERY}/{bad}", 404, "file_not_found")
            refused_job = s.json("POST", JOBS, {**LONG, "n": 3}, 202)
            s.json("DELETE", f"{JOBS}/{refused_job['id']}")
        assert len(keys_of(folder)) == 3 and len(os.listdir(folder + "/.zimage")) == 6, os.listdir(folder + "/.zimage")
        copied = "20200101-000000000-abcdefghi.png"
        shutil.copy(os.path.join(folder, ids[2] + ".png"), os.path.join(folder, copied))
        os.symlink("/etc/passwd", os.path.join(folder, "20200101-000000000-bbbbbbbbb.png"))
        with open(os.path.join(folder, ".zimage", ids[0] + ".part"), "w") as file:
            file.write("half")
        with open(os.path.join(folder, "mine.png"), "w") as file:
            file.write("precious")
        keys = key_file("ann:first\nbob:second\n../x:third\n")
        with Server(program, "--gallery", folder, "--api-key-file", keys.name) as s:
            s.json("POST", GENERATIONS, SMALL, headers=bearer("first"))
            first = s.json("GET", GALLERY, headers=bearer("first"))["images"]
            assert len(first) == 1 and keys_of(os.path.join(folder, "ann")) == [first[0]["id"] + ".png"]
            assert s.json("GET", GALLERY, headers=bearer("second"))["images"] == []
            s.fault("GET", first[0]["url"], 404, "file_not_found", headers=bearer("second"))
            s.fault("DELETE", first[0]["url"], 404, "file_not_found", headers=bearer("second"))
            common = s.json("GET", GALLERY, headers=bearer("third"))["images"]
            assert [i["id"] for i in common][:3] == [ids[0], *ids[2:]] and common[-1]["id"] == copied[:-4], common
            assert common[-1]["request"] == {}
            whole = s.request("GET", common[-1]["thumb_url"], headers=bearer("third"))
            assert whole.getheader("Content-Type") == "image/png" and whole.status == 200
            s.fault("GET", f"{GALLERY}/20200101-000000000-bbbbbbbbb", 404, "file_not_found", headers=bearer("third"))
            assert s.get(GALLERY).status == 401
        assert not os.path.exists(os.path.join(folder, ".zimage", ids[0] + ".part"))
        assert os.path.exists(os.path.join(folder, "mine.png")) and not os.path.exists(parent + "/x")
        with Server(program, "--gallery", folder) as s:  # what can't be written is no fault of the job
            shutil.rmtree(folder)
            assert s.json("POST", GENERATIONS, SMALL)["data"]
        assert "gallery: an image can't be written" in s.errors, s.errors
        refused(program, "--gallery: ", "--gallery", os.path.join(parent, "none", "inside"))
    with Server(program) as s:
        s.fault("GET", GALLERY, 404, "unsupported_endpoint")


def test_what_is_shown(program):
    """The page, /slots, /metrics and the log."""
    keys = key_file("ann:first\n")
    options = ("--api-key-file", keys.name, "--metrics-public", "--no-slots", "--no-web", "--log-format", "json")
    with Server(program, *options) as s:
        assert b"zimage_build_info" in s.get("/metrics").body and statuses(s, 1) == [401]
        s.fault("GET", "/slots", 404, "unsupported_endpoint", headers=bearer("first"))
        s.fault("GET", "/", 404, "unsupported_endpoint")
        s.fault("GET", "/assets/app.js", 404, "unsupported_endpoint")
        assert s.get("/zimage/v1/capabilities?%22%0a", **bearer("first")).status == 200
    lines = [json.loads(line) for line in s.errors.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert any(line["path"] == "/metrics" and line["status"] == 200 and line["key"] == 0 for line in lines), lines
    assert any(line["path"].startswith("/zimage/v1/cap") and line["key"] == 1 for line in lines), lines
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("index.html", "<p>mine"), ("a.js", "1"), (".hidden", "x")):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        os.symlink("/etc/passwd", os.path.join(folder, "link.js"))
        with Server(program, "--web-dir", folder) as s:
            page = s.get("/")
            assert page.body == b"<p>mine" and "default-src 'none'" in page.getheader("Content-Security-Policy")
            assert s.get("/assets/a.js").getheader("Content-Type").startswith("text/javascript")
            for name in ("none.js", "link.js", ".hidden", "..", "%2e%2e%2fpasswd", "%2fetc%2fpasswd"):
                s.fault("GET", f"/assets/{name}", 404, "unsupported_endpoint")


def test_times(program):
    """A head, a body and an idle connection have their times."""
    with Server(program, "--header-seconds", "1", "--body-seconds", "2", "--connection-seconds", "3") as s:
        host = f"Host: 127.0.0.1:{s.port}\r\n"
        for text, least, most in ((f"GET /health HTTP/1.1\r\n{host}", 0.5, 2),
                                  (f"POST {JOBS} HTTP/1.1\r\n{host}Content-Type: application/json\r\n"
                                   "Content-Length: 100\r\n\r\n{", 1.5, 3),
                                  (f"GET /health HTTP/1.1\r\n{host}\r\n", 2, 6)):
            def seconds():
                start = time.monotonic()
                s.send_raw(text.encode())
                return time.monotonic() - start
            taken = best_of(5, seconds, most)
            assert least < taken < most, (text, taken)


SMALL_FORM = [(name, str(value)) for name, value in SMALL.items()]


if __name__ == "__main__":
    run_tests(sys.modules[__name__])
