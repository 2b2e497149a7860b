"""200 clients, 4 workers, two fronts; workers and a front are killed at random. Each client gets its own picture or a
definite error, and no id is lost. Prints its figures."""
import base64
import collections
import http.client
import json
import os
import random
import struct
import sys
import threading
import time
import zlib

from check_service import SMALL, service
from database import Database, run_tests, wait_for
from harness import Server

CLIENTS, WORKERS, SECONDS = 200, 4, float(os.environ.get("ZIMAGE_CHAOS_SECONDS", "40"))
NAMES = [f"client{i}" for i in range(60)]  # keys; some clients share one


def recipe_of(data):
    """The recipe in a PNG file, whose every chunk is whole."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, recipe = 8, None
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(kind + body)
        if kind in (b"iTXt", b"tEXt") and body.startswith(b"zimage\0"):
            text = body.split(b"\0")[-1]
            recipe = json.loads(text[text.index(b"{"):])
        at += 12 + size
    return recipe


class Client(threading.Thread):
    """Asks for one picture after the other, each with a prompt of its own, until the time is over."""

    def __init__(self, number, ports, end):
        super().__init__()
        self.number, self.ports, self.end = number, ports, end
        self.key = f"key-{NAMES[number % len(NAMES)]}-0123456789"
        self.counts, self.faults, self.jobs, self.asked = collections.Counter(), [], {}, 0

    def send(self, method, path, body=None, headers=None):
        """(status, content); status 0: the front was killed meanwhile."""
        connection = http.client.HTTPConnection("127.0.0.1", random.choice(self.ports), timeout=600)  # all wait in one queue
        try:
            connection.request(method, path, json.dumps(body) if body else None,
                               {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json",
                                **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def check(self, data, prompt):
        recipe = recipe_of(data)
        if recipe["prompt"] != prompt:
            self.faults.append(f"asked for {prompt!r}, got {recipe['prompt']!r}")
        self.counts["pictures"] += 1

    def note(self, status, content):
        """A definite error has a code of ours."""
        if status == 0:
            self.counts["connection lost"] += 1
        else:
            self.counts[json.loads(content)["error"]["code"]] += 1
        time.sleep(0.2)

    def openai(self, body):
        headers = {"Idempotency-Key": f"{self.number}-{self.asked}"} if self.number % 3 == 0 else {}
        for _ in range(20 if headers else 1):  # whoever names its request repeats it
            status, content = self.send("POST", "/v1/images/generations", body, headers)
            if status == 200:
                return self.check(base64.b64decode(json.loads(content)["data"][0]["b64_json"]), body["prompt"])
            self.note(status, content)
        return None

    def job(self, body):
        status, content = self.send("POST", "/zimage/v1/jobs", body)
        if status != 202:
            return self.note(status, content)
        self.jobs[json.loads(content)["id"]] = body["prompt"]
        self.counts["ids"] += 1
        return None

    def run(self):
        try:
            while time.monotonic() < self.end:
                self.asked += 1
                body = {**SMALL, "prompt": f"picture {self.asked} of client {self.number}", "seed": self.asked}
                (self.job if self.number % 2 else self.openai)(body)
                time.sleep(10 * random.random())
            for id, prompt in self.jobs.items():
                self.fetch(id, prompt)
        except Exception as error:  # pylint: disable=broad-except
            self.faults.append(f"{type(error).__name__}: {error}")

    def fetch(self, id, prompt):
        for _ in range(50):
            status, content = self.send("GET", f"/zimage/v1/jobs/{id}?wait=60")
            job = json.loads(content) if status == 200 else {}
            if job.get("state") == "completed":
                status, content = self.send("GET", job["pictures"][0]["url"])
                if status == 200:
                    return self.check(content, prompt)
            elif job.get("state") == "failed":
                self.counts[job["error"]["code"]] += 1
                return None
            elif status == 404:
                return self.faults.append(f"{id} is lost")
            time.sleep(0.3)
        return self.faults.append(f"{id}: {status} {content[:200]}")


def test_chaos(database):
    with service(database) as s:
        path = f"{s.folder}.keys"
        with open(path, "w") as file:
            file.write("".join(f"{name}:key-{name}-0123456789\n" for name in NAMES))
        options = ["--api-key-file", path, "--max-queue", "2000", "--max-wait", "3600", "--per-address", "1000", "-q"]
        for _ in range(WORKERS):
            s.worker(lease=3)
        wait_for("the workers", lambda: s.announced() == WORKERS)
        fronts = [s.front(*options) for _ in range(2)]
        ports = [front.port for front in fronts]
        begin = time.monotonic()
        clients = [Client(i, ports, begin + SECONDS) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        kills = front_kills = 0
        while time.monotonic() - begin < SECONDS:
            time.sleep(2)
            place = random.randrange(WORKERS)
            s.workers[place].kill()
            s.workers[place].wait()
            s.workers.pop(place).log.close()
            s.worker(lease=3)
            kills += 1
            if kills % 4 == 0:
                fronts[0].process.kill()
                fronts[0].process.wait()
                fronts[0].is_terminated = True
                s.fronts.remove(fronts[0])
                fronts[0] = s.front(*options, port=ports[0])
                front_kills += 1
        for client in clients:
            client.join()
        faults = [fault for client in clients for fault in client.faults]
        counts = sum((client.counts for client in clients), collections.Counter())
        wait_for("the end of all jobs", lambda: not {"queued", "running"} & set(s.states()), 300, 0.5)
        states, attempts = s.states(), database.number("select sum(attempts) from zimage.job")
        seconds = time.monotonic() - begin
        os.unlink(path)
        print(f"  {CLIENTS} clients, {WORKERS} workers, {kills} workers and {front_kills} fronts killed in {SECONDS:.0f} s;"
              f" after {seconds:.0f} s: {dict(counts)}; rows {states}, {attempts} attempts; faults: {len(faults)}", flush=True)
        assert not faults, faults[:5]
        assert counts["pictures"] >= counts["ids"] > CLIENTS / 2 and counts["pictures"] > counts["ids"]
        owners = database.rows("select count(*) from (select j.caller from zimage.job j join zimage.service s on"
                               " s.id = j.service where j.caller not like s.owner || '/%') o")
        assert owners == [["0"]], owners


def test_delay(database):
    """What the ledger adds to a picture: the same requests, one after the other, with a worker and without."""
    with service(database) as s:
        s.with_worker()
        front = s.front("-q")
        with Server(sys.argv[1], "--device", "cpu", "--threads", "1", "-q") as alone:
            times = {}
            for name, server in (("alone", alone), ("front", front)):
                server.json("POST", "/v1/images/generations", SMALL)
                begin = time.monotonic()
                for seed in range(40):
                    server.json("POST", "/v1/images/generations", {**SMALL, "seed": seed})
                times[name] = (time.monotonic() - begin) / 40
            print(f"  64x64, 2 steps: {1000 * times['alone']:.0f} ms a picture on one machine, "
                  f"{1000 * times['front']:.0f} ms through a front, a ledger and a worker", flush=True)


if __name__ == "__main__":
    with Database() as the_database:
        code = run_tests(sys.modules[__name__], the_database)
    sys.exit(code)
