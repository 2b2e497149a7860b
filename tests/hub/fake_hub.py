"""A hub of models on loopback, for tests: Hugging Face's protocol and ModelScope's, with faults. Standard library only.

It has three origins, each a port: the hub, the server of large files (CDN) and a third one. A fault is a keyword of
Hub(...), listed there. As a program: fake_hub.py FOLDER [FAULT=VALUE ...] serves a folder as acme/tiny.
"""
import hashlib
import http.server
import json
import os
import socket
import struct
import sys
import threading
import time
import urllib.parse

NAME = "acme/tiny"


class Bytes:
    """The content of a file."""

    def __init__(self, data):
        self.data, self.size = data, len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def read(self, offset, size):
        return self.data[offset:offset + size]


class Zeros:
    """A large file that takes no memory."""

    def __init__(self, size, sha256=None):
        self.size = size
        digest = hashlib.sha256()
        for at in range(0, 0 if sha256 else size, 1 << 24):
            digest.update(bytes(min(1 << 24, size - at)))
        self.sha256 = sha256 or digest.hexdigest()
        self.sha1 = "0" * 40

    def read(self, offset, size):
        return bytes(min(size, self.size - offset))


class Cut(Exception):
    """The connection ends here."""


class Hub:
    """Serves `files`, a dictionary from paths to Bytes. Files that end in .safetensors are large ones ("lfs").

    Faults:
        expires=N        a signed address is good for N bytes, then it is answered with 403
        ignore_range     ranges are answered with the whole file
        wrong_range      Content-Range is another one than the body's
        wrong_total      Content-Range tells another size
        short=N          a body ends after N bytes, though more were announced
        flips=N          one bit of a large file is wrong in the first N answers that hold it
        no_length=N      no Content-Length; answers with large files end N seconds after the last byte
        relative         the hub redirects to another path of its own
        absolute         the same with 308 and an address with its host
        third_host       the CDN redirects to the third origin
        loop             the hub redirects to the same path for ever
        to_http=URL      the hub redirects there
        limits=N         the first N requests of the API are answered with 429
        limit_header     how those say when to come back: "RateLimit" or "Retry-After"
        errors=N         the first N requests of large files are answered with 503
        fault=(KIND, STATUS, CODE)   KIND ("revision", "tree" or "resolve") is answered with an error
        page=N           a listing has pages of N entries
        next_link=URL    the listing's next page is there
        entries=[...]    further entries of the listing
        html             the API answers with a page of HTML
        html_files       files are answered with a page of HTML
        stalls=N         the first N answers of large files stop after 100000 bytes, and the connection stays open
        reset=N          every connection is reset after N bytes of a large file
        rate=N           bytes a second of a large file
        other_etag       the hub announces another hash than it lists
        gated            what the API says of it
        token            large and small files need this token
        piece=N          bytes that are sent at once
    """

    def __init__(self, files, name=NAME, **faults):
        self.files, self.name, self.faults = files, name, faults
        self.commit = hashlib.sha1(repr(sorted((p, f.sha256) for p, f in files.items())).encode()).hexdigest()
        self.log, self.lock = [], threading.Lock()
        self.counts, self.served, self.signatures = {}, {}, 0
        self.sent = {}  # bytes of each file's body
        self.servers = [_Server(("127.0.0.1", 0), _handler(self, role)) for role in ("hub", "cdn", "third")]
        self.urls = [f"http://127.0.0.1:{s.server_port}" for s in self.servers]
        self.url, self.cdn, self.third = self.urls

    def __enter__(self):
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *unused):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fault(self, name, default=None):
        return self.faults.get(name, default)

    def count(self, what):
        """How often this was called before."""
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
            return self.counts[what] - 1

    def requests(self, role, method=None):
        return [r for r in self.log if r["role"] == role and method in (None, r["method"])]

    def etag(self, path):
        return self.files[path].sha256 if is_large(path) else self.files[path].sha1

    def entries(self):
        entries, folders = [], set()
        for path, content in sorted(self.files.items()):
            folders |= {path[:i] for i in range(len(path)) if path[i] == "/"}
            entry = {"type": "file", "path": path, "size": content.size, "oid": content.sha1}
            if is_large(path):
                entry["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 134}
                entry["xetHash"] = "ab" * 32
            entries.append(entry)
        folders = [{"type": "directory", "path": f, "size": 0, "oid": "1" * 40} for f in sorted(folders)]
        return folders + entries + self.fault("entries", [])


def is_large(path):
    return path.endswith(".safetensors")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, address):
        pass  # clients that go away are part of the tests


def _handler(hub, role):
    return type("Handler", (_Handler,), {"hub": hub, "role": role})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.hub.log.append({"role": self.role, "method": self.command, "path": self.path,
                             "authorization": self.headers.get("Authorization"), "cookie": self.headers.get("Cookie"),
                             "range": self.headers.get("Range")})
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = urllib.parse.unquote(url.path)
        try:
            if self.role != "hub":
                self.answer_large(path.removeprefix("/blob/"), query)
            elif path.startswith("/api/v1/"):
                self.answer_modelscope(path, query)
            elif path.startswith("/api/models/"):
                self.answer_api(path, query)
            else:
                self.answer_file(path)
        except (Cut, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # ---- answers ----

    def head(self, status, headers, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None and not (self.hub.fault("no_length") is not None and status in (200, 206, 302)):
            self.send_header("Content-Length", str(length))
        elif length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def send(self, status, body=b"", **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        self.head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, **headers):
        self.send(200, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def fail(self, status, code, **headers):
        body = json.dumps({"error": code}).encode()
        self.send(status, body, **({"X_Error_Code": code, "X_Error_Message": f"the words of {code}"} if code else {}),
                  **headers)

    def is_faulty(self, kind):
        fault = self.hub.fault("fault")
        if not fault or fault[0] != kind:
            return False
        self.fail(fault[1], fault[2])
        return True

    # ---- Hugging Face ----

    def answer_api(self, path, query):
        hub = self.hub
        if hub.fault("html"):
            return self.send(200, b"<!DOCTYPE html><p>Log in", Content_Type="text/html")
        if hub.count("api") < hub.fault("limits", 0):
            headers = {"RateLimit": '"api";r=0;t=1'} if hub.fault("limit_header") == "RateLimit" else {}
            headers = headers or {"Retry_After": "1"}
            return self.fail(429, "", **headers)
        rest = path.removeprefix("/api/models/")
        if not rest.startswith(hub.name + "/"):
            return self.fail(404, "RepoNotFound")
        kind, _, what = rest[len(hub.name) + 1:].partition("/")
        if self.is_faulty(kind):
            return None
        if kind == "revision":
            if what not in ("main", hub.commit, "v1", "refs/pr/1"):
                return self.fail(404, "RevisionNotFound")
            return self.json({"id": hub.name, "sha": hub.commit, "gated": hub.fault("gated", False), "private": False,
                              "siblings": [{"rfilename": p} for p in hub.files],
                              "cardData": {"license": "apache-2.0"}, "lastModified": "2026-01-01T00:00:00.000Z"})
        entries, size = hub.entries(), hub.fault("page", 1000)
        begin = int(query.get("cursor", 0))
        headers = {}
        if begin + size < len(entries):
            link = hub.fault("next_link") or f"{hub.url}{self.path.split('?')[0]}?recursive=true&cursor={begin + size}"
            headers["Link"] = f'<{link}>; rel="next"'
        return self.json(entries[begin:begin + size], **headers)

    def answer_file(self, path):
        hub, moved = self.hub, path.startswith("/moved/")
        if path.startswith("/api/resolve-cache/"):
            path = path.removeprefix("/api/resolve-cache")
        prefix = f"/{hub.name}/resolve/{hub.commit}/"
        path = path.removeprefix("/moved") if moved else path
        name = path.removeprefix(prefix)
        if self.is_faulty("resolve"):
            return None
        if hub.fault("token") and self.headers.get("Authorization") != f"Bearer {hub.fault('token')}":
            return self.fail(401, "GatedRepo")
        if not path.startswith(prefix) or name not in hub.files:
            return self.fail(404, "EntryNotFound")
        if hub.fault("loop"):
            return self.send(302, Location=self.path)
        if hub.fault("to_http"):
            return self.send(302, Location=hub.fault("to_http"))
        if not moved and hub.fault("relative"):
            return self.send(307, Location="/moved" + self.path)
        if not moved and hub.fault("absolute"):
            return self.send(308, Location=f"{hub.url}/moved{self.path}")
        etag = ("0" if hub.fault("other_etag") else hub.etag(name)[0]) + hub.etag(name)[1:]
        headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if not is_large(name):
            return self.body(name, headers)
        with hub.lock:
            hub.signatures += 1
            signature = hub.signatures
        headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(hub.files[name].size),
                    "Location": f"{hub.cdn}/blob/{urllib.parse.quote(name)}?X-Amz-Expires=3600&s={signature}"}
        headers["ETag"] = '"0123456789abcdef0123456789abcdef"'
        return self.head(302, headers, 500 if self.command == "HEAD" else 0)

    # ---- the CDN ----

    def answer_large(self, name, query):
        hub = self.hub
        if self.role == "cdn" and hub.fault("third_host"):
            return self.send(302, Location=f"{hub.third}{self.path}")
        if hub.count("large") < hub.fault("errors", 0):
            return self.send(503)
        return self.body(name, {"Content-Type": "application/octet-stream"}, query.get("s", "0"))

    def wanted(self, size):
        """The first byte and the end that are asked for, and whether it is a range."""
        text = self.headers.get("Range")
        if not text or self.hub.fault("ignore_range"):
            return 0, size, False
        first, last = text.removeprefix("bytes=").split("-")
        return int(first), min(int(last) + 1 if last else size, size), True

    def body(self, name, headers, signature=None):
        hub, content = self.hub, self.hub.files[name]
        if hub.fault("html_files"):
            return self.send(200, b"<!DOCTYPE html><p>Log in", Content_Type="text/html")
        if signature and hub.fault("expires") and hub.served.get(signature, 0) >= hub.fault("expires"):
            return self.send(403)
        begin, end, is_range = self.wanted(content.size)
        if is_range:
            shift = 1 if hub.fault("wrong_range") else 0
            total = content.size + (1 if hub.fault("wrong_total") else 0)
            headers = {**headers, "Content-Range": f"bytes {begin + shift}-{end - 1}/{total}"}
        self.head(206 if is_range else 200, headers, end - begin)
        if self.command != "HEAD":
            self.stream(name, content, begin, end, signature)
        return None

    def stream(self, name, content, begin, end, signature):
        hub = self.hub
        large = is_large(name)
        flips = large and hub.fault("flips", 0) and begin == 0 and hub.count("flips") < hub.fault("flips")
        stalls = large and hub.fault("stalls") and hub.count("stalls") < hub.fault("stalls")
        sent, at = 0, begin
        while at < end:
            size = min(hub.fault("piece", 1 << 16), end - at)
            for limit in (hub.fault("reset") if large else 0, hub.fault("short") if large else 0):
                size = min(size, limit - sent) if limit else size
            if signature and hub.fault("expires"):
                size = min(size, hub.fault("expires") - hub.served.get(signature, 0))
            if size <= 0:
                self.cut()
            data = bytearray(content.read(at, size))
            if flips and at == begin:
                data[len(data) // 2] ^= 4
            self.wfile.write(data)
            at, sent = at + size, sent + size
            with hub.lock:
                hub.served[signature] = hub.served.get(signature, 0) + size
                hub.sent[name] = hub.sent.get(name, 0) + size
            if stalls and sent >= 100000:
                self.wfile.flush()
                time.sleep(60)  # nobody waits for this thread
                self.cut()
            if hub.fault("rate") and large:
                time.sleep(size / hub.fault("rate"))
        if large and hub.fault("no_length"):
            time.sleep(hub.fault("no_length"))

    def cut(self):
        self.wfile.flush()
        if self.hub.fault("reset"):  # RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        raise Cut

    # ---- ModelScope ----

    def answer_modelscope(self, path, query):
        hub = self.hub
        base = f"/api/v1/models/{hub.name}/repo"
        if query.get("Revision") != "master" or path not in (base, base + "/files"):
            return self.send(404, json.dumps({"Code": 404, "Success": False, "Message": "no"}).encode())
        if path == base:
            name = query["FilePath"]
            if is_large(name):
                return self.send(302, Location=f"{hub.cdn}/blob/{urllib.parse.quote(name)}?s=1")
            return self.body(name, {})
        root = query["Root"] + "/" if "Root" in query else ""
        files, folders = [], set()
        for name, content in sorted(hub.files.items()):
            rest = name.removeprefix(root)
            if not name.startswith(root):
                continue
            if "/" in rest:
                folders.add(root + rest.split("/")[0])
            if "/" not in rest or query["Recursive"] == "True":
                files.append({"Path": name, "Name": name.split("/")[-1], "Type": "blob", "Size": content.size,
                              "Sha256": content.sha256, "Revision": "abc"})
        files += [{"Path": f, "Name": f, "Type": "tree", "Size": 0, "Sha256": ""} for f in sorted(folders)]
        return self.json({"Code": 200, "Success": True, "Data": {"Files": files}})


def folder_files(folder):
    files = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, folder)] = Bytes(file.read())
    return files


if __name__ == "__main__":
    values = {k: json.loads(v or "true") for k, _, v in (a.partition("=") for a in sys.argv[2:])}
    with Hub(folder_files(sys.argv[1]), **values) as served:
        print(f"HF_ENDPOINT={served.url}", flush=True)
        threading.Event().wait()
