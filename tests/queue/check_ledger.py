"""Tests of the ledger that take seconds."""
import contextlib
import glob
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../serve"))

from database import Database, StandIn, check_files, check_inputs, forgetful, results, run_tests, wait_for  # noqa: see above
from harness import best_of, png  # noqa: the same

PROGRAM, STAND_IN = sys.argv[1:3]


@contextlib.contextmanager
def ledger(database):
    """An empty ledger and its stand-in workers, which end with the test."""
    stand_in = StandIn(STAND_IN, database)
    stand_in.run("init")
    database.forget_jobs()
    try:
        yield stand_in
    finally:
        stand_in.end()


def test_init_twice_and_at_once(database):
    database.rows("drop schema if exists zimage cascade")
    stand_in = StandIn(STAND_IN, database)
    message = stand_in.run("add", "b", 1, code=1)
    assert "has no jobs yet" in message and "zimage queue init" in message, message
    at_once = [stand_in.start("init") for _ in range(5)]
    made = [json.loads(process.communicate()[0]) for process in at_once]
    assert sorted(answer["before"] for answer in made)[0] == 0, made
    assert sum(answer["before"] == 0 for answer in made) == 1, made
    assert stand_in.run("init")["before"] == made[0]["after"]


def test_older_and_newer_tables(database):
    with ledger(database) as stand_in:
        version = database.number("select version from zimage.ledger")
        stand_in.run("add", "kept", 10)
        database.rows("drop table zimage.watch, zimage.news; drop sequence zimage.news_serial;"
                      " drop table zimage.shard, zimage.worker, zimage.input;"
                      " drop trigger job_service_over on zimage.job; drop function zimage.tell_service;"
                      " alter table zimage.job drop column service, drop column part, drop column inputs;"
                      " drop table zimage.service")  # as version 1 was
        database.rows("update zimage.ledger set version = 1")
        message = stand_in.run("add", "b", 1, code=1)
        assert "have version 1" in message and "zimage queue init" in message, message
        assert stand_in.run("init") == {"before": 1, "after": version}
        assert database.states() == {"queued": 10}
        database.rows("update zimage.ledger set version = 99")
        for command in ("init",), ("add", "b", 1):
            message = stand_in.run(*command, code=1)
            assert "have version 99" in message and "newer zimage" in message, message
        database.rows(f"update zimage.ledger set version = {version}")


def test_password_is_never_printed(database):
    stand_in = StandIn(STAND_IN, database)
    for target in ("postgresql://zimage:se%zzcret@/x", "host=/nowhere password=secret user=zimage",
                   "postgresql://zimage:secret@127.0.0.1:1/x", "postgresql://zimage:secret@/x?nonsense=1", "secret"):
        done = subprocess.run([stand_in.path, "init", target], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 1 and done.stdout.startswith("stand_in: "), done
        assert "secret" not in done.stdout and "se%zz" not in done.stdout, done.stdout


def test_work(database):
    with ledger(database) as stand_in, results() as folder:
        assert stand_in.run("add", "b", 100)["added"] == 100
        totals = stand_in.run("work", folder, 1, "until-empty")
        assert totals["made"] == 100 and totals["lost"] == totals["failed"] == 0, totals
        assert database.states() == {"done": 100}
        assert check_files(database, folder) == 100
        assert database.number("select sum(attempts) from zimage.job") == 100
        name, worker = database.rows("select result->>'file', worker from zimage.job limit 1")[0]
        assert name.count("/") == 2 and name[:2] == name[6:8], name
        assert "/" in worker
        # order: by id, since all have one caller and one priority
        assert database.number("select count(*) from (select id, lag(id) over (order by finished_at, id) as before"
                               " from zimage.job) o where before > id") == 0


def test_add_twice_and_at_once(database):
    with ledger(database) as stand_in:
        assert stand_in.run("add", "b", 25000)["added"] == 25000
        again = stand_in.run("add", "b", 25000)
        assert again["lines"] == 25000 and again["added"] == 0
        assert stand_in.run("add", "other", 100)["added"] == 100  # keys are a batch's
        both = [stand_in.start("add", "b", 30000, 20000) for _ in range(2)]
        added = [json.loads(process.communicate()[0])["added"] for process in both]
        assert sum(added) == 25000, added
        assert database.number("select count(*) from zimage.job where batch = 'b'") == 50000
        assert database.number("select count(*) from (select distinct request->>'n' from zimage.job"
                               " where batch = 'b') n") == 50000


def test_add_is_killed(database):
    with ledger(database) as stand_in:
        for _ in range(2):
            process = stand_in.start("add", "b", 50000)
            wait_for("some rows", lambda: database.number("select count(*) from zimage.job") >= 10000, pause=0.01)
            process.kill()
            process.wait()
            count = database.number("select count(*) from zimage.job")
            assert count % 10000 == 0, count
        assert stand_in.run("add", "b", 50000)["lines"] == 50000
        assert database.number("select count(*) from zimage.job") == 50000


def test_killed_workers(database):
    """A small version of the heavy test."""
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 400)
        workers = [stand_in.start("work", folder, 5, "lease=1") for _ in range(4)]
        kills = 0
        end = time.monotonic() + 4
        while time.monotonic() < end:
            time.sleep(0.15)
            place = random.randrange(len(workers))
            workers[place].kill()
            kills += 1
            workers[place] = stand_in.start("work", folder, 5, "lease=1")
            if kills == 10:
                database.kill()
                database.start()
        wait_for("the end", lambda: database.states() == {"done": 400}, 60)
        assert check_files(database, folder) == 400
        attempts = database.number("select sum(attempts) from zimage.job")
        assert 400 <= attempts <= 400 + 2 * kills, (attempts, kills)


def test_stopped_worker_does_not_win(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 1)
        zombie = stand_in.start("work", folder, 3000, "lease=1", "tier=B")
        wait_for("its beginning", lambda: database.states() == {"running": 1})
        time.sleep(0.2)
        zombie.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        stand_in.run("work", folder, 50, "lease=1", "until-empty")
        before = database.rows("select * from zimage.job")
        zombie.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        zombie.terminate()
        totals = json.loads(zombie.communicate()[0])
        assert totals["made"] == 0 and totals["lost"] == 1, totals
        assert database.rows("select * from zimage.job") == before
        assert check_files(database, folder) == 1


def test_other_kernels(database):
    """A worker whose kernels give other bytes finds the file of one that was killed between its file and its commit."""
    with ledger(database) as stand_in, results() as folder, results() as other:
        stand_in.run("add", "b", 20)
        stand_in.run("work", folder, 1, "until-empty", "tier=A")
        first = {name: digest for name, digest in
                 database.rows("select result->>'file', result->>'sha256' from zimage.job")}
        database.rows("update zimage.job set state = 'queued', result = null")
        stand_in.run("work", folder, 1, "until-empty", "tier=B")
        assert check_files(database, folder) == 20
        again = {name: digest for name, digest in
                 database.rows("select result->>'file', result->>'sha256' from zimage.job")}
        assert again == first
        assert database.number("select count(*) from zimage.job where (result->>'found')::boolean") == 20
        database.rows("update zimage.job set state = 'queued', result = null")
        stand_in.run("work", other, 1, "until-empty", "tier=B")
        assert dict(database.rows("select result->>'file', result->>'sha256' from zimage.job")) != first


def test_empty_file(database):
    """What a process that was killed leaves on a file system without hard links."""
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 1)
        key = database.one("select encode(key, 'hex') from zimage.job")
        os.makedirs(f"{folder}/{key[:2]}/{key[2:4]}")
        open(f"{folder}/{key[:2]}/{key[2:4]}/{key}.png", "wb").close()
        stand_in.run("work", folder, 1, "until-empty")
        assert database.states() == {"done": 1} and check_files(database, folder) == 1


def test_poison_ends_and_its_neighbours_live(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 5)
        stand_in.run("add", "crash-b", 1)
        stand_in.run("add", "b", 5, 100)
        for _ in range(12):
            if "queued" not in database.states() and "running" not in database.states():
                break
            stand_in.start("work", folder, 1, "lease=30", "until-empty").wait(60)
            database.rows("update zimage.job set lease_until = now() where state = 'running'")
        assert database.states() == {"done": 10, "failed": 1}, database.states()
        error, attempts = database.rows("select error, attempts from zimage.job where state = 'failed'")[0]
        assert attempts == "5" and "attempt 5 of 5" in error, error
        assert database.number("select max(attempts) from zimage.job where state = 'done'") == 1
        assert check_files(database, folder) == 10


def test_bad_jobs_and_bad_machines(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "bad-b", 3)
        totals = stand_in.run("work", folder, 1, "until-empty")
        assert totals["failed"] == 3
        assert database.rows("select distinct error, attempts from zimage.job") == [
            ["height: 17, expected a multiple of 16", "1"]]
        database.forget_jobs()
        stand_in.run("add", "machine-b", 1)
        message = stand_in.start("work", folder, 1, "until-empty", stdout=subprocess.DEVNULL)
        assert message.wait(30) == 1
        assert database.states() == {"queued": 1}
        error, attempts, later = database.rows("select error, attempts, not_before > now() from zimage.job")[0]
        assert error.startswith("out of memory") and attempts == "1" and later == "t"
        idle = stand_in.start("work", folder, 1, "until-empty")
        time.sleep(1)
        assert idle.poll() is None and database.states() == {"queued": 1}  # it waits for not_before
        for _ in range(4):
            database.rows("update zimage.job set not_before = null")
            idle.wait(30)
            idle = stand_in.start("work", folder, 1, "until-empty")
        assert idle.wait(30) == 0
        assert database.rows("select state, attempts from zimage.job") == [["failed", "5"]]


def seconds_until_cancelled(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "slow-b", 2)
        worker = stand_in.start("work", folder, 1, "lease=0.9", "until-empty")
        wait_for("its beginning", lambda: database.number("select count(*) from zimage.job where attempts = 1") == 1)
        database.rows("update zimage.job set state = 'cancelled', lease = null")
        begin = time.monotonic()
        assert worker.wait(60) == 0
        taken = time.monotonic() - begin
        assert glob.glob(f"{folder}/**/*.png", recursive=True) == []
        assert json.loads(worker.communicate()[0])["made"] == 0
        return taken


def test_cancel_while_running(database):
    assert best_of(3, lambda: seconds_until_cancelled(database), 2.5) < 2.5


def test_priority_and_fairness(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "many", 200, 0, "ann")
        stand_in.run("add", "few", 10, 1000, "bob")
        stand_in.run("add", "urgent", 5, 2000, "cid", 5)
        stand_in.run("work", folder, 1, "until-empty", "claim=1")
        order = [row[0] for row in database.rows("select batch from zimage.job order by started_at")]
        assert order[:5] == ["urgent"] * 5, order[:5]
        assert sorted(order[5:25]) == ["few"] * 10 + ["many"] * 10, order[5:25]
        assert order[25:] == ["many"] * 190


def test_signals(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 10)
        worker = stand_in.start("work", folder, 2000, "claim=4")
        wait_for("its beginning", lambda: database.number("select count(*) from zimage.job where attempts = 1") == 1)
        worker.terminate()
        assert worker.wait(60) == 0  # the image under way is finished, the other claims go back
        assert json.loads(worker.communicate()[0])["made"] == 1
        assert database.states() == {"done": 1, "queued": 9}
        assert database.number("select sum(attempts) from zimage.job") == 1
        assert check_files(database, folder) == 1


def seconds_until_woken(database):
    """In the middle of nine jobs, from a job's row to its result."""
    with ledger(database) as stand_in, results() as folder:
        stand_in.start("work", folder, 1)
        for i in range(9):
            time.sleep(0.03 * i)
            stand_in.run("add", "b", 1, i)
            wait_for("the job", lambda i=i: database.states() == {"done": i + 1}, pause=0.02)
        return float(database.one("select percentile_disc(0.5) within group (order by"
                                  " extract(epoch from finished_at - created_at)) from zimage.job"))


def test_notification_wakes(database):
    assert best_of(3, lambda: seconds_until_woken(database), 0.3) < 0.3  # a poll alone would take half a second


def read_shards(folder):
    names = []
    for path in glob.glob(f"{folder}/*.tar"):
        with tarfile.open(path) as archive:
            names += [(os.path.basename(path), member.name, member.offset_data, archive.extractfile(member).read())
                      for member in archive]
    return names


def check_shards(database, folder, count):
    """The tar files hold each image once, at the place that the ledger names, with its request beside it."""
    found = {(shard, name): (offset, data) for shard, name, offset, data in read_shards(folder)}
    rows = database.rows("select result->>'file', result->>'entry', result->>'offset', result->>'bytes',"
                         " encode(key, 'hex'), request->>'n' from zimage.job where state = 'done'")
    assert len(rows) == count and len(found) == 2 * count, (len(rows), len(found), count)
    for shard, entry, offset, size, key, number in rows:
        place, data = found[shard, entry]
        assert place == int(offset) and len(data) == int(size) and entry == f"{key}.png"
        assert json.loads(found[shard, f"{key}.json"][1])["n"] == int(number)
    for path in glob.glob(f"{folder}/*.tar"):
        assert subprocess.run(["tar", "-tf", path], stdout=subprocess.DEVNULL).returncode == 0


def test_packed(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 150)
        totals = stand_in.run("work", folder, 1, "until-empty", "packed")
        assert totals["made"] == 150
        check_shards(database, folder, 150)
        assert len(glob.glob(f"{folder}/*.tar")) == 1
        # a torn end, as a kill between write and commit leaves it
        path = glob.glob(f"{folder}/*.tar")[0]
        with open(path, "r+b") as file:
            file.seek(-1024, io.SEEK_END)
            file.write(os.urandom(3000))
        stand_in.run("add", "b", 20, 1000)
        stand_in.run("work", folder, 1, "until-empty", "packed")
        check_shards(database, folder, 170)
        assert len(glob.glob(f"{folder}/*.tar")) == 1
        # a tar file of somebody else stays as it is
        with open(f"{folder}/zimage-mine.tar", "wb") as file:
            file.write(b"mine")
        stand_in.run("add", "b", 1, 2000)
        stand_in.run("work", folder, 1, "until-empty", "packed")
        with open(f"{folder}/zimage-mine.tar", "rb") as file:
            assert file.read() == b"mine"
        os.unlink(f"{folder}/zimage-mine.tar")
        os.truncate(path, 100)
        message = stand_in.start("work", folder, 1, "packed")
        assert message.wait(30) == 1


def test_packed_and_killed(database):
    with ledger(database) as stand_in, results() as folder:
        stand_in.run("add", "b", 200)
        workers = [stand_in.start("work", folder, 2, "lease=1", "packed") for _ in range(3)]
        end = time.monotonic() + 3
        while time.monotonic() < end:
            time.sleep(0.35)
            place = random.randrange(len(workers))
            workers[place].kill()
            workers[place].wait()
            workers[place] = stand_in.start("work", folder, 2, "lease=1", "packed")
        wait_for("the end", lambda: database.states() == {"done": 200}, 60)
        for worker in workers:
            worker.terminate()
            worker.wait()
        stand_in.run("work", folder, 1, "until-empty", "packed")  # cuts what the killed ones left
        check_shards(database, folder, 200)


# ---- zimage queue, zimage work, with a tiny model ----

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/tiny")
LINE = {"prompt": "a red apple", "seed": 7, "size": "64x64", "steps": 2}


def zimage(database, *arguments, code=0, environment=None, cwd=None):
    """Runs the program with the ledger's address in the environment. Returns what it printed, or its sentence."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZIMAGE_")}
    program = os.path.abspath(PROGRAM)
    done = subprocess.run([program, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**kept, "ZIMAGE_QUEUE": database.url, **(environment or {})}, timeout=300, cwd=cwd)
    if done.returncode != code:
        raise AssertionError(f"{arguments}: exit code {done.returncode}: {done.stderr}")
    return done.stderr if code else done.stdout


@contextlib.contextmanager
def place(database, *lines):
    """An empty ledger, a folder with b.jsonl, and what begins the command lines of add and work."""
    with ledger(database), results() as folder:
        file = f"{folder}/b.jsonl"
        with open(file, "w") as target:
            for line in lines:
                target.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        add = ["queue", "add", file, "-m", TINY]
        work = ["work", "-m", TINY, "--until-empty", "--threads", "1", "--device", "cpu", "-q"]
        yield folder, add, work


def test_program(database):
    lines = [{**LINE, "seed": seed} for seed in (1, 2, 18446744073709551615)]
    lines.append({**LINE, "prompt": "\u8c61 'é\\ \";\t$1 -- \n{}", "output": "named.webp", "quality": 80})
    with place(database, *lines) as (folder, add, work):
        os.mkdir(f"{folder}/results")
        assert json.loads(zimage(database, *add, "--json")) == {"batch": "b", "lines": 4, "added": 4}
        assert "0 jobs added, 4 were there already" in zimage(database, *add)
        status = json.loads(zimage(database, "queue", "status", "--json"))
        assert status["jobs"]["queued"] == 4 and status["seconds_left"] is None, status
        zimage(database, *work, "--out-dir", f"{folder}/results")
        assert check_files(database, f"{folder}/results") == 4 and os.path.exists(f"{folder}/results/named.webp")
        status = zimage(database, "queue", "status")
        assert " 4 " in status and "time left: 0 s" in status, status
        jobs = [json.loads(line) for line in zimage(database, "queue", "export").splitlines()]
        assert [job["request"] for job in jobs] == lines
        assert [int(job["result"]["seed"]) for job in jobs] == [1, 2, 18446744073709551615, 7]
        # the same images as those of a batch, byte by byte
        target = f"{folder}/batch"
        zimage(database, "generate", "--batch", f"{folder}/b.jsonl", "--out-dir", target, "-m", TINY, "--threads", "1",
               "--device", "cpu", "-q")
        made = {open(path, "rb").read() for path in glob.glob(f"{target}/*")}
        assert made == {open(f"{folder}/results/{job['result']['file']}", "rb").read() for job in jobs}


def test_words_that_a_model_does_not_know(database):
    """The list in the model's folder: a warning in the job's result, and a line of the worker."""
    with place(database, {**LINE, "prompt": "a car"}, {**LINE, "prompt": "an automobile"}) as (folder, add, work):
        model = shutil.copytree(TINY, f"{folder}/listed")
        with open(f"{model}/words.txt", "w") as file:
            file.write("zimage words 1\n=\ta\tan\nautomobile\t~car\n")
        zimage(database, *(model if word == TINY else word for word in add))
        done = subprocess.run([PROGRAM, *(model if word == TINY else word for word in work), "--out-dir",
                               f"{folder}/results", "--queue", database.url], text=True, stderr=subprocess.PIPE,
                              timeout=300, check=True)
        said = 'the model does not know "car" (nearest: "automobile")'
        assert done.stderr.count(f"warning: {said}\n") == 1 and done.stderr.count("does not know") == 1, done.stderr
        results = [json.loads(line)["result"] for line in zimage(database, "queue", "export").splitlines()]
        assert said in results[0]["warnings"] and said not in results[1].get("warnings", []), results


def test_several_devices(database):
    """A worker for each GPU in one process. The GPUs are emulated."""
    program = os.path.join(os.path.dirname(STAND_IN), "cuda_emulated", "zimage")
    if not os.path.exists(program):
        return print("      skipped: this build has no emulated GPU")
    with place(database, *({**LINE, "size": "32x32", "seed": seed} for seed in range(8))) as (folder, add, work):
        zimage(database, *add)
        work[work.index("cpu")] = "cuda"
        done = subprocess.run([program, *work, "--claim", "1", "--out-dir", f"{folder}/results", "--json", "--no-cache"],
                              text=True, stdout=subprocess.PIPE, timeout=300, check=True,
                              env={**os.environ, "ZIMAGE_QUEUE": database.url, "ZIMAGE_EMULATED_GPUS": "2"})
        assert json.loads(done.stdout)["made"] == 8, done
        jobs = [json.loads(line) for line in zimage(database, "queue", "export").splitlines()]
        assert len({job["worker"] for job in jobs}) == 2 and check_files(database, f"{folder}/results") == 8, jobs
    return None


def test_lines_that_are_refused(database):
    for bad, words in ((dict(LINE, size="17x17"), "size: 17"), ({"prompt": "x"}, "seed: missing"),
                       (dict(LINE, image="/etc/passwd"), "image: "), (dict(LINE, steps=0), "steps: 0"),
                       (dict(LINE, output="../x.png"), "output: "), (dict(LINE, count=2), "count: 2"),
                       ("nonsense", "a JSON object"), (dict(LINE, prompt="\0"), "\\u0000"), (dict(LINE, sed=1), "\"sed\""),
                       (dict(LINE, seed=-1), "seed: -1"), (dict(LINE, output="a.png"), "line 1 has the same")):
        with place(database, dict(LINE, output="a.png"), bad) as (folder, add, work):
            message = zimage(database, *add, code=2)
            assert "b.jsonl: line 2: " in message and words in message, message
            assert database.states() == {}


def test_changing(database):
    with place(database, LINE, {**LINE, "seed": 8}) as (folder, add, work):
        zimage(database, *add, "--batch", "one", "--priority", "3", "--max-attempts", "2", "--caller", "ann")
        assert database.rows("select distinct batch, priority, max_attempts, caller from zimage.job") == [
            ["one", "3", "2", "ann"]]
        first = database.one("select min(id) from zimage.job")
        assert "expected --batch or --id" in zimage(database, "queue", "cancel", code=2)
        assert "1 jobs cancelled" in zimage(database, "queue", "cancel", "--id", first)
        assert database.states() == {"queued": 1, "cancelled": 1}
        for action in ("status", "retry", "cancel", "export"):
            assert '--batch: "two": there is no such batch, expected one that status lists' in zimage(
                database, "queue", action, "--batch", "two", code=1)
            assert "--id: 999999: there is no such job, expected an id that export prints" in zimage(
                database, "queue", action, "--id", 999999, code=1)
        assert "1 jobs queued again" in zimage(database, "queue", "retry", "--batch", "one")
        assert "0 jobs queued again" in zimage(database, "queue", "retry", "--batch", "one")
        # a row that was changed by hand, and one that names a file
        database.rows(f"update zimage.job set request = jsonb_set(request, '{{prompt}}', '\"a cat\"') where id = {first}")
        database.rows(f"update zimage.job set request = request || '{{\"image\": \"/etc/passwd\"}}' where id > {first}")
        zimage(database, *work, "--out-dir", f"{folder}/r")
        errors = [row[0] for row in database.rows("select error from zimage.job where state = 'failed' order by id")]
        assert len(errors) == 2 and "the request was changed" in errors[0] and errors[1].startswith("image: "), errors
        status = json.loads(zimage(database, "queue", "status", "--json"))
        assert len(status["failures"]) == 2 and status["jobs"]["failed"] == 2, status


def test_output_that_exists(database):
    with place(database, dict(LINE, output="a.png"), dict(LINE, output="b.png", seed=9)) as (folder, add, work):
        zimage(database, *add)
        out = f"{folder}/r"
        os.mkdir(out)
        with open(f"{out}/a.png", "wb") as file:
            file.write(b"mine")
        zimage(database, *work, "--out-dir", out)
        assert database.states() == {"done": 1, "failed": 1}
        assert "another picture has this name" in database.one("select error from zimage.job where state = 'failed'")
        with open(f"{out}/a.png", "rb") as file:
            assert file.read() == b"mine"
        # the image itself, made by other kernels, is taken
        os.unlink(f"{out}/a.png")
        zimage(database, "queue", "retry", "--batch", "b")
        zimage(database, *work, "--out-dir", out, "--cpu-mask", "generic", "--compute", "f32")
        before = open(f"{out}/a.png", "rb").read()
        database.rows("update zimage.job set state = 'queued'")
        zimage(database, *work, "--out-dir", out)
        assert database.states() == {"done": 2} and open(f"{out}/a.png", "rb").read() == before


def test_another_model(database):
    with place(database, LINE) as (folder, add, work):
        zimage(database, *add)
        other = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/emoji")
        worker = subprocess.Popen([PROGRAM, "work", "-m", other, "--out-dir", f"{folder}/r", "--queue", database.url,
                                   "-q"])
        time.sleep(2)
        worker.terminate()
        assert worker.wait(60) == 0 and database.states() == {"queued": 1}


def test_packed_program(database):
    lines = [{**LINE, "seed": seed, **({"image": "input.png"} if seed == 4 else {})} for seed in range(5)]
    with place(database, *lines) as (folder, add, work):
        draw(f"{folder}/input.png", 1)
        zimage(database, *add, "--results", f"{folder}/tars", cwd=folder)
        totals = json.loads(zimage(database, *work, "--pack", f"{folder}/tars", "--json"))
        assert totals["made"] == 5, totals
        names = [(name, data) for _, name, _, data in read_shards(f"{folder}/tars")]
        assert len(names) == 10
        assert all(data.startswith(b"\x89PNG") for name, data in names if name.endswith(".png"))
        assert {json.loads(data)["seed"] for name, data in names if name.endswith(".json")} == set(range(5))


def draw(path, seed, alpha=None):
    """A picture of 64 x 64; alpha: of each pixel, a function of x."""
    with open(path, "wb") as file:
        file.write(png(64, 64, lambda x, y: (4 * x, 4 * y, seed, *(() if alpha is None else (alpha(x),)))))


def test_input_images(database):
    """Start images and masks: the same bytes as those of a batch, recipes included."""
    with results() as own:
        draw(f"{own}/cat.png", 1)
        draw(f"{own}/glass.png", 2, lambda x: 4 * x)
        draw(f"{own}/mask.png", 3, lambda x: 255 * (x < 30))
        cat, masked = dict(LINE, image=f"{own}/cat.png"), dict(LINE, image=f"{own}/cat.png", mask=f"{own}/mask.png")
        lines = [cat, dict(cat, strength=0.5), dict(cat, image=f"{own}/glass.png"), dict(masked, seed=8),
                 dict(cat, image=[f"{own}/glass.png"], background="#2050ff"), dict(masked, composite=True, output="c.webp")]
        with place(database, *lines) as (folder, add, work):
            results_here = ("--results", f"{folder}/r")
            message = zimage(database, *add, code=2)
            assert "line 1: image: expected --results DIR" in message and database.states() == {}, message
            assert "6 jobs added" in zimage(database, *add, *results_here)
            kept = check_inputs(database, f"{folder}/r")
            assert len(kept) == 4, kept  # glass.png over two backgrounds are two images
            os.rename(f"{own}/glass.png", f"{own}/glass")  # workers do not look for it
            zimage(database, *work, "--out-dir", f"{folder}/r")
            os.rename(f"{own}/glass", f"{own}/glass.png")
            assert check_files(database, f"{folder}/r") == 6
            target = f"{folder}/batch"
            zimage(database, "generate", "--batch", f"{folder}/b.jsonl", "--out-dir", target, "-m", TINY, "--threads",
                   "1", "--device", "cpu", "-q")
            jobs = [json.loads(line) for line in zimage(database, "queue", "export").splitlines()]
            made = {open(path, "rb").read() for path in glob.glob(f"{target}/*")}
            assert len(made) == 6, len(made)
            assert made == {open(f"{folder}/r/{job['result']['file']}", "rb").read() for job in jobs}
            assert [len(job["inputs"]) for job in jobs] == [1, 1, 1, 2, 1, 2] and kept == set(sum(
                (job["inputs"] for job in jobs), []))
            # another content under the same name is another job; the same again is none
            assert "0 jobs added" in zimage(database, *add, *results_here)
            draw(f"{own}/cat.png", 9)
            with open(f"{folder}/b.jsonl", "w") as file:
                file.write(json.dumps(cat) + "\n")
            assert "1 jobs added" in zimage(database, *add, *results_here)


def test_input_images_that_are_refused(database):
    with results() as own:
        draw(f"{own}/cat.png", 1)
        draw(f"{own}/mask.png", 3)
        with open(f"{own}/mask.png", "r+b") as file:
            file.truncate(100)
        with open(f"{own}/wide.png", "wb") as file:
            file.write(png(80, 64, lambda x, y: (x, y, 0)))
        cat = dict(LINE, image=f"{own}/cat.png")
        for bad, words in ((dict(LINE, image=f"{own}/none.png"), "none.png"), (dict(LINE, image="/etc/passwd"), "image: "),
                           (dict(cat, mask=f"{own}/mask.png"), "mask: "), (dict(LINE, mask=f"{own}/cat.png"), "mask: "),
                           (dict(cat, mask=f"{own}/wide.png"), "mask"), (dict(cat, strength=2), "strength: 2"),
                           (dict(cat, latents="x"), "latents: ")):
            with place(database, cat, bad) as (folder, add, work):
                message = zimage(database, *add, "--results", f"{folder}/r", code=2)
                assert "b.jsonl: line 2: " in message and words in message, message
                assert database.states() == {}


def test_input_images_end(database):
    """They stay while a job needs them, and what nobody needs goes; a job whose image is gone or another fails."""
    def hash_in(job):
        return database.one(f"select inputs[1] from zimage.job order by id limit 1 offset {job}")

    def forget():
        """As if a day was over."""
        database.rows("update zimage.input set kept_until = now() - interval '1 second'")

    with results() as own:
        for i in range(4):
            draw(f"{own}/{i}.png", i)
        lines = [dict(LINE, image=f"{own}/{i}.png") for i in range(4)]
        with place(database, *lines) as (folder, add, work):
            out = f"{folder}/r"
            zimage(database, *add, "--results", out)
            database.rows("insert into zimage.input values (repeat('ab', 32), now())")  # of an add that was killed
            os.makedirs(f"{out}/inputs/ab/ab")
            open(f"{out}/inputs/ab/ab/{'ab' * 32}.png", "wb").close()
            forget()
            gone, wrong = (f"{out}/inputs/{h[:2]}/{h[2:4]}/{h}.png" for h in (hash_in(0), hash_in(1)))
            os.unlink(gone)
            with open(wrong, "wb") as file:
                file.write(open(f"{own}/3.png", "rb").read())
            zimage(database, *work, "--out-dir", out)
            assert database.states() == {"failed": 2, "done": 2}
            errors = [row[0] for row in database.rows("select error from zimage.job where state = 'failed' order by id")]
            assert "is not among the results" in errors[0] and "is another" in errors[1], errors
            assert not os.path.exists(f"{out}/inputs/ab/ab/{'ab' * 32}.png")
            # adding again puts them back, and retry makes the rest
            assert "0 jobs added" in zimage(database, *add, "--results", out)
            assert len(check_inputs(database, out)) == 4
            zimage(database, "queue", "retry", "--batch", "b")
            zimage(database, "queue", "cancel", "--id", database.one("select min(id) from zimage.job"))
            zimage(database, *work, "--out-dir", out)
            assert database.states() == {"cancelled": 1, "done": 3}, database.states()
            kept = {hash_in(0)}
            forget()
            zimage(database, *work, "--out-dir", out)
            assert check_inputs(database, out) == kept  # retry may queue it again
            zimage(database, "queue", "retry", "--batch", "b")
            zimage(database, *work, "--out-dir", out)
            forget()
            zimage(database, *work, "--out-dir", out)
            assert check_inputs(database, out) == set() and database.states() == {"done": 4}


def test_input_is_removed_meanwhile(database):
    """Between the reading of the lines and their transaction: nothing is stored, and the same command does it."""
    with results() as own:
        draw(f"{own}/cat.png", 1)
        with place(database, dict(LINE, image=f"{own}/cat.png")) as (folder, add, work):
            with forgetful(database):
                message = zimage(database, *add, "--results", f"{folder}/r", code=1)
                assert "the same command" in message and database.states() == {}, message
            zimage(database, *add, "--results", f"{folder}/r")
            assert database.states() == {"queued": 1}
            zimage(database, *work, "--out-dir", f"{folder}/r")
            assert database.states() == {"done": 1}


if __name__ == "__main__":
    with Database() as server:
        code = run_tests(sys.modules[__name__], server)
    sys.exit(code)
