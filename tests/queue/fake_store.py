"""An S3-compatible store for a test, on loopback: objects in memory, AWS Signature Version 4 checked as Amazon's
documentation describes it, "If-None-Match: *", and faults on request. Standard library only."""
import hashlib
import hmac
import http.server
import threading
import urllib.parse

KEY, SECRET, REGION, BUCKET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-test-1", "a-bucket"


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(method, path, headers, signed, payload_hash, date):
    """Of a request without a query."""
    canonical = "\n".join([method, path, "", *(f"{name}:{' '.join(headers[name].split())}" for name in signed), "",
                           ";".join(signed), payload_hash])
    day, scope = date[:8], f"{date[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = mac(mac(mac(mac(f"AWS4{SECRET}".encode(), day), REGION), "s3"), "aws4_request")
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, code, message="some words"):
        self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
                    .encode(), Content_Type="application/xml")

    def is_signed(self, body):
        headers = {name.lower(): value for name, value in self.headers.items()}
        head = headers.get("authorization", "")
        if not head.startswith("AWS4-HMAC-SHA256 "):
            return False
        parts = dict(part.strip().split("=", 1) for part in head[17:].split(","))
        signed = parts["SignedHeaders"].split(";")
        given = [name for name in headers if name.startswith("x-amz-")] + ["host"]
        return (parts["Credential"] == f"{KEY}/{headers['x-amz-date'][:8]}/{REGION}/s3/aws4_request"
                and set(given) <= set(signed) and signed == sorted(signed)
                and headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
                and hmac.compare_digest(parts["Signature"],
                                        signature(self.command, self.path, headers, signed,
                                                  headers["x-amz-content-sha256"], headers["x-amz-date"])))

    def serve(self):
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _, name = urllib.parse.unquote(self.path[1:]).partition("/")
        with store.lock:
            store.requests.append((self.command, name))
            fault = store.faults.pop(0) if store.faults and name.startswith(store.faults_of) else None
            if isinstance(fault, int):
                return self.refuse(fault, "SlowDown")
            if not self.is_signed(body):
                return self.refuse(403, "SignatureDoesNotMatch", "The signature does not match.")
            if bucket != BUCKET:
                return self.refuse(404, "NoSuchBucket")
            getattr(self, f"serve_{self.command}")(store, name, body, fault)

    do_GET = do_PUT = do_DELETE = serve  # noqa: names of http.server

    def serve_PUT(self, store, name, body, fault):
        if name in store.objects and self.headers.get("If-None-Match") == "*" and not store.overwrites:
            return self.refuse(412, "PreconditionFailed")
        store.objects[name] = (body, self.headers["Content-Type"])
        if fault == "cut":  # stored, and nobody is told
            self.close_connection = True
            return self.connection.close()
        return self.answer(200)

    def serve_GET(self, store, name, body, fault):
        if name not in store.objects:
            return self.refuse(404, "NoSuchKey")
        data, kind = store.objects[name]
        asked = self.headers.get("Range")
        if not asked:
            return self.answer(200, data, Content_Type=kind)
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return self.refuse(416, "InvalidRange")
        return self.answer(206, data[first:last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")

    def serve_DELETE(self, store, name, body, fault):
        store.objects.pop(name, None)
        return self.answer(204)


class Store:
    """`with Store() as store:`; faults: what the next requests get, a status or "cut"; overwrites: it does not know
    If-None-Match."""

    def __init__(self):
        self.objects, self.requests, self.faults, self.faults_of, self.overwrites = {}, [], [], "", False
        self.lock = threading.Lock()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.store = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.environment = {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                            "AWS_REGION": REGION}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused):
        self.server.shutdown()
        self.server.server_close()
