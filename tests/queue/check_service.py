"""Tests of zimage serve --queue: fronts without state, workers, and a ledger between them."""
import base64
import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../serve"))

from database import Database, check_inputs, forgetful, results, run_tests, wait_for  # noqa: the path is set above
from harness import Server, events, form, png, png_of, send_only, slow_side  # noqa: the same

PROGRAM = sys.argv[1]
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden")
SMALL = {"prompt": "a red apple", "size": "64x64", "steps": 2, "seed": 7}
SIDE = slow_side(PROGRAM, 2)  # up to four times as long: what happens to a job in between has time to happen
SLOW = {"prompt": "a red apple", "size": f"{SIDE}x{SIDE}", "steps": 32, "seed": 7}
STEPS = {"prompt": "a red apple", "size": "64x64", "steps": 8, "seed": 7}
KEYS = {"anna": "key-of-anna-0123456789", "bert": "key-of-bert-0123456789"}


class Service:
    """A ledger, a folder of results, fronts and workers; all of them end with it."""

    def __init__(self, database, folder):
        self.database, self.folder, self.workers, self.fronts = database, folder, [], []
        subprocess.run([PROGRAM, "queue", "init", "--queue", database.url], check=True, stdout=subprocess.DEVNULL)

    def worker(self, *options, lease=2):
        log = tempfile.TemporaryFile("w+")
        process = subprocess.Popen([PROGRAM, "work", "--queue", self.database.url, "--out-dir", self.folder, "--threads",
                                    "1", "--device", "cpu", "--lease", str(lease), "--claim", "1", *options],
                                   stdout=subprocess.DEVNULL, stderr=log)
        process.log = log
        self.workers.append(process)
        return process

    def announced(self):
        return self.database.number("select count(*) from zimage.worker where expected_until > now()")

    def front(self, *options, port=0, **more):
        kind = type("Front", (Server,), {"where": ("--port", str(port))})
        front = kind(PROGRAM, "--queue", self.database.url, "--results", self.folder, *options, **more)
        self.fronts.append(front)
        return front

    def with_worker(self, *options):
        self.worker(*options)
        wait_for("a worker", lambda: self.announced() > 0)
        return self

    def absent_worker(self, front, **headers):
        """One that the fronts know, and that makes nothing."""
        worker = self.worker(lease=60)
        wait_for("a worker", lambda: self.announced() > 0)
        worker.kill()
        front.wait_for("its news", lambda: json.loads(front.get("/v1/models", **headers).body)
                       ["data"][0]["meta"].get("workers") == 1)

    def states(self):
        return self.database.states()

    def end(self):
        for front in self.fronts:
            code = front.stop() if front.process.poll() is None else 0
            assert code == 0, f"a front ended with {code}: {front.errors[-2000:]}"
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            worker.log.seek(0)
            said = worker.log.read()
            worker.log.close()
            assert "Sanitizer" not in said and "runtime error" not in said, said


@contextlib.contextmanager
def service(database):
    with results() as folder:
        made = Service(database, folder)
        try:
            yield made
        finally:
            made.end()
            database.rows("drop schema zimage cascade")


def key_file(folder):
    path = f"{folder}/keys"
    with open(path, "w") as file:
        file.write("".join(f"{name}:{key}\n" for name, key in KEYS.items()))
    os.chmod(path, 0o600)
    return path


def bearer(name):
    return {"Authorization": f"Bearer {KEYS[name]}"}


PICTURE = png(64, 64, lambda x, y: (4 * x, 4 * y, 128))
OTHER = png(64, 64, lambda x, y: (4 * y, 200, 4 * x))
MASK = png(64, 64, lambda x, y: (0, 0, 0, 4 * x))  # what is transparent is repainted


def edit(*files, **fields):
    """A form of an edit: body and headers. files: images, and pairs of a name and a file."""
    named = [file if isinstance(file, tuple) else ("image", file) for file in files]
    return form([*({"prompt": "a red apple", "steps": "2", "seed": "7", **fields}).items(),
                 *((name, data, "../../x.png") for name, data in named)])


def image_of(answer):
    return base64.b64decode(answer["data"][0]["b64_json"])


def test_same_bytes_as_one_machine(database):
    """Through each dialect: what a server of one machine sends, and what zimage generate writes."""
    asked = [{**SMALL, "seed": str(2**63 + 5)}, {**SMALL, "output_format": "jpeg", "output_compression": 80},
             {**SMALL, "output_format": "webp", "n": 2}, {**SMALL, "prompt": "h\u00e9 \\ \" \u732b", "size": "64x96"}]
    with service(database) as s, results() as own:
        s.with_worker()
        front = s.front()
        with Server(PROGRAM, "--device", "cpu", "--threads", "1") as alone:
            for request in asked:
                theirs = front.json("POST", "/v1/images/generations", request)
                ours = alone.json("POST", "/v1/images/generations", request)
                assert [i["b64_json"] for i in theirs["data"]] == [i["b64_json"] for i in ours["data"]], request
                for name in ("size", "output_format", "usage", "warnings", "ignored", "model"):
                    assert theirs[name] == ours[name], (name, theirs[name], ours[name])
                assert [i["seed"] for i in theirs["data"]] == [i["seed"] for i in ours["data"]]
            request = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 7}
            theirs, ours = (server.json("POST", "/sdapi/v1/txt2img", request) for server in (front, alone))
            assert theirs["images"] == ours["images"] and theirs["info"] == ours["info"]
        subprocess.run([PROGRAM, "generate", "-p", "a red apple", "--size", "64x64", "--steps", "2", "--seed", "7", "-o",
                        f"{own}/a.png", "--device", "cpu", "--threads", "1", "-q"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        with open(f"{own}/a.png", "rb") as file:
            assert file.read() == base64.b64decode(theirs["images"][0])
        job = front.json("POST", "/zimage/v1/jobs", SMALL, 202)
        job = front.json("GET", f"/zimage/v1/jobs/{job['id']}?wait=60")
        assert job["state"] == "completed", job
        assert front.get(job["pictures"][0]["url"]).body == base64.b64decode(theirs["images"][0])
        thumb = front.get(job["pictures"][0]["url"] + "?thumb=256")
        assert thumb.body[:2] == b"\xff\xd8"
        stream = front.post("/v1/images/generations", {**SMALL, "stream": True})
        kinds = [kind for kind, _ in events(stream.body.splitlines(True))]
        assert kinds[-2:] == ["image_generation.completed", None] or "image_generation.completed" in kinds, kinds


def test_another_front_knows_the_job(database):
    """A job of a front that is killed: found by its caller on another one, and by nobody else."""
    with service(database) as s:
        keys = ("--api-key-file", key_file(s.folder))
        worker = s.worker()
        wait_for("a worker", lambda: s.announced() > 0)
        first, second = s.front(*keys), s.front(*keys)
        worker.kill()  # it is expected back for some minutes
        worker.wait()
        made = first.json("POST", "/zimage/v1/jobs", {**SMALL, "n": 2}, 202, bearer("anna"))
        assert made["state"] == "queued" and made["position"] == 0, made
        path = f"/zimage/v1/jobs/{made['id']}"
        first.process.kill()
        first.process.wait()
        first.is_terminated = True
        job = second.json("GET", path, headers=bearer("anna"))
        assert job["state"] == "queued" and job["request"]["prompt"] == "a red apple" and job["position"] == 0, job
        listed = second.json("GET", "/zimage/v1/jobs", headers=bearer("anna"))["jobs"]
        assert [j["id"] for j in listed] == [made["id"]], listed
        assert second.json("GET", "/zimage/v1/jobs", headers=bearer("bert"))["jobs"] == []
        third = s.front(*keys)  # has never seen it
        for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/pictures/0")):
            for front in second, third:
                front.fault(method, path + rest, 404, "job_not_found", headers=bearer("bert"))
        third.fault("GET", path + "/pictures/0", 404, "job_not_found", headers=bearer("anna"))
        s.worker()
        job = third.json("GET", path + "?wait=60", headers=bearer("anna"))
        assert job["state"] == "completed" and len(job["pictures"]) == 2, job
        pictures = [third.request("GET", p["url"], headers=bearer("anna")).body for p in job["pictures"]]
        assert len(set(pictures)) == 2 and all(p[:4] == b"\x89PNG" for p in pictures)
        assert second.json("GET", path + "?wait=60", headers=bearer("anna"))["state"] == "completed"
        third.fault("DELETE", path, 409, "job_finished", headers=bearer("anna"))
        kinds = [kind for kind, _ in events(second.request("GET", path + "/events", headers=bearer("anna"))
                                            .body.splitlines(True))]
        assert kinds[-1] == "end" and kinds.count("picture") == 2, kinds

        def stream(front, last):
            answer = front.request("GET", path + "/events", headers={**bearer("anna"), "Last-Event-ID": last})
            return answer.body, [line[4:].decode() for line in answer.body.splitlines() if line.startswith(b"id: ")]

        numbers = stream(second, "0")[1]
        assert stream(second, numbers[-2])[1] == numbers[-1:]
        assert stream(third, numbers[-2])[0].count(b"event: picture") == 2  # it has other numbers, and sends all
        fourth = s.front(*keys)  # an address of a picture is a secret of its own
        assert fourth.get(f"/v1/files/{made['id']}-1.png").body == pictures[1]
        fourth.fault("GET", path, 404, "job_not_found", headers=bearer("bert"))
        assert fourth.json("GET", path, headers=bearer("anna"))["state"] == "completed"


def test_cancelling(database):
    """A client that goes away, and a DELETE on another front: the row is cancelled, and the worker stops."""
    with service(database) as s:
        s.with_worker()
        first, second = s.front(), s.front()
        connection = send_only(first, "/v1/images/generations", SLOW)
        wait_for("the beginning", lambda: s.states() == {"running": 1})
        connection.close()
        wait_for("the end", lambda: s.states() == {"cancelled": 1})
        job = first.json("POST", "/zimage/v1/jobs", {**SLOW, "n": 2}, 202)
        wait_for("the beginning", lambda: s.states().get("running") == 1)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(first.json, "GET", f"/zimage/v1/jobs/{job['id']}?wait=60")
            ended = second.json("DELETE", f"/zimage/v1/jobs/{job['id']}")
            assert ended["state"] == "cancelled", ended
            assert waiting.result()["state"] == "cancelled"
        assert s.states() == {"cancelled": 3}
        begin = time.monotonic()  # the worker is free after a heartbeat
        first.json("POST", "/v1/images/generations", SMALL)
        assert time.monotonic() - begin < 10
        kept = send_only(first, "/v1/images/generations", {**SLOW, "steps": 8, "seed": 1})
        wait_for("the beginning", lambda: s.states().get("running") == 1)
        first.terminate()  # somebody waits: it ends behind the picture
        assert b"HTTP/1.1 200" in kept.recv(100)
        kept.close()


def test_idempotency(database):
    """One name of a request on several fronts at once: one job."""
    with service(database) as s:
        keys = ("--api-key-file", key_file(s.folder))
        s.with_worker()
        fronts = [s.front(*keys) for _ in range(3)]

        def post(front, who, body):
            return front.request("POST", "/v1/images/generations", body, {**bearer(who), "Idempotency-Key": "k-1"})

        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            answers = [task.result() for task in [pool.submit(post, fronts[i % 3], "anna", SMALL) for i in range(9)]]
        assert [answer.status for answer in answers] == [200] * 9, [answer.body[:200] for answer in answers]
        assert len({json.loads(answer.body)["id"] for answer in answers}) == 1
        assert len({image_of(json.loads(answer.body)) for answer in answers}) == 1
        assert s.states() == {"done": 1}
        for front in fronts:
            other = post(front, "anna", {**SMALL, "seed": 8})
            assert other.status == 409 and b"idempotency_mismatch" in other.body, other.body
        assert post(fronts[0], "bert", {**SMALL, "seed": 9}).status == 200  # another's name is another name
        assert s.states() == {"done": 2}
        connection = send_only(fronts[1], "/v1/images/generations", SMALL, cut=10)
        connection.close()


def test_faults(database):
    """What a worker says of a job, and what a front does not pass on."""
    with service(database) as s:
        front = s.front()
        front.fault("POST", "/v1/images/generations", 503, "no_worker", SMALL)
        assert front.json("GET", "/v1/models")["data"][0]["meta"]["workers"] == 0
        s.absent_worker(front)
        front.fault("POST", "/v1/images/generations", 400, "invalid_value", {**SMALL, "size": "65x64"})
        front.fault("POST", "/v1/images/generations", 404, "model_not_found", {**SMALL, "model": "none"})
        for status, sentence, code, http_status, shown in (
                ("not finite", "layer 3: a NaN", "not_finite", 500, "layer 3: a NaN"),
                ("invalid argument", "prompt: too odd", "invalid_value", 400, "prompt: too odd"),
                ("file error", "/home/secret/x: gone", "internal_error", 500, "log"),
                (None, "its worker ended or hung; it was host/7", "internal_error", 500, "log")):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                waiting = pool.submit(front.fault, "POST", "/v1/images/generations", http_status, code,
                                      {**SMALL, "n": 2})
                wait_for("the rows", lambda: s.states().get("queued") == 2)
                result = f"'{json.dumps({'status': status})}'" if status else "null"
                database.rows(f"update zimage.job set state = 'failed', error = '{sentence}', result = {result}"
                              " where state = 'queued' and part = 1")
                error = waiting.result()
            assert shown in error["message"] and "secret" not in error["message"], error
            assert "host/7" not in error["message"], error
            wait_for("the other one", lambda: not s.states().get("queued"))  # nobody needs it


def test_files(database):
    """A file that a network shows late, one that is gone, and one of a worker that packs."""
    with service(database) as s:
        s.with_worker()
        front, other = s.front(), s.front()
        job = front.json("POST", "/zimage/v1/jobs", SMALL, 202)["id"]
        front.json("GET", f"/zimage/v1/jobs/{job}?wait=60")
        picture = front.get(f"/zimage/v1/jobs/{job}/pictures/0").body
        path = f"{s.folder}/{database.one('select result ->> $$file$$ from zimage.job')}"
        os.rename(path, path + ".away")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            late = pool.submit(other.json, "GET", f"/zimage/v1/jobs/{job}?wait=60")
            time.sleep(1)
            os.rename(path + ".away", path)
            assert late.result()["state"] == "completed"
        with open(path, "r+b") as file:
            file.write(b"\x89PNX")
        third = s.front()
        gone = third.json("GET", f"/zimage/v1/jobs/{job}?wait=60")
        assert gone["state"] == "failed" and "not there any more" in gone["error"]["message"], gone
        s.workers[0].terminate()
        s.workers[0].wait()
        s.workers.append(subprocess.Popen([PROGRAM, "work", "--queue", database.url, "--pack", s.folder, "--threads",
                                           "1", "--device", "cpu", "-q"], stderr=subprocess.DEVNULL))
        s.workers[-1].log = tempfile.TemporaryFile("w+")
        assert image_of(front.json("POST", "/v1/images/generations", SMALL)) == picture


def generate(folder, *options, **files):
    """What zimage generate makes, without a recipe: input images have names in it."""
    for name, data in files.items():
        with open(f"{folder}/{name}.png", "wb") as file:
            file.write(data)
    subprocess.run([os.path.abspath(PROGRAM), "generate", "-p", "a red apple", "--steps", "2", "--seed", "7", "-o",
                    "made.png", "--device", "cpu", "--threads", "1", "-q", "--no-metadata", *options], check=True,
                   cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(f"{folder}/made.png", "rb") as file:
        return file.read()


def test_input_images(database):
    """Through each dialect what a server of one machine sends, and what zimage generate writes."""
    base = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 4, "seed": 7, "denoising_strength": 0.5}
    encoded, grey = (base64.b64encode(data).decode() for data in (PICTURE, png(64, 64, lambda x, y: (4 * x,) * 3)))
    asked = [("/v1/images/edits", *edit(PICTURE)), ("/v1/images/edits", *edit(PICTURE, n="2", output_format="webp")),
             ("/v1/images/edits", *edit(PICTURE, ("mask", MASK), composite="true")),
             ("/v1/images/edits", *edit(MASK, strength="0.5")),
             ("/sdapi/v1/img2img", {**base, "init_images": [encoded], "mask": grey, "inpainting_mask_invert": 1}, {})]
    with service(database) as s, results() as own:
        s.with_worker()
        front, other = s.front(), s.front()
        with Server(PROGRAM, "--device", "cpu", "--threads", "1") as alone:
            for path, body, headers in asked:
                theirs, ours = (server.json("POST", path, body, 200, headers) for server in (front, alone))
                key = "images" if "images" in ours else "data"
                assert [i if key == "images" else i["b64_json"] for i in theirs[key]] == [
                    i if key == "images" else i["b64_json"] for i in ours[key]], path
                assert theirs.get("usage") == ours.get("usage") and theirs.get("warnings") == ours.get("warnings")
        for files, options in (((PICTURE,), ["-i", "image.png"]), ((PICTURE, ("mask", MASK)), ["-i", "image.png", "--mask",
                                                                                             "mask.png"])):
            made = front.json("POST", "/v1/images/edits", edit(*files, embed_recipe="false")[0], 200, edit()[1])
            assert image_of(made) == generate(own, *options, image=PICTURE, mask=MASK), options
        job = front.json("POST", "/zimage/v1/jobs", edit(PICTURE)[0], 202, edit()[1])
        job = other.json("GET", f"/zimage/v1/jobs/{job['id']}?wait=60")
        assert job["state"] == "completed" and job["kind"] == "edit", job
        # two contents are two inputs, and never one job
        kept = check_inputs(database, s.folder)
        assert len(kept) == 3 and database.number("select count(*) - count(distinct key) from zimage.job") == 0
        named = database.one("select request->>'image' from zimage.job order by id limit 1")
        assert json.loads(named)[0][:-4] in kept, named


def test_references(database):
    """A model that reads references takes several."""
    model = f"{GOLDEN}/tiny-klein"
    with service(database) as s, results() as own:
        s.with_worker("-m", model)
        front = s.front("-m", model)
        made = [image_of(front.json("POST", "/v1/images/edits", edit(*files, embed_recipe="false", size="64x64")[0], 200,
                                    edit()[1])) for files in ((PICTURE, OTHER), (OTHER, PICTURE), (PICTURE, PICTURE))]
        options = ["-m", model, "--size", "64x64"]
        files = {"a": PICTURE, "b": OTHER}
        assert made == [generate(own, *options, "-i", f"{i}.png", "-i", f"{k}.png", **files) for i, k in ("ab", "ba", "aa")]
        assert len(set(made)) == 3 and len(check_inputs(database, s.folder)) == 2


def test_killed_with_an_input(database):
    """A worker that is killed while it changes an image, and one input image on two fronts at once."""
    with service(database) as s:
        s.with_worker()
        fronts = [s.front(), s.front()]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(fronts[i % 2].json, "POST", "/v1/images/edits",
                                edit(PICTURE, steps="16", strength="0.9", seed=str(i))[0], 200, edit()[1])
                    for i in range(4)]
            wait_for("the beginning", lambda: s.states().get("running"))
            s.workers[0].kill()
            s.worker()
            made = [image_of(task.result()) for task in slow]
        assert len(set(made)) == 4 and s.states() == {"done": 4}
        assert len(check_inputs(database, s.folder)) == 1
        assert database.number("select max(attempts) from zimage.job") == 2


def test_input_images_end(database):
    """An input image that is gone fails its job and nothing else; what nobody needs is removed."""
    def forget():
        database.rows("update zimage.input set kept_until = now() - interval '1 second'")

    with service(database) as s:
        front = s.front("--keep-results", "4")
        s.absent_worker(front)

        def add(*files):
            return front.json("POST", "/zimage/v1/jobs", edit(*files)[0], 202, edit()[1])["id"]

        jobs = [add(PICTURE), add(OTHER), add(PICTURE, ("mask", MASK))]
        database.rows("insert into zimage.input values (repeat('ab', 32), now())")  # of a front that was killed
        forget()
        wait_for("the next look", lambda: database.number("select count(*) from zimage.input where kept_until < now()")
                 == 0)
        kept = check_inputs(database, s.folder)  # queued jobs need theirs
        assert len(kept) == 3, kept
        front.json("DELETE", f"/zimage/v1/jobs/{jobs[2]}")
        forget()
        wait_for("the removal of the mask", lambda: database.number("select count(*) from zimage.input") == 2)
        other = next(h for h in check_inputs(database, s.folder) if h in database.one(
            f"select inputs[1] from zimage.job where service = '{jobs[1]}'"))
        os.unlink(f"{s.folder}/inputs/{other[:2]}/{other[2:4]}/{other}.png")
        worker = s.worker()
        job = front.json("GET", f"/zimage/v1/jobs/{jobs[1]}?wait=60")
        assert job["state"] == "failed" and job["error"]["code"] == "internal_error", job
        assert front.json("GET", f"/zimage/v1/jobs/{jobs[0]}?wait=60")["state"] == "completed"
        assert worker.poll() is None
        forget()
        wait_for("the removal of all", lambda: database.number("select count(*) from zimage.input") == 0)
        assert check_inputs(database, s.folder) == set()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            with forgetful(database):  # one that is removed before its job is there is stored anew
                waiting = pool.submit(front.json, "POST", "/v1/images/edits", edit(OTHER)[0], 200, edit()[1])
                time.sleep(1)
                assert not waiting.done() and not s.states().get("queued")
            waiting.result()


def test_hostile_uploads(database):
    """What is no image, or too large, is refused, and nothing of it is kept; what is kept is written anew."""
    secret = b"\0\0\0\x0btEXtkey\0secret!" + b"\x3c\x8a\x71\x0e"
    with service(database) as s:
        front = s.front("--max-image", "1M")
        s.absent_worker(front)
        for bad in (b"", b"no image", PICTURE[:-30], b"<svg/>", b"/etc/passwd", png_of(60000, 60000, 2, b"x"),
                    b"\x89PNG\r\n\x1a\n" + b"\xff" * 100, PICTURE + b"\0" * 2**20):
            for files in ((bad,), (PICTURE, ("mask", bad))):
                answer = front.request("POST", "/zimage/v1/jobs", *edit(*files))
                assert answer.status in (400, 413), (bad[:20], answer.status, answer.body)
        for name in ("inputs", "input_hash", "hash"):
            front.fault("POST", "/zimage/v1/jobs", 400, "unknown_parameter", {**SMALL, name: "ab" * 32})
        assert not os.path.exists(f"{s.folder}/inputs") and s.states() == {}
        front.json("POST", "/zimage/v1/jobs", edit(PICTURE[:33] + secret + PICTURE[33:])[0], 202, edit()[1])
        kept = check_inputs(database, s.folder).pop()
        with open(f"{s.folder}/inputs/{kept[:2]}/{kept[2:4]}/{kept}.png", "rb") as file:
            assert b"secret" not in file.read()


def test_lost_ledger(database):
    """The database is killed: new requests are refused, and those that wait get their pictures."""
    with service(database) as s:
        s.with_worker()
        front = s.front()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(front.json, "POST", "/v1/images/generations", {**SLOW, "steps": 8})
            wait_for("the beginning", lambda: s.states().get("running") == 1)
            database.kill()
            front.wait_for("its notice", lambda: front.post("/zimage/v1/jobs", SMALL).status == 503)
            error = front.fault("POST", "/v1/images/generations", 503, "ledger_lost", SMALL)
            assert b"can't be reached" in front.get("/health").body
            assert "can't be reached" in error["message"], error
            database.start()
            assert image_of(waiting.result())[:4] == b"\x89PNG"
        front.wait_for("its return", lambda: front.post("/v1/images/generations", SMALL).status == 200)


class Watcher:
    """Reads the events of a job in a thread."""

    def __init__(self, front, path):
        self.seen, self.connection = [], front.connection()
        self.connection.request("GET", path + "/events")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for kind, data in events(self.answer):
            self.seen.append((kind, json.loads(data)))

    def steps(self, begin=0):
        return [data["step"] for kind, data in self.seen[begin:] if kind == "progress" and data["stage"] == "denoise"]

    def kinds(self):
        return {kind for kind, _ in self.seen}

    def end(self):
        self.thread.join(120)
        self.connection.close()
        assert self.seen and self.seen[-1][0] == "end", self.seen[-3:]
        return self.seen


def stream_events(server, request):
    answer = server.post("/v1/images/generations", {**request, "stream": True})
    assert answer.status == 200, answer.body
    return [(kind, json.loads(data)) for kind, data in events(answer.body.splitlines(True)) if kind]


def told(database, what="true"):
    return database.number(f"select count(*) from zimage.news where {what}")


def test_streams_as_on_one_machine(database):
    """Partial images and progress of OpenAI's streams; and nothing is told of what nobody watches."""
    with service(database) as s, Server(PROGRAM, "--device", "cpu", "--threads", "1") as alone:
        worker = s.worker(lease=30)
        wait_for("a worker", lambda: s.announced() > 0)
        front = s.front()
        plain = front.json("POST", "/v1/images/generations", STEPS)
        assert [kind for kind, _ in stream_events(front, STEPS)] == ["image_generation.completed"]
        assert told(database) == 0 and database.number("select count(*) from zimage.watch") == 0
        asked = {**STEPS, "partial_images": 3, "progress": True, "n": 2}
        ours, theirs = stream_events(alone, asked), stream_events(front, asked)

        def parts(stream, kind, *names):
            return [[data[name] for name in names] for found, data in stream if found == kind]

        names = ("index", "partial_image_index", "step", "steps", "output_format", "size", "b64_json")
        partials = parts(theirs, "image_generation.partial_image", *names)
        assert partials == parts(ours, "image_generation.partial_image", *names), [p[:6] for p in partials]
        assert [p[:3] for p in partials] == [[i, k, 2 * k + 2] for i in range(2) for k in range(3)]
        images = parts(theirs, "image_generation.completed", "index", "seed", "b64_json")
        assert images == parts(ours, "image_generation.completed", "index", "seed", "b64_json")
        assert images[0][2] == plain["data"][0]["b64_json"]
        ours, theirs = (dict(stream) for stream in (ours, theirs))
        for kind in ours:
            assert theirs[kind].keys() == ours[kind].keys(), (kind, theirs[kind].keys())
        assert told(database, "number = -2") == 0  # no preview that nobody has asked for
        worker.terminate()
        assert worker.wait(60) == 0


def test_watching(database):
    """Progress and previews of a job on any front, in each form; previews only where somebody looks at them."""
    with service(database) as s:
        s.worker(lease=30)
        wait_for("a worker", lambda: s.announced() > 0)
        first, second = s.front("--sdapi-max-steps", "32"), s.front()
        path = f"/zimage/v1/jobs/{first.json('POST', '/zimage/v1/jobs', SLOW, 202)['id']}"
        wait_for("the beginning", lambda: s.states() == {"running": 1})
        assert told(database) == 0
        second.wait_for("its step", lambda: second.json("GET", path)["progress"]["step"] >= 2)
        job = second.json("GET", path)
        assert job["state"] == "running" and job["progress"]["stage"] == "denoise", job
        assert job["progress"]["steps"] == SLOW["steps"] and 0 < job["progress"]["fraction"] < 1, job
        assert told(database) == 1 and told(database, "jpeg is not null") == 0
        watcher = Watcher(second, path)  # the image is under way: from now on there are previews
        wait_for("a preview", lambda: "preview" in watcher.kinds())
        assert told(database, "number = -2 and jpeg is not null") == 1
        assert s.states() == {"running": 1}
        seen = watcher.end()
        steps = watcher.steps()
        assert steps == sorted(steps) and len(set(steps)) > 2, steps
        fractions = [data["fraction"] for kind, data in seen if kind == "progress"]
        assert fractions == sorted(fractions), fractions
        for kind, data in seen:
            if kind == "preview":
                assert base64.b64decode(data["jpeg"])[:3] == b"\xff\xd8\xff" and data["steps"] == SLOW["steps"], data
        assert [kind for kind, _ in seen if kind in ("picture", "end")] == ["picture", "end"]
        with concurrent.futures.ThreadPoolExecutor() as pool:  # AUTOMATIC1111's, on the other front
            made = pool.submit(first.json, "POST", "/sdapi/v1/txt2img",
                               {"prompt": "a", "width": SIDE, "height": SIDE, "steps": 32, "seed": 1})
            second.wait_for("its preview", lambda: second.json("GET", "/sdapi/v1/progress")["current_image"])
            now = second.json("GET", "/sdapi/v1/progress?skip_current_image=true")
            assert now["state"]["sampling_step"] > 0 and 0 < now["progress"] < 1, now
            assert now["state"]["job_count"] == 1 and now["current_image"] is None, now
            assert made.result()["images"]


def test_worker_that_dies(database):
    """The progress of its job goes back, the client sees that it waits, and another worker makes it."""
    with service(database) as s:
        first = s.worker(lease=8)
        wait_for("a worker", lambda: s.announced() > 0)
        front, other = s.front(), s.front()
        path = f"/zimage/v1/jobs/{front.json('POST', '/zimage/v1/jobs', SLOW, 202)['id']}"
        watchers = [Watcher(front, path), Watcher(other, path)]
        wait_for("its steps", lambda: all(w.steps() and w.steps()[-1] >= 3 for w in watchers))
        first.kill()
        first.wait()
        wait_for("that it waits", lambda: all(w.seen[-1] == ("state", {"state": "queued", "index": 0}) for w in watchers))
        job = other.json("GET", path)
        assert job["state"] == "queued" and "started" not in job, job
        assert job["progress"]["step"] == 0 and job["progress"]["fraction"] == 0, job
        begins = [len(w.seen) for w in watchers]
        s.worker(lease=60)
        for watcher, begin in zip(watchers, begins):
            seen = watcher.end()
            assert seen[begin] == ("state", {"state": "running", "index": 0}), seen[begin]
            steps = watcher.steps(begin)
            assert steps == sorted(steps) and steps[0] < SLOW["steps"], steps
            assert seen[-1][1]["state"] == "completed", seen[-1]
        assert database.one("select attempts from zimage.job") == "2"


def test_strange_news(database):
    """Rows that no worker of this version writes: a front leaves them out, and goes on."""
    with service(database) as s:
        front = s.front()
        s.absent_worker(front)
        path = f"/zimage/v1/jobs/{front.json('POST', '/zimage/v1/jobs', {**SMALL, 'n': 10}, 202)['id']}"
        database.rows("update zimage.job set state = 'running', lease = gen_random_uuid(), worker = 'stranger',"
                      " started_at = now(), lease_until = now() + interval '1 hour', attempts = 1;"
                      "alter table zimage.news drop constraint news_jpeg_check, drop constraint news_stage_check")
        subprocess.run([PROGRAM, "generate", "-p", "a", "--size", "64x64", "--steps", "1", "-o", f"{s.folder}/a.jpg",
                        "--device", "cpu", "-q"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(f"{s.folder}/a.jpg", "rb") as file:
            whole = file.read()
        watcher = Watcher(front, path)
        wait_for("the beginning", lambda: "running" in [data["state"] for _, data in watcher.seen])

        def row(part, number, step=1, steps=2, fraction="0.5", stage="denoise", jpeg=None, lease="lease", padding=0):
            data = f"'\\x{jpeg.hex()}'::bytea || decode(repeat('00', {padding}), 'hex')" if jpeg is not None else "null"
            return ("insert into zimage.news (job, number, serial, lease, stage, step, steps, fraction, jpeg)"
                    f" select id, {number}, nextval('zimage.news_serial'), {lease}, '{stage}', {step}, {steps},"
                    f" '{fraction}', {data} from zimage.job where part = {part} on conflict (job, number) do update set"
                    " serial = excluded.serial, jpeg = excluded.jpeg, fraction = excluded.fraction;")

        progress = [{"fraction": "NaN"}, {"fraction": "Infinity"}, {"fraction": "-1"}, {"step": 3}, {"step": -1},
                    {"steps": 2**31 - 1}, {"stage": "dreaming"}, {"stage": "x" * 9000}, {"lease": "gen_random_uuid()"}]
        previews = [{}, {"jpeg": b""}, {"jpeg": whole[:2]}, {"jpeg": whole[:len(whole) // 2]}, {"jpeg": whole[:-200]},
                    {"jpeg": b"\xff\xd8\xff" + bytes(500)}, {"jpeg": b"\x89PNG\r\n\x1a\n" + bytes(100)},
                    {"jpeg": whole, "padding": 300000}]
        database.rows("".join(row(part, -1, **strange) for part, strange in enumerate(progress)) +
                      "".join(row(part, -2, **strange) for part, strange in enumerate(previews)) +
                      "".join(row(9, number, jpeg=whole) for number in (0, 2, 3, 77, -3, -32768)))
        time.sleep(1)  # a front looks every 0.25 s
        assert watcher.kinds() == {"state"}, watcher.seen
        database.rows(row(9, -1))
        wait_for("progress", lambda: "progress" in watcher.kinds())  # a later one would replace it
        database.rows(row(0, -2, jpeg=whole))
        wait_for("a preview", lambda: "preview" in watcher.kinds())
        good = [(kind, data["index"]) for kind, data in watcher.seen if kind != "state"]
        assert good == [("progress", 9), ("progress", 0), ("preview", 0)], good  # a preview says how far its image is
        assert base64.b64decode(watcher.seen[-1][1]["jpeg"]) == whole
        database.rows("update zimage.job set state = 'cancelled', lease = null")
        assert watcher.end()[-1][1]["state"] == "cancelled"


def test_strange_watch(database):
    """A front of another version asks for what there is not; the worker goes on."""
    with service(database) as s:
        front = s.front()
        s.absent_worker(front)
        for partials in (32767, -1):
            job = front.json("POST", "/zimage/v1/jobs", {**SMALL, "size": "32x32", "seed": partials & 0xFFFF}, 202)["id"]
            database.rows(f"insert into zimage.watch values ('{job}', 'infinity', 'infinity', {partials})")
        worker = s.worker("--until-empty", lease=30)
        code = worker.wait(120)
        worker.log.seek(0)
        assert code == 0, worker.log.read()
        assert s.states() == {"done": 2}
        assert told(database, "number = -2 and jpeg is not null") == 2 and told(database, "number >= 0") == 0


def test_turns_and_positions(database):
    """A caller with many jobs does not delay another; positions are those of the ledger's claims."""
    with service(database) as s:
        keys = ("--api-key-file", key_file(s.folder))
        first, second = s.front(*keys), s.front(*keys)
        s.absent_worker(second, **bearer("anna"))
        database.rows("delete from zimage.worker")
        s.absent_worker(first, **bearer("anna"))
        many = [first.json("POST", "/zimage/v1/jobs", {**SMALL, "seed": i}, 202, bearer("anna"))["id"]
                for i in range(6)]
        one = second.json("POST", "/zimage/v1/jobs", SMALL, 202, bearer("bert"))["id"]
        batch = second.json("POST", "/zimage/v1/jobs", {**SMALL, "priority": "batch", "seed": 3}, 202, bearer("bert"))["id"]

        def position(front, id, who):
            return front.json("GET", f"/zimage/v1/jobs/{id}", headers=bearer(who)).get("position")

        def positions():
            return [position(second, many[5], "anna"), position(first, one, "bert"), position(first, batch, "bert")]

        first.wait_for("the positions", lambda: positions() == [6, 1, 7], 10)
        s.worker("--until-empty").wait(60)
        order = [row[0] for row in database.rows("select service from zimage.job order by finished_at")]
        assert order[-1] == batch and order.index(one) <= 1, order
        assert [id for id in order if id in many] == many
        callers = database.rows("select distinct caller from zimage.job")
        assert len(callers) == 2 and not any(key in str(callers) for key in KEYS.values())


def test_housekeeping(database):
    with service(database) as s:
        s.with_worker()
        front = s.front("--keep-results", "1", "--store-seconds", "1")
        job = front.json("POST", "/zimage/v1/jobs", SMALL, 202)
        front.json("GET", f"/zimage/v1/jobs/{job['id']}?wait=60")
        front.json("POST", "/zimage/v1/jobs", SLOW, 202)
        wait_for("the removal", lambda: database.number("select count(*) from zimage.service") == 1)
        assert not [name for _, _, names in os.walk(s.folder) for name in names]
        wait_for("that it is forgotten", lambda: front.get(f"/zimage/v1/jobs/{job['id']}").status == 404)
        assert not {"failed", "cancelled"} & set(s.states()), s.states()  # what is under way is not old


def test_options(database):
    def refusal(*options):
        done = subprocess.run([PROGRAM, "serve", "--port", "0", *options], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode != 0, options
        return done.stdout

    assert "--results" in refusal("--queue", database.url)
    assert "--queue" in refusal("--results", "/tmp")
    assert "--queue" in refusal("--keep-results", "5")
    assert "zimage queue init" in refusal("--queue", database.url, "--results", "/tmp")  # it has no tables
    for option in (["--device", "cpu"], ["--gallery", "/tmp"], ["--threads", "2"], ["--no-overlap"]):
        assert option[0] in refusal("--queue", database.url, "--results", "/tmp", *option), option
    message = refusal("--queue", "postgresql://zimage:secret@127.0.0.1:1/x", "--results", "/tmp")
    assert "secret" not in message and "127.0.0.1" in message, message


if __name__ == "__main__":
    with Database() as the_database:
        code = run_tests(sys.modules[__name__], the_database)
    sys.exit(code)
