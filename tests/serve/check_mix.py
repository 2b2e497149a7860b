"""Mixed traffic on zimage serve, by many clients that cancel and go away: check_mix.py PROGRAM SECONDS

The model is a tiny one, so that what the server does is most of the work, also under a sanitizer.

Every answer has a status of the table below, a seed makes the same image whenever it is asked for, and in the end the
server is idle and holds nothing. It ends with exit code 0, which a sanitizer would change.
"""
import base64
import collections
import http.client
import json
import random
import socket
import sys
import tempfile
import threading
import time

from harness import TINY, Server, events, form, png, send_only, status_of

CLIENTS = 8
SIZES = ["32x32", "48x32", "64x64"]
GENERATIONS, EDITS, JOBS = "/v1/images/generations", "/v1/images/edits", "/zimage/v1/jobs"
PICTURE = png(64, 64, lambda x, y: (4 * x, 4 * y, 128))
MASK = png(64, 64, lambda x, y: (0, 0, 0, 0 if x < 32 else 255))
INLINE = base64.b64encode(PICTURE).decode()
READS = ("/health", "/metrics", "/slots", "/props", "/openapi.json", "/", "/v1/models", "/sdapi/v1/progress", JOBS,
         "/sdapi/v1/options", "/no-such", JOBS + "/none", "/v1/files/none-0.png")


class Client(threading.Thread):
    """One of the callers: does one thing after the other, as its dice say, until the time is over."""

    def __init__(self, server, number, end, images, counts):
        super().__init__(daemon=True)
        self.server, self.number, self.end, self.images, self.counts = server, number, end, images, counts
        self.dice, self.failure, self.slowest = random.Random(number), None, 0

    def run(self):
        actions = [self.generate, self.leave, self.leave_half, self.stream, self.edit, self.sdapi, self.job,
                   self.refuse, self.read, self.repeat, self.recipe]
        try:
            while time.monotonic() < self.end:
                action = self.dice.choice(actions)
                start = time.monotonic()
                action()
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.counts[action.__name__] += 1
        except Exception as error:  # noqa: the main thread reports it
            self.failure = f"client {self.number}, {action.__name__}: {type(error).__name__}: {error}"

    def body(self, **more):
        seed = self.dice.randrange(12)
        return {"prompt": "a red apple", "size": self.dice.choice(SIZES), "seed": seed,
                "steps": self.dice.randint(1, 4),
                "model": "two" if self.dice.random() < 0.03 else "one",
                "user": self.dice.choice(["ann", "bob"]), **more}

    def ask(self, method, path, body=None, headers=None, statuses=(200,)):
        answer = self.server.request(method, path, body, headers)
        assert answer.status in statuses, f"{method} {path}: {answer.status} {answer.body[:300]!r}"
        return answer

    def keep(self, body, image, index=0):
        """The same request makes the same image. Both models are the same folder."""
        key = (body["size"], body["steps"], body["seed"] + index)
        assert self.images.setdefault(key, image) == image, f"another image of {key}"

    def generate(self):
        body = self.body(n=self.dice.randint(1, 2), embed_recipe=False)
        body["priority"] = self.dice.choice(["batch", "interactive"])
        answer = self.ask("POST", GENERATIONS, body, statuses=(200, 429))
        if answer.status == 200:
            for index, data in enumerate(json.loads(answer.body)["data"]):
                self.keep(body, data["b64_json"], index)

    def leave(self):
        """Sends a request, and leaves while it waits, is computed, or is sent."""
        connection = send_only(self.server, GENERATIONS, self.body(n=2, stream=self.dice.random() < 0.5))
        time.sleep(self.dice.random() * 0.2)
        if self.dice.random() < 0.3:
            connection.settimeout(0.2)
            try:
                connection.recv(100)
            except TimeoutError:
                pass
        if self.dice.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        connection.close()

    def leave_half(self):
        connection = send_only(self.server, GENERATIONS, self.body(), self.dice.randrange(1, 200))
        time.sleep(self.dice.random() * 0.05)
        connection.close()

    def stream(self):
        body = self.body(stream=True, partial_images=self.dice.randint(0, 3), progress=True, embed_recipe=False)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=self.server.patience)
        connection.request("POST", GENERATIONS, json.dumps(body), {"Content-Type": "application/json"})
        answer, patience = connection.getresponse(), self.dice.randint(0, 12)
        assert answer.status in (200, 429), answer.status
        for number, (kind, data) in enumerate(events(answer)):
            if kind == "image_generation.completed":
                self.keep(body, json.loads(data)["b64_json"])
            assert kind != "error", data
            if number == patience:
                break
        connection.close()

    def edit(self):
        parts = [(name, str(value)) for name, value in self.body(strength=0.6).items()]
        parts += [("image", self.dice.choice([PICTURE, PICTURE, PICTURE[:200], b"<svg></svg>"]), "a.png")]
        parts += [("mask", MASK, "m.png")] if self.dice.random() < 0.5 else []
        data, headers = form(parts)
        if self.dice.random() < 0.2:  # half an upload
            with self.server.socket() as connection:
                head = f"POST {EDITS} HTTP/1.1\r\nHost: 127.0.0.1:{self.server.port}\r\nContent-Length: {len(data)}\r\n"
                head += f"Content-Type: {headers['Content-Type']}\r\n\r\n"
                connection.sendall(head.encode() + data[:self.dice.randrange(len(data))])
            return
        self.ask("POST", EDITS, data, headers, (200, 400, 429))

    def sdapi(self):
        body = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "cfg_scale": 7, "unknown": [1]}
        path = self.dice.choice(["txt2img", "img2img", "interrupt"])
        if path == "img2img":
            body |= {"init_images": [INLINE], "denoising_strength": 0.5}
        self.ask("POST", "/sdapi/v1/" + path, b"" if path == "interrupt" else body, statuses=(200, 409, 429))

    def job(self):
        answer = self.ask("POST", JOBS, self.body(n=self.dice.randint(1, 3)), statuses=(202, 429))
        if answer.status != 202:
            return
        address = f"{JOBS}/{json.loads(answer.body)['id']}"
        if self.dice.random() < 0.4:
            time.sleep(self.dice.random() * 0.3)
            self.ask("DELETE", address, statuses=(200, 409))
        elif self.dice.random() < 0.5:
            seen = [kind for kind, _ in events(self.ask("GET", address + "/events").body.splitlines(True))]
            assert seen[-1] == "end", seen
        done = {"state": "queued"}
        while done["state"] in ("queued", "running"):
            done = json.loads(self.ask("GET", address + "?wait=10").body)
        assert done["state"] in ("completed", "cancelled"), done
        for picture in done["pictures"]:
            self.ask("GET", picture["url"])

    def refuse(self):
        bad = self.dice.choice([{"size": "65x64"}, {"steps": 0}, {"sed": 1}, {"model": "none"}, {"n": 11}])
        self.ask("POST", GENERATIONS, self.body(**bad), statuses=(400, 404))
        self.ask("POST", GENERATIONS, b"{", {"Content-Type": "application/json"}, (400,))
        self.ask("POST", JOBS, b"--x", {"Content-Type": "multipart/form-data; boundary=xx"}, (400,))
        self.ask("GET", "/health", headers={"Host": "evil.example"}, statuses=(403,))

    def read(self):
        self.ask("GET", self.dice.choice(READS), statuses=(200, 404))

    def repeat(self):
        """Clients repeat a request: they get one job's answer."""
        body = self.body(seed=self.dice.randrange(3), size="64x64", steps=1, model="one", user="ann")
        key = {"Idempotency-Key": f"{body['seed']}-{int(time.monotonic()) // 3}"}
        self.ask("POST", GENERATIONS, body, key, (200, 429))

    def recipe(self):
        self.ask("POST", "/zimage/v1/recipe", self.dice.choice([PICTURE, b"no image"]), statuses=(400, 404))
        self.ask("POST", "/zimage/v1/plan", self.body(), statuses=(200,))


def measure_health(server, end, times):
    while time.monotonic() < end:
        start = time.monotonic()
        server.get("/health")
        times.append(time.monotonic() - start)
        time.sleep(0.05)


def main():
    program, seconds = sys.argv[1], float(sys.argv[2])
    options = ["-m", f"one={TINY}", "-m", f"two={TINY}", "--threads", "1", "--store-bytes", "1M", "--max-queue", "12"]
    with tempfile.TemporaryDirectory() as cache, Server(program, *options, "--cache-dir", cache, "--quiet") as s:
        s.patience = seconds + 600  # others are always before a job of the lower class
        before, end, images, counts, times = status_of(s), time.monotonic() + seconds, {}, collections.Counter(), []
        clients = [Client(s, number, end, images, counts) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        measure_health(s, end, times)
        for client in clients:
            client.join(s.patience)
        failures = [c.failure or f"client {c.number} got no answer" for c in clients if c.failure or c.is_alive()]
        assert not failures, "\n".join(failures)
        s.wait_for("no connections", lambda: s.metric("zimage_connections") == 1, 60)
        s.wait_until_idle()
        assert s.metric("zimage_streams") == s.metric("zimage_upload_bytes_in_flight") == 0
        for name in "interactive", "batch":
            assert s.metric(f'zimage_queue_length{{class="{name}"}}') == 0
        assert s.metric('zimage_jobs_total{outcome="failed"}') == 0
        after, times = status_of(s), sorted(times)
        assert after[0] <= before[0] + 8, f"open files: {before[0]} before, {after[0]} after"
        done = {name: int(s.metric(f'zimage_jobs_total{{outcome="{name}"}}')) for name in (
            "completed", "cancelled", "refused")}
        print(f"mixed traffic, {seconds:.0f} s: {sum(counts.values())} actions of {CLIENTS} clients, jobs: {done}; "
              f"{len(images)} different images, each always the same; open files {before[0]} -> {after[0]}, resident "
              f"{before[1] // 1024} -> {after[1] // 1024} MiB; /health: median {times[len(times) // 2] * 1000:.1f} ms, "
              f"99 %: {times[int(len(times) * 0.99)] * 1000:.1f} ms, most {times[-1] * 1000:.1f} ms; slowest action "
              f"{max(c.slowest for c in clients):.1f} s")


main()
