"""Tests of results in a bucket of an S3-compatible store: zimage work --out-dir s3://..., zimage serve --results s3://...
"""
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile

from check_service import MASK, PICTURE, PROGRAM, SMALL, Service, edit, generate, image_of
from database import Database, results, run_tests, wait_for
from fake_store import BUCKET, SECRET, Store

PLACE = f"s3://{BUCKET}/a prefix/\u00e4"
INSIDE = "a prefix/\u00e4/"


@contextlib.contextmanager
def bucket(database):
    """A store, a ledger, and fronts and workers that know both."""
    with Store() as store:
        before = dict(os.environ)
        os.environ.update(store.environment)
        made = Service(database, PLACE)
        made.store = store
        try:
            yield made
        finally:
            made.end()
            os.environ.clear()
            os.environ.update(before)
            database.rows("drop schema zimage cascade")


def pictures(store):
    return {name: data for name, (data, _) in store.objects.items() if not name.endswith(".zimage")}


def lines(*jobs):
    file = tempfile.NamedTemporaryFile("w", suffix=".jsonl")
    file.write("".join(json.dumps({"size": "64x64", "steps": 1, "seed": 1, **job}) + "\n" for job in jobs))
    file.flush()
    return file


def add(database, *jobs):
    with lines(*jobs) as file:
        return subprocess.run([PROGRAM, "queue", "add", file.name, "--queue", database.url], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def work(database, place, *options, **environment):
    """A worker until no job is left: its exit code and what it said."""
    done = subprocess.run([PROGRAM, "work", "--queue", database.url, "--out-dir", place, "--threads", "1", "--device",
                           "cpu", "--until-empty", "-q", *options], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, **environment}, timeout=120)
    return done.returncode, done.stdout


def test_images(database):
    """Through a front and a worker: the bytes of zimage generate, by the key's name; removed when they are old."""
    with bucket(database) as s, results() as own:
        s.with_worker()
        front = s.front("--keep-results", "2", "--store-seconds", "1")
        made = front.json("POST", "/v1/images/generations", SMALL)["data"][0]["b64_json"]
        subprocess.run([PROGRAM, "generate", "-p", SMALL["prompt"], "--size", SMALL["size"], "--steps", "2", "--seed",
                        "7", "-o", f"{own}/a.png", "--device", "cpu", "--threads", "1", "-q"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(f"{own}/a.png", "rb") as file:
            assert file.read() == base64.b64decode(made)
        key, name = database.rows("select encode(key, 'hex'), result->>'file' from zimage.job")[0]
        assert name == f"{key[:2]}/{key[2:4]}/{key}.png", name
        with s.store.lock:
            assert s.store.objects[INSIDE + name] == (base64.b64decode(made), "image/png"), list(s.store.objects)
        wait_for("the removal", lambda: not pictures(s.store))
        wait_for("the end of its row", lambda: database.number("select count(*) from zimage.job") == 0)


def test_input_images(database):
    """They go through the bucket, too: to a front, and from lines; one that is gone fails its job and no worker."""
    with bucket(database) as s, results() as own:
        s.with_worker()
        front = s.front()
        body, headers = edit(PICTURE, ("mask", MASK), embed_recipe="false")
        made = image_of(front.json("POST", "/v1/images/edits", body, 200, headers))
        assert made == generate(own, "-i", "image.png", "--mask", "mask.png", image=PICTURE, mask=MASK)
        for worker in s.workers:
            worker.kill()
        kept = [name for name in pictures(s.store) if name.startswith(INSIDE + "inputs/")]
        assert len(kept) == 2, kept
        with lines({"prompt": "a", "image": f"{own}/mask.png"}) as file:
            subprocess.run([PROGRAM, "queue", "add", file.name, "--queue", database.url, "--results", PLACE], check=True,
                           stdout=subprocess.DEVNULL)
        database.rows("update zimage.input set kept_until = now()")
        with s.store.lock:
            wanted = database.one("select inputs[1] from zimage.job where service is null")
            s.store.objects.pop(f"{INSIDE}inputs/{wanted[:2]}/{wanted[2:4]}/{wanted}.png")
        code, said = work(database, PLACE)
        assert code == 0 and database.states() == {"done": 1, "failed": 1}, said
        assert "is not among the results" in database.one("select error from zimage.job where state = 'failed'")
        assert not [name for name in kept if wanted not in name and name in pictures(s.store)]  # nobody needs it


def test_faults_of_the_store(database):
    """Answers that pass, and a connection that breaks off after the object was stored: each job is done once."""
    with bucket(database) as s:
        done = add(database, *({"prompt": "a red apple", "seed": seed} for seed in range(4)))
        assert done.returncode == 0, done.stdout
        s.store.faults = [503, 409, "none", "none", "cut", 500, 429, "none", "cut"]
        code, said = work(database, PLACE)
        assert code == 0 and not s.store.faults, (said, s.store.faults)
        assert database.states() == {"done": 4} and database.number("select sum(attempts) from zimage.job") == 4
        assert any(kind == "GET" for kind, _ in s.store.requests)  # what is there was compared
        found = pictures(s.store)
        listed = dict(database.rows("select result->>'file', result->>'sha256' from zimage.job"))
        assert {INSIDE + name for name in listed} == set(found) and len(found) == 4, list(found)
        code, said = work(database, PLACE, AWS_SECRET_ACCESS_KEY="another")
        assert code != 0 and "403 SignatureDoesNotMatch: The signature does not match." in said, said
        assert SECRET not in said and "another" not in said, said


def test_names(database):
    """Names that jobs give their files: any text, nothing outside of the prefix, no picture over another."""
    with bucket(database) as s:
        done = add(database, {"prompt": "a", "output": "caf\u00e9 + a&b=c.png"}, {"prompt": "b", "output": "x.png"})
        assert done.returncode == 0, done.stdout
        s.store.objects[INSIDE + "x.png"] = (b"another's", "image/png")
        code, said = work(database, PLACE)
        assert code == 0, said
        rows = {state: [error, file] for state, error, file in
                database.rows("select state, error, result->>'file' from zimage.job")}
        assert rows["done"][1] == "caf\u00e9 + a&b=c.png", rows
        assert "x.png: another picture has this name" in rows["failed"][0], rows
        assert set(pictures(s.store)) == {INSIDE + "x.png", INSIDE + "caf\u00e9 + a&b=c.png"}
        assert pictures(s.store)[INSIDE + "x.png"] == b"another's"
        database.rows("update zimage.job set state = 'queued', attempts = 0 where state = 'done'")
        code, said = work(database, PLACE)  # the same job once more finds its picture
        assert database.states() == {"done": 1, "failed": 1}, (said, database.states())


def test_refusals(database):
    """Each with a sentence, soon, and without a job that is harmed."""
    with bucket(database) as s:
        assert add(database, {"prompt": "a"}).returncode == 0

        def refusal(place, *options, **environment):
            code, said = work(database, place, *options, **environment)
            assert code != 0 and said.count("\n") == 1, (code, said)
            return said

        for name in "s3://", "s3://A/b", "s3://ab", "s3:///x", f"s3://{BUCKET}/a/../b", f"s3://{BUCKET}//b":
            said = refusal(name)
            assert name in said and "expected" in said, said
        assert "AWS_ACCESS_KEY_ID" in refusal(PLACE, AWS_ACCESS_KEY_ID="")
        assert "AWS_SECRET_ACCESS_KEY" in refusal(PLACE, AWS_SECRET_ACCESS_KEY="")
        assert "AWS_REGION" in refusal(PLACE, AWS_REGION="x/y")
        assert "AWS_ENDPOINT_URL" in refusal(PLACE, AWS_ENDPOINT_URL="ftp://127.0.0.1")
        assert "404 NoSuchBucket" in refusal("s3://other")
        assert "can't be reached" in refusal(PLACE, AWS_ENDPOINT_URL="http://127.0.0.1:1")
        packs = subprocess.run([PROGRAM, "work", "--queue", database.url, "--pack", PLACE], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert packs.returncode != 0 and "--pack" in packs.stdout and "expected a folder" in packs.stdout, packs.stdout
        s.store.objects.clear()
        s.store.overwrites = True
        assert "writes over objects" in refusal(PLACE)
        front = subprocess.run([PROGRAM, "serve", "--port", "0", "--queue", database.url, "--results", "s3://other"],
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert front.returncode != 0 and "NoSuchBucket" in front.stdout, front.stdout
        assert database.states() == {"queued": 1}


if __name__ == "__main__":
    with Database() as the_database:
        code = run_tests(sys.modules[__name__], the_database)
    sys.exit(code)
